"""A data set that lives on the devices: a batch is a list of indices, and the compiled step gathers the examples.

Every device holds all of it: the indices are split over the mesh like a batch's rows, each device gathers its own, and
nothing is sent between devices. (Of a data set split over them, each gather would have to ask all.) In a run of several
processes each puts copies of its own on its own devices.
"""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from genjax.core.errors import UserError
from genjax.core.types import Array, Batch
from genjax.data.examples import Examples, Gatherable
from genjax.data.loading import Input

INDEX = "index"  # the name of the indices in a batch
MOST = 2**31 - 1  # numbers in an array that int32 indices reach
Gather = Callable[[Mapping[str, Array], Batch], Batch]  # (arrays on the devices, {"index": [b]}) -> batch


def choose(examples: Examples, mesh: Mesh, how: Input) -> Gatherable | None:
    """The data set as what lives on the devices, if it is to.

    Args:
        examples: of the training split.
        mesh: the devices.
        how: `resident` and `resident_mib`.

    Returns:
        `examples`, or None if batches come from the host.

    Raises:
        UserError: `resident=true` for examples that are decoded with each access, or too many for int32 indices.
    """
    if how.resident is False:
        return None
    if not isinstance(examples, Gatherable):
        if how.resident:
            raise UserError(
                "config.input.resident=true needs examples in memory: these are decoded with each access"
            )
        return None
    if how.resident:
        if examples.nbytes > MOST:
            raise UserError("config.input.resident=true is for data sets of less than 2 GiB")
        return examples
    # A CPU's virtual devices share its memory.
    copies = len(mesh.local_devices) if mesh.devices.flat[0].platform == "cpu" else 1
    return examples if examples.nbytes * copies <= min(how.resident_mib * 2**20, MOST) else None


def place(examples: Gatherable, mesh: Mesh) -> dict[str, Array]:
    """Puts a data set on every device; each example's array as one row, which no device pads."""
    everywhere = NamedSharding(mesh, P())

    def put(array: np.ndarray) -> Array:
        rows = np.ascontiguousarray(array).reshape(len(array), -1) if array.ndim > 2 else array
        rows = rows.astype(jax.dtypes.canonicalize_dtype(rows.dtype), copy=False)
        return jax.make_array_from_callback(rows.shape, everywhere, lambda index: rows[index])

    return {name: put(array) for name, array in examples.arrays.items()}


def gather(examples: Gatherable) -> Gather:
    """The function that makes a batch inside a compiled call."""
    return lambda arrays, batch: examples.gather(arrays, batch[INDEX])
