"""Samples of any objective, drawn in compiled calls of one size, sharded, in the data's own units."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from genjax.data import Data
from genjax.errors import UserError
from genjax.objective import HasTranslation, Objective
from genjax.parallel import batch_sharding, batch_shards, within
from genjax.types import Array, Batch, Extra, Key, Params, named


def gather(array: Array | np.ndarray) -> np.ndarray:
    """The whole of a global array as NumPy, on every process."""
    if isinstance(array, np.ndarray) or array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


@functools.lru_cache(maxsize=8)
def compile_sampler(objective: Objective, mesh: Mesh, num: int) -> Callable[..., Array]:
    """Compiles (params, extra, key, cond) -> `num` samples split over the mesh.

    Args:
        objective: hashable: calls for equal objectives share the compiled program.
        mesh: the devices.
        num: a multiple of the mesh's batch shards.

    Returns:
        The compiled function; `cond` is what the samples are given, or None.
    """

    def draw(params: Params, extra: Extra, key: Key, cond: Batch | None) -> Array:
        return objective.sample(params, extra, key, num, cond)

    return jax.jit(within(draw, mesh), out_shardings=batch_sharding(mesh))


def draw_samples(
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
    report: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Draws samples, the classes in turn where the data have labels; a translator's of test examples in random order.

    Args:
        objective: what draws.
        data: gives the number of classes, and the way back to the data's own units.
        params: by player; the moving average is what is wanted.
        extra: goes with params.
        mesh: the devices.
        seed: call i draws with `fold_in(key(seed), i)`, so that the first samples do not depend on `num`.
        num: how many.
        batch_size: in one compiled call; rounded up to a multiple of the devices.
        label: one class for all samples.
        report: called with the number of samples drawn so far.

    Returns:
        (samples [num, ...] in the data's own units and dtype, labels int32 [num] or None).

    Raises:
        UserError: there is no such class.
    """
    classes = getattr(objective, "classes", 0)
    if label is not None and not 0 <= label < classes:
        known = f"classes 0 to {classes - 1}" if classes else "no classes"
        raise UserError(f"label={label}: this model has {known}")
    shards = batch_shards(mesh)
    size = -(-min(batch_size, num) // shards) * shards
    labels = np.arange(num, dtype=np.int32) % classes if label is None and classes else None
    labels = np.full(num, label, np.int32) if label is not None else labels
    draw, root, parts = compile_sampler(objective, mesh, size), named(jax.random.key(seed), "samples"), []
    replicated = NamedSharding(mesh, P())
    examples = data.load("test") if isinstance(objective, HasTranslation) else None
    for call, start in enumerate(range(0, num, size)):
        given: Batch = {}
        if examples is not None:
            order = np.random.default_rng(seed).permutation(len(examples))
            rows = np.take(order, np.arange(start, start + size), mode="wrap")
            given = {"x": data.forward(examples[rows], jax.random.fold_in(root, call), False)["x"]}
        if labels is not None:
            given = {**given, "label": jnp.asarray(np.resize(labels[start : start + size], size))}
        cond = jax.device_put(given, replicated) if given else None
        parts.append(data.inverse(gather(draw(params, extra, jax.random.fold_in(root, call), cond))))
        report(min(start + size, num))
    return np.concatenate(parts)[:num], labels
