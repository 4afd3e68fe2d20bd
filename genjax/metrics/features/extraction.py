"""Features of a stream of batches that are split over the mesh's devices: what each process's devices hold it sees
itself, and at the end the processes put together what they have seen. No process ever holds another's examples.

    network(x) = finish(apply(params, x)),          logits(x) = head(params, apply(params, x)),

`apply` and `head` in float32 on the devices, compiled once, their parameters replicated; `finish`, such as whitening,
and all statistics in float64 where the rows are.
"""

import dataclasses
import functools
import pickle
from collections.abc import Callable, Iterable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float32, Float64, Int, Shaped
from numpy import ndarray

from genjax.core.errors import UserError
from genjax.core.types import Array, PyTree
from genjax.metrics.distances.streaming import Accumulator, Prefixed, Seen
from genjax.parallel.mesh import batch_sharding, within

PIECE = 2**26  # bytes that processes exchange at once

A = TypeVar("A", bound=Accumulator)
# (features [n, d], their places in the set [n], logits [n, k] or None, labels [n] or None) of one batch's rows.
Of = Callable[[ndarray, ndarray, ndarray | None, ndarray | None], A]


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """A named map from examples to features, that runs on devices.

    Attributes:
        name: under which numbers are reported.
        dim: features of an example, before `finish`.
        params: of the network.
        apply: (params, x [b, ...] in the data's own units) -> float32 [b, dim]; pure, for jit.
        head: (params, float32 [b, dim]) -> logits [b, k], where the network classifies.
        finish: what is done with features in float64, row by row: [n, dim] -> [n, d].
        digest: SHA-256 of weights that were read from a file; "" where the network is made for the data at hand.
        original: whether the weights are those that FID and Inception Score are defined by.
    """

    name: str
    dim: int
    params: PyTree
    apply: Callable[[PyTree, Array], Array]
    head: Callable[[PyTree, Array], Array] | None = None
    finish: Callable[[Float64[ndarray, "n dim"]], Float64[ndarray, "n d"]] | None = None
    digest: str = ""
    original: bool = False


@dataclasses.dataclass(frozen=True)
class Part:
    """A global batch of a stream.

    Attributes:
        x: [size, ...] in the data's own units, split over the mesh along its rows.
        count: rows that count, from the first; the rest are there for the shape.
        labels: [size] of all rows, on every process; None without labels.
    """

    x: Shaped[Array, "size ..."]
    count: int
    labels: Int[ndarray, " size"] | None = None


def own_rows(array: Array, count: int) -> tuple[Int[ndarray, " n"], Shaped[ndarray, "n ..."]]:
    """Those of the first `count` rows of a global array that this process answers for, and their numbers.

    Every row is answered for by one process alone, also where several hold it.

    Args:
        array: split along its rows, or not at all.
        count: rows that count.
    """
    places, parts = [np.zeros(0, np.int64)], [np.zeros((0, *array.shape[1:]), array.dtype)]
    for shard in array.addressable_shards:
        start, stop, _ = shard.index[0].indices(len(array))
        if shard.replica_id == 0 and start < min(stop, count):
            places.append(np.arange(start, min(stop, count)))
            parts.append(np.asarray(shard.data)[: len(places[-1])])
    return np.concatenate(places), np.concatenate(parts)


def over_processes(mine: A) -> A:
    """What all processes have seen together, the same on each, from what each has seen."""
    if jax.process_count() == 1:
        return mine
    # As bytes: JAX would round float64 to float32.
    sent = np.frombuffer(pickle.dumps(mine), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.asarray(len(sent), np.int32))).reshape(-1)
    got: list[list[ndarray]] = []
    for start in range(0, int(sizes.max()), PIECE):
        piece = np.zeros(min(PIECE, int(sizes.max()) - start), np.uint8)
        here = sent[start : start + len(piece)]
        piece[: len(here)] = here
        got.append(list(np.asarray(multihost_utils.process_allgather(piece))))
    whole = (
        np.concatenate(pieces)[:size] for pieces, size in zip(zip(*got, strict=True), sizes, strict=True)
    )
    return functools.reduce(lambda a, b: a.merge(b), (pickle.loads(data.tobytes()) for data in whole))


@functools.lru_cache(maxsize=8)
def _compile(network: FeatureNetwork, mesh: Mesh) -> Callable[..., tuple[Array, Array | None]]:
    """Compiles (params, x) -> (features, logits or None), rows split over the mesh."""
    rows, everywhere = batch_sharding(mesh), NamedSharding(mesh, P())

    def outputs(params: PyTree, x: Array) -> tuple[Float32[Array, "b d"], Float32[Array, "b k"] | None]:
        features = network.apply(params, x)
        return features, None if network.head is None else network.head(params, features)

    return jax.jit(within(outputs, mesh), in_shardings=(everywhere, rows), out_shardings=rows)


def fold(network: FeatureNetwork, mesh: Mesh, stream: Iterable[Part], of: Of[A]) -> A:
    """Goes once over a stream; all processes that have devices in the mesh do so together.

    Args:
        network: gives features, and logits if it has a head.
        mesh: the devices: those of all processes, or this process's own.
        stream: batches of one size.
        of: what is known of the rows of a batch that this process answers for, which may be none. The features are
            float32 as the network gives them, or float64 where it has a `finish`.

    Returns:
        What has been seen of the whole set, the same on each process.

    Raises:
        UserError: the stream is empty, or as `of`.
    """
    run, params = _compile(network, mesh), jax.device_put(network.params, NamedSharding(mesh, P()))
    seen, start = None, 0
    for part in stream:
        features, logits = run(params, part.x)
        place, mine = own_rows(features, part.count)
        finished = mine if network.finish is None else network.finish(mine.astype(np.float64))
        labels = None if part.labels is None else part.labels[place]
        scores = None if logits is None else own_rows(logits, part.count)[1]
        now = of(finished, start + place, scores, labels)
        seen = now if seen is None else seen.merge(now)
        start += part.count
    if seen is None:
        raise UserError(f"{network.name}: there are no examples to look at")
    shared = any(device.process_index != jax.process_index() for device in mesh.devices.flat)
    return over_processes(seen) if shared else seen


def look(network: FeatureNetwork, mesh: Mesh, stream: Iterable[Part], keep: bool = True) -> Seen:
    """`fold` to all that `Seen` has.

    Args:
        network: gives features.
        mesh: the devices.
        stream: batches of one size.
        keep: the features (n x d on every process), for the metrics that need pairs; without them memory is O(d^2).

    Raises:
        UserError: the stream is empty, or features are not finite.
    """
    return fold(network, mesh, stream, functools.partial(Seen.of, keep=keep))


def look_first(
    network: FeatureNetwork, mesh: Mesh, stream: Iterable[Part], most: int, keep: bool = True
) -> Prefixed:
    """`look`, of which the first `most` examples are known by themselves; the features of these alone are kept.

    Args and errors are those of `look`.
    """
    return fold(network, mesh, stream, functools.partial(Prefixed.of, most=most, keep=keep))
