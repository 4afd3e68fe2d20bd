"""Feature statistics of a stream of batches sharded over the mesh: each process accumulates its local rows, and the
accumulators are merged over processes at the end. No process ever holds another process's examples.

    network(x) = finish(apply(params, x)),          logits(x) = head(params, apply(params, x)),

`apply` and `head` run in float32 on the devices, compiled once, with replicated parameters; `finish`, such as
whitening, and all statistics are computed in float64 on the host of the rows.
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
from genjax.metrics.distances.streaming import Accumulator, FeatureStatistics, PrefixStatistics
from genjax.parallel.mesh import batch_sharding, with_mesh

CHUNK_BYTES = 2**26  # per all-gather

A = TypeVar("A", bound=Accumulator)
# (features [n, d], row indices in the set [n], logits [n, k] or None, labels [n] or None) of one batch -> accumulator.
Accumulate = Callable[[ndarray, ndarray, ndarray | None, ndarray | None], A]


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """A named map from examples to features that runs on devices.

    Attributes:
        name: name of the features in reports.
        dim: features per example, before `finish`.
        params: parameters of the network.
        apply: (params, x [b, ...] in the data's own units) -> float32 [b, dim]; pure, for jit.
        head: (params, float32 [b, dim]) -> logits [b, k], or None without a classifier.
        finish: row-wise map of the features in float64, [n, dim] -> [n, d], or None.
        digest: SHA-256 of weights that were read from a file; "" for networks fitted to the data at hand.
        original: whether the weights are those that define FID and Inception Score.
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
class StreamBatch:
    """A global batch of a stream.

    Attributes:
        x: [size, ...] in the data's own units, sharded over the mesh along its rows.
        count: number of valid leading rows; the rest are padding.
        labels: [size] of all rows, on every process; None without labels.
    """

    x: Shaped[Array, "size ..."]
    count: int
    labels: Int[ndarray, " size"] | None = None


def local_rows(array: Array, count: int) -> tuple[Int[ndarray, " n"], Shaped[ndarray, "n ..."]]:
    """The valid rows of a global array that are assigned to this process, and their indices.

    Every row is assigned to exactly one process, also where several hold a replica.

    Args:
        array: global array, sharded along its rows or replicated.
        count: number of valid leading rows.

    Returns:
        (row indices [n], rows [n, ...]).
    """
    places, parts = [np.zeros(0, np.int64)], [np.zeros((0, *array.shape[1:]), array.dtype)]
    for shard in array.addressable_shards:
        start, stop, _ = shard.index[0].indices(len(array))
        if shard.replica_id == 0 and start < min(stop, count):
            places.append(np.arange(start, min(stop, count)))
            parts.append(np.asarray(shard.data)[: len(places[-1])])
    return np.concatenate(places), np.concatenate(parts)


def merge_over_processes(mine: A) -> A:
    """Merges the accumulators of all processes; the same result on each."""
    if jax.process_count() == 1:
        return mine
    # Sent as bytes, as JAX would round float64 to float32.
    sent = np.frombuffer(pickle.dumps(mine), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.asarray(len(sent), np.int32))).reshape(-1)
    got: list[list[ndarray]] = []
    for start in range(0, int(sizes.max()), CHUNK_BYTES):
        piece = np.zeros(min(CHUNK_BYTES, int(sizes.max()) - start), np.uint8)
        here = sent[start : start + len(piece)]
        piece[: len(here)] = here
        got.append(list(np.asarray(multihost_utils.process_allgather(piece))))
    whole = (
        np.concatenate(pieces)[:size] for pieces, size in zip(zip(*got, strict=True), sizes, strict=True)
    )
    return functools.reduce(lambda a, b: a.merge(b), (pickle.loads(data.tobytes()) for data in whole))


@functools.lru_cache(maxsize=8)
def _compile(network: FeatureNetwork, mesh: Mesh) -> Callable[..., tuple[Array, Array | None]]:
    """Compiles (params, x) -> (features, logits or None), rows sharded over the mesh."""
    rows, everywhere = batch_sharding(mesh), NamedSharding(mesh, P())

    def outputs(params: PyTree, x: Array) -> tuple[Float32[Array, "b d"], Float32[Array, "b k"] | None]:
        features = network.apply(params, x)
        return features, None if network.head is None else network.head(params, features)

    return jax.jit(with_mesh(outputs, mesh), in_shardings=(everywhere, rows), out_shardings=rows)


def reduce_stream(
    network: FeatureNetwork, mesh: Mesh, stream: Iterable[StreamBatch], accumulate: Accumulate[A]
) -> A:
    """Reduces the features of a stream to one accumulator; a collective call of all processes of the mesh.

    Args:
        network: computes features, and logits if it has a head.
        mesh: the devices: those of all processes, or this process's own.
        stream: batches of one size.
        accumulate: accumulator of the batch's local rows, of which there may be none. Features are float32 as returned
            by the network, or float64 if it has a `finish`.

    Returns:
        The accumulator of the whole set, the same on each process.

    Raises:
        UserError: the stream is empty, or as `accumulate`.
    """
    run, params = _compile(network, mesh), jax.device_put(network.params, NamedSharding(mesh, P()))
    seen, start = None, 0
    for part in stream:
        features, logits = run(params, part.x)
        place, mine = local_rows(features, part.count)
        finished = mine if network.finish is None else network.finish(mine.astype(np.float64))
        labels = None if part.labels is None else part.labels[place]
        scores = None if logits is None else local_rows(logits, part.count)[1]
        now = accumulate(finished, start + place, scores, labels)
        seen = now if seen is None else seen.merge(now)
        start += part.count
    if seen is None:
        raise UserError(f"{network.name}: there are no examples in the stream")
    shared = any(device.process_index != jax.process_index() for device in mesh.devices.flat)
    return merge_over_processes(seen) if shared else seen


def stream_statistics(
    network: FeatureNetwork, mesh: Mesh, stream: Iterable[StreamBatch], keep: bool = True
) -> FeatureStatistics:
    """`reduce_stream` to `FeatureStatistics`.

    Args:
        network: computes features.
        mesh: the devices.
        stream: batches of one size.
        keep: keep the features (n x d on every process), for pairwise metrics; without them memory is O(d^2).

    Returns:
        Statistics of the whole set, the same on each process.

    Raises:
        UserError: the stream is empty, or features are not finite.
    """
    return reduce_stream(network, mesh, stream, functools.partial(FeatureStatistics.of, keep=keep))


def stream_prefix_statistics(
    network: FeatureNetwork, mesh: Mesh, stream: Iterable[StreamBatch], prefix: int, keep: bool = True
) -> PrefixStatistics:
    """`stream_statistics` with separate statistics of the first `prefix` examples; keeps only their features.

    Other Args and Raises: see `stream_statistics`.

    Returns:
        Statistics of the first examples and of the rest, the same on each process.
    """
    return reduce_stream(
        network, mesh, stream, functools.partial(PrefixStatistics.of, prefix=prefix, keep=keep)
    )
