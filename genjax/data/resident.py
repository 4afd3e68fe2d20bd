"""Data sets resident on the devices: a batch is a list of indices, and the compiled step gathers the examples.

Every device holds a full copy: the indices are sharded like a batch's rows, each device gathers its own rows, and no
communication between devices is needed, as a sharded data set would. In a run of several processes each places copies
on its own devices.
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
MAX_BYTES = 2**31 - 1  # bound that keeps all elements within the reach of int32 indices
Gather = Callable[[Mapping[str, Array], Batch], Batch]  # (arrays on the devices, {"index": [b]}) -> batch


def choose(examples: Examples, mesh: Mesh, options: Input) -> Gatherable | None:
    """Decides whether a data set resides on the devices.

    Args:
        examples: of the training split.
        mesh: the devices.
        options: `resident` and `resident_mib`.

    Returns:
        `examples`, or None if batches come from the host.

    Raises:
        UserError: `resident=true` for examples that are decoded on access, or too large for int32 indices.
    """
    if options.resident is False:
        return None
    if not isinstance(examples, Gatherable):
        if options.resident:
            raise UserError(
                "config.input.resident=true needs examples in memory: these are decoded on access"
            )
        return None
    if options.resident:
        if examples.nbytes > MAX_BYTES:
            raise UserError("config.input.resident=true is for data sets of less than 2 GiB")
        return examples
    # A CPU's virtual devices share its memory.
    copies = len(mesh.local_devices) if mesh.devices.flat[0].platform == "cpu" else 1
    return examples if examples.nbytes * copies <= min(options.resident_mib * 2**20, MAX_BYTES) else None


def place(examples: Gatherable, mesh: Mesh) -> dict[str, Array]:
    """Copies a data set to every device, each example flattened to one row, which avoids padding of small axes."""
    everywhere = NamedSharding(mesh, P())

    def put(array: np.ndarray) -> Array:
        rows = np.ascontiguousarray(array).reshape(len(array), -1) if array.ndim > 2 else array
        rows = rows.astype(jax.dtypes.canonicalize_dtype(rows.dtype), copy=False)
        return jax.make_array_from_callback(rows.shape, everywhere, lambda index: rows[index])

    return {name: put(array) for name, array in examples.arrays.items()}


def gather(examples: Gatherable) -> Gather:
    """The function that gathers a batch inside a compiled call."""
    return lambda arrays, batch: examples.gather(arrays, batch[INDEX])
