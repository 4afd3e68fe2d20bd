"""Sampling of any objective: compiled calls of one batch size, sharded, mapped to the data's own units."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Int, Shaped

from genjax.core.errors import UserError
from genjax.core.objective import HasTranslation, Objective, num_classes, require_samples
from genjax.core.row_keys import row_key, rows_from
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.data import Data
from genjax.parallel.mesh import batch_sharding, batch_shards, with_mesh


def gather(array: Array | np.ndarray) -> np.ndarray:
    """The whole of a global array as NumPy, on every process."""
    if isinstance(array, np.ndarray) or array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


@functools.lru_cache(maxsize=8)
def compile_sampler(objective: Objective, mesh: Mesh, num: int) -> Callable[..., Array]:
    """Compiles (params, extra, key, cond) -> `num` samples sharded over the mesh.

    Args:
        objective: hashable; equal objectives share the compiled program.
        mesh: the devices.
        num: a multiple of the mesh's batch shards.

    Returns:
        The compiled function; `cond` is the samples' conditions, or None.
    """

    def draw(params: Params, extra: Extra, key: Key, cond: Batch | None) -> Array:
        return require_samples(objective).sample(params, extra, key, num, cond)

    return jax.jit(with_mesh(draw, mesh), out_shardings=batch_sharding(mesh))


def sampling_key(seed: int) -> Key:
    """The row key of all samples of a seed."""
    return jax.random.fold_in(named(row_key(seed), "samples"), 0)


@jax.jit
def _broken(x: Shaped[Array, "n ..."]) -> Int[Array, ""]:
    """Number of examples with NaN or infinite values."""
    return jnp.sum(~jnp.all(jnp.isfinite(x.reshape(len(x), -1)), axis=1))


def in_units(data: Data, array: Array) -> Array:
    """Samples in the data's own units, with the same sharding."""
    held = {shard.index[0].indices(len(array))[:2]: shard.data for shard in array.addressable_shards}

    def rows(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        return data.inverse(held[index[0].indices(len(array))[:2]])

    return jax.make_array_from_callback(array.shape, array.sharding, rows)


def sample_batches(
    objective: Objective,
    data: Data,
    params: Params,
    extra: Extra,
    mesh: Mesh,
    *,
    seed: int,
    num: int,
    batch_size: int = 250,
    label: int | None = None,
    finite: bool = False,
    report: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[Array, int, np.ndarray | None]]:
    """Draws samples batch by batch, with labels cycling through the classes; a translator's of test examples in random
    order.

    Args:
        objective: the objective.
        data: the data, with the inverse transforms.
        params: by player, usually the EMA.
        extra: the objective's non-trained state that belongs to params.
        mesh: the devices.
        seed: with a sample's index it determines the sample's random numbers, whatever `num`, `batch_size`, devices.
        num: number of samples.
        batch_size: samples per compiled call; rounded up to a multiple of the devices.
        label: one class for all samples.
        finite: raise on NaN or infinity, before samples are cast to integers.
        report: called with the number of samples drawn so far.

    Yields:
        (samples [size, ...] in the model's scale, sharded over the mesh; number of valid leading rows; labels int32
        [size] or None).

    Raises:
        UserError: `label` is out of range, or with `finite` samples are not finite.
    """
    classes = num_classes(objective)
    if label is not None and not 0 <= label < classes:
        known = f"classes 0 to {classes - 1}" if classes else "no classes"
        raise UserError(f"label={label}: this model has {known}")
    shards = batch_shards(mesh)
    size = -(-min(batch_size, num) // shards) * shards
    labels = np.arange(num, dtype=np.int32) % classes if label is None and classes else None
    labels = np.full(num, label, np.int32) if label is not None else labels
    draw, root = compile_sampler(objective, mesh, size), sampling_key(seed)
    replicated = NamedSharding(mesh, P())
    examples = data.load("test") if isinstance(objective, HasTranslation) else None
    for start in range(0, num, size):
        given: Batch = {}
        if examples is not None:
            order = np.random.default_rng(seed).permutation(len(examples))
            rows = np.take(order, np.arange(start, start + size), mode="wrap")
            given = {"x": data.forward(examples[rows], rows_from(root, start), False)["x"]}
        asked = None if labels is None else np.resize(labels[start : start + size], size)
        if asked is not None:
            given = {**given, "label": jnp.asarray(asked)}
        cond = jax.device_put(given, replicated) if given else None
        made = draw(params, extra, rows_from(root, start), cond)
        if finite and (bad := int(_broken(made))):
            raise UserError(
                f"samples: {bad} of {size} hold values that are NaN or infinite: they cannot be evaluated"
            )
        yield made, min(size, num - start), asked
        report(min(start + size, num))


def draw_samples(
    objective: Objective, data: Data, params: Params, extra: Extra, mesh: Mesh, **options: Any
) -> tuple[np.ndarray, np.ndarray | None]:
    """Draws samples and gathers all of them on every process.

    Other Args and Raises: see `sample_batches`.

    Returns:
        (samples [num, ...] in the data's own units and dtype, labels int32 [num] or None).
    """
    samples, labels = [], []
    for x, count, asked in sample_batches(objective, data, params, extra, mesh, **options):
        samples.append(data.inverse(gather(x)[:count]))
        labels += [] if asked is None else [asked[:count]]
    return np.concatenate(samples), np.concatenate(labels) if labels else None
