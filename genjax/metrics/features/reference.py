"""Statistics of one set of images in a network's features: computed from a stream, saved and loaded.

The statistics are sums over batches of constant size, plus a fixed random subset of `KEPT` rows of features for the
kernel distance. A file (.npz, without pickles) has the arrays

    mu [d], sigma [d, d]     mean and unbiased covariance, float64, with the names of pytorch-fid,
    count                    number of images,
    weights                  SHA-256 of the network's weights,
    data                     description of the images,
    features [k, d]          the kept rows, float32,
    scores [s]               Inception Score of each split.

A file with only mu and sigma, as published elsewhere, is accepted without checks of its network and images.
"""

import dataclasses
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Float32, Float64, Int
from numpy import ndarray

from genjax.core.errors import UserError
from genjax.core.files import replacing, writing
from genjax.metrics.distances.frechet import Moments
from genjax.metrics.distances.scores import ClassEntropy
from genjax.metrics.distances.streaming import Rows
from genjax.metrics.features.extraction import FeatureNetwork, StreamBatch, reduce_stream

KEPT = 10_000  # rows of features, float32: 82 MB
SPLITS = 10  # of the Inception Score (Salimans et al. 2016)
OWN = ("count", "weights", "data", "features", "scores")
# Exceptions of damaged archives: in the directory, the compressed streams, the arrays' headers.
DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Feature statistics of a set of images.

    Attributes:
        moments: of the features; only mean and covariance are meaningful for a foreign file.
        features: kept rows in random order; empty for a foreign file.
        scores: Inception Score of each split, in the order of the images; empty for a foreign file.
        weights: SHA-256 of the network's weights, "" if unknown.
        data: description of the images, "" if unknown.
    """

    moments: Moments
    features: Float32[ndarray, "k d"]
    scores: Float64[ndarray, " s"]
    weights: str = ""
    data: str = ""

    @property
    def foreign(self) -> bool:
        """Whether only mean and covariance are known."""
        return not self.weights

    @property
    def count(self) -> int | None:
        """Number of images, if known."""
        return None if self.foreign else self.moments.count


@dataclasses.dataclass(frozen=True)
class ReferenceSums:
    """Accumulator of `Statistics` over a part of a set.

    Attributes:
        moments: of the features.
        rows: kept rows, with their places in the random order.
        splits: split number -> sums for its score.
    """

    moments: Moments
    rows: Rows
    splits: dict[int, ClassEntropy]

    def merge(self, other: "ReferenceSums") -> "ReferenceSums":
        """The accumulator of both parts."""
        splits = dict(self.splits)
        for split, entropy in other.splits.items():
            splits[split] = splits[split].merge(entropy) if split in splits else entropy
        return ReferenceSums(self.moments.merge(other.moments), self.rows.merge(other.rows), splits)


def _counted(stream: Iterable[StreamBatch], total: int, data: str) -> Iterator[StreamBatch]:
    """The stream; raises if it does not have `total` examples, on all processes before they communicate."""
    done = 0
    for part in stream:
        done += part.count
        if done > total:
            break
        yield part
    if done != total:
        raise UserError(f"{data}: {done} or more images where {total} were expected")


def gather_statistics(
    network: FeatureNetwork,
    mesh: Mesh,
    stream: Iterable[StreamBatch],
    total: int,
    *,
    data: str,
    seed: int = 0,
    kept: int = KEPT,
    splits: int = SPLITS,
) -> Statistics:
    """Computes the statistics of a stream of images; a collective call, see `extraction.reduce_stream`.

    Args:
        network: the feature network, with a head.
        mesh: the devices.
        stream: images, `total` in all.
        total: at least 2 and at least `splits`.
        data: description of the images.
        seed: seed of the choice of kept rows.
        kept: upper limit on the kept rows.
        splits: number of consecutive, nearly equal parts with a score each.

    Returns:
        The statistics, the same on each process.

    Raises:
        UserError: too few images, another number than `total`, or features that are not finite.
    """
    if total < max(2, splits):
        raise UserError(f"{data}: {total} images, at least {max(2, splits)} are needed for {splits} splits")
    order = np.random.default_rng(seed).permutation(total)
    slot = np.full(total, -1)
    slot[order[:kept]] = np.arange(min(kept, total))
    split = np.searchsorted(np.arange(1, splits) * total // splits, np.arange(total), side="right")

    def accumulate(
        features: Float[ndarray, "n d"],
        place: Int[ndarray, " n"],
        logits: Float[ndarray, "n k"] | None,
        labels: Int[ndarray, " n"] | None,
    ) -> ReferenceSums:
        assert logits is not None
        if not np.isfinite(features).all() or not np.isfinite(logits).all():
            raise UserError(f"{network.name}: features are NaN or infinite: its weights are damaged")
        chosen = slot[place] >= 0
        entropies = {
            int(part): ClassEntropy.of_logits(logits[split[place] == part])
            for part in np.unique(split[place])
        }
        return ReferenceSums(Moments.of(features), Rows.of(features[chosen], slot[place][chosen]), entropies)

    found = reduce_stream(network, mesh, _counted(stream, total, data), accumulate)
    scores = np.array([found.splits[part].score for part in range(splits)])
    features = found.rows.features().astype(np.float32)
    return Statistics(found.moments, features, scores, network.digest, data)


def save_statistics(statistics: Statistics, path: Path) -> None:
    """Writes the file atomically.

    Raises:
        UserError: the file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                mu=statistics.moments.mean,
                sigma=statistics.moments.covariance,
                count=np.int64(statistics.moments.count),
                weights=np.str_(statistics.weights),
                data=np.str_(statistics.data),
                features=statistics.features,
                scores=statistics.scores,
            )


def load_statistics(path: Path, network: FeatureNetwork) -> Statistics:
    """Reads and checks a file.

    Args:
        path: the .npz file.
        network: the network whose features will be compared.

    Raises:
        UserError: the file is missing, damaged, of another size, or computed with other weights.
    """
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            arrays = {name: archive[name] for name in archive.files}
    except DAMAGED as error:
        line = next(iter(str(error).splitlines()), "") or "it is damaged"
        raise UserError(f"cannot read statistics from {path}: {line}") from None
    size = network.dim
    for name, shape in {"mu": (size,), "sigma": (size, size)}.items():
        if name not in arrays:
            raise UserError(f"{path} holds no statistics: it lacks '{name}' (it has: {', '.join(arrays)})")
        if arrays[name].shape != shape:
            raise UserError(f"{path}: {name} has the shape {arrays[name].shape}, expected {shape}")
        if not np.isfinite(arrays[name]).all():
            raise UserError(f"{path} is damaged: {name} has values that are NaN or infinite")
    mean, covariance = (arrays[name].astype(np.float64) for name in ("mu", "sigma"))
    if not np.allclose(covariance, covariance.T, atol=1e-6 * np.abs(covariance).max()):
        raise UserError(f"{path} is damaged: sigma is not symmetric")
    if not {*OWN} & {*arrays}:
        unknown = Moments(2, mean, covariance)  # scatter equals covariance for count 2
        return Statistics(unknown, np.empty((0, size), np.float32), np.empty(0))
    if missing := [name for name in OWN if name not in arrays]:
        raise UserError(f"{path} is damaged: it lacks '{missing[0]}'")
    if (weights := str(arrays["weights"])) != network.digest:
        raise UserError(
            f"{path} was made with weights {weights[:8]}, these are {network.digest[:8]}: pass other statistics"
        )
    count, features, scores = int(arrays["count"]), arrays["features"], arrays["scores"]
    if count < 2 or features.shape[1:] != (size,) or scores.ndim != 1:
        raise UserError(f"{path} is damaged: count={count}, features {features.shape}, scores {scores.shape}")
    moments = Moments(count, mean, covariance * (count - 1))
    return Statistics(moments, features, scores, weights, str(arrays["data"]))
