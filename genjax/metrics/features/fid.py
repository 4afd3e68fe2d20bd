"""FID, Inception Score and KID of samples, with the conditions under which they compare with published numbers.

    FID = |mu - mu_r|^2 + tr(C + C_r - 2 (C C_r)^{1/2})           Heusel et al. 2017 (arXiv:1706.08500), eq. 6
    IS  = exp(E KL(p(y | x) || p(y)))                             Salimans et al. 2016 (arXiv:1606.03498), section 4
    KID = MMD^2 with k(x, y) = (<x, y> / d + 1)^3                 Binkowski et al. 2018 (arXiv:1801.01401), section 4

over pool3 features of samples and of real images (r), and the class probabilities of samples. IS is the mean over ten
consecutive parts, with their population standard deviation, as in the authors' code. KID is the mean over random
subsets of both sets, with its standard deviation over subsets.

The names fid, inception_score and kid are used only with the original weights. "comparable" lists every reason why a
number must not be compared with published ones; "yes" means comparable with numbers by pytorch-fid (the same resize)
against the whole of the same training split, grey images repeated to three channels.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from jaxtyping import Shaped
from numpy import ndarray

from genjax.core import tree
from genjax.core.errors import UserError
from genjax.data import Data, sweep
from genjax.data.examples import Examples
from genjax.metrics.distances.frechet import frechet
from genjax.metrics.distances.mmd import kernel_distance
from genjax.metrics.features.extraction import FeatureNetwork, StreamBatch
from genjax.metrics.features.inception import image_stream, load_network, to_bytes
from genjax.metrics.features.reference import Statistics, gather_statistics, load_statistics, save_statistics
from genjax.parallel import multihost
from genjax.parallel.mesh import batch_shards, shard_batch

COMPARABLE = 50_000  # samples of published numbers
ORIGINAL_NAMES = {"fid": "fid", "score": "inception_score", "kid": "kid"}
OTHER_NAMES = {
    "fid": "frechet_other_weights",
    "score": "class_score_other_weights",
    "kid": "kernel_distance_other_weights",
}
# Entries copied from the evaluation's report, besides the objective's sampling settings ("objective.*").
COPIED = ("step", "parameters_of", "sample_seed")

Report = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class InceptionReference:
    """A network and the statistics of real images in its features; compares any number of sample sets with them.

    Attributes:
        mesh: the devices.
        network: the feature network.
        statistics: statistics of real images.
        file: file of the statistics.
        expected: description of the images that published numbers of this data set are computed against.
        levels: number of levels of a pixel.
        batch_size: images per compiled call, rounded up to a multiple of the devices.
    """

    mesh: Mesh
    network: FeatureNetwork
    statistics: Statistics
    file: Path
    expected: str
    levels: int
    batch_size: int = 64

    def report(self, samples: Shaped[ndarray, "n h w c"], context: Mapping[str, Any] | None = None) -> Report:
        """FID, IS and KID of samples, for JSON; a collective call of all processes.

        Args:
            samples: integer images [n, h, w, c] in the data's own units, all of them on every process.
            context: an evaluation's report, of which the entries `COPIED` and "objective.*" are copied.

        Returns:
            The numbers of `inception_report`, the file of the reference and the copied entries.

        Raises:
            UserError: not integer images, too few, or all of them equal.
        """
        images = to_bytes(samples, self.levels)
        if (images == images[:1]).all():
            raise UserError(f"all {len(images)} samples are equal, there is no distribution to compare")
        stream = image_stream([images], self.mesh, self.batch_size)
        made = gather_statistics(self.network, self.mesh, stream, len(images), data="samples")
        found = inception_report(self.network, made, self.statistics, self.expected)
        copied = {
            name: value
            for name, value in (context or {}).items()
            if name in COPIED or name.startswith("objective.")
        }
        return found | {"reference_file": str(self.file)} | copied

    def try_report(self, samples: Shaped[ndarray, "n h w c"], context: Mapping[str, Any]) -> Report:
        """`report`, or {"none": reason} on a UserError, so that the rest of the evaluation is kept."""
        try:
            return self.report(samples, context)
        except UserError as error:
            return {"none": str(error)}


def open_reference(
    data: Data,
    weights: Path,
    reference: Path,
    mesh: Mesh,
    report: Callable[[str], None] = lambda line: None,
    batch_size: int = 64,
) -> InceptionReference:
    """Reads weights and reference statistics; computes the latter on the whole training split if the file is missing.

    Args:
        data: images of integer pixels.
        weights: see `load_network`.
        reference: .npz file of statistics, read if it exists, else written.
        mesh: the devices; a collective call of all their processes, which must read the same files.
        report: called with lines of progress.
        batch_size: images per compiled call.

    Returns:
        The reference, for any number of `report` calls.

    Raises:
        UserError: not images, or as `load_network`, `load_statistics` and `save_statistics`.
    """
    if data.kind != "image" or not data.levels:
        raise UserError(f"Inception needs images of integer pixels, and these data are {data.kind}")
    network, expected = load_network(weights), describe_split(data, "train")
    if not multihost.broadcast(reference.exists()):
        examples = data.load("train")
        stream = _bytes_stream(examples, data.levels, mesh, batch_size, report)
        made = gather_statistics(network, mesh, stream, len(examples), data=expected)
        multihost.on_first_process(lambda: save_statistics(made, reference))
        report(f"wrote {reference}")
    known = load_statistics(reference, network)
    return InceptionReference(mesh, network, known, reference, expected, data.levels, batch_size)


def _bytes_stream(
    examples: Examples, levels: int, mesh: Mesh, batch_size: int, report: Callable[[str], None]
) -> Iterator[StreamBatch]:
    """Images as bytes; each process loads only the rows of its devices."""
    shards = batch_shards(mesh)
    size = -(-batch_size // shards) * shards
    for call, (batch, count) in enumerate(sweep(examples, size, *multihost.block(mesh, size))):
        yield StreamBatch(shard_batch({"x": to_bytes(batch["x"], levels)}, mesh)["x"], count)
        if call % 20 == 0:
            report(f"reference: {call * size + count}/{len(examples)} images")


def describe_split(data: Data, split: str) -> str:
    """Description of a split: its source with all fields that training depends on."""
    values = ", ".join(f"{name}={value!r}" for name, value in tree.untunable(data.source).items())
    return f"{split} split of {type(data.source).__name__}({values})"


def inception_report(
    network: FeatureNetwork, made: Statistics, reference: Statistics, expected: str = ""
) -> Report:
    """Compares samples with real images in the features of one network.

    Args:
        network: the network of both statistics.
        made: statistics of samples.
        reference: statistics of real images.
        expected: description of the images that published numbers are computed against; "" for any.

    Returns:
        fid, inception_score and kid, the last two with their "_std", or the names of `OTHER_NAMES` with other weights;
        descriptions of network, weights and data, and "comparable".
    """
    names = ORIGINAL_NAMES if network.original else OTHER_NAMES
    report: Report = {
        "features": network.name,
        "weights": describe_weights(network),
        "samples": made.moments.count,
        "reference": reference.data or "unknown: its file has only mean and covariance",
        "reference_samples": reference.count if reference.count is not None else "unknown",
        "comparable": comparable(network, made.moments.count, reference.count, reference.data, expected),
        names["fid"]: frechet(made.moments, reference.moments),
        names["score"]: float(made.scores.mean()),
        f"{names['score']}_std": float(made.scores.std()),
    }
    if reference.foreign:
        return report | {names["kid"]: "none: the reference's file has no features"}
    report[f"{names['score']}_reference"] = float(reference.scores.mean())
    report[names["kid"]], report[f"{names['kid']}_std"] = kernel_distance(made.features, reference.features)
    return report


def describe_weights(network: FeatureNetwork) -> str:
    """Description of a network's weights: original or other, and their SHA-256."""
    return f"{'original' if network.original else 'other weights'}, arrays' SHA-256 {network.digest}"


def own_features_reason(name: str) -> str:
    """Why a distance over features other than Inception's, called `name`, is not comparable."""
    return f"no: features of this data's own ({name}), not of FID's Inception"


def comparable(
    network: FeatureNetwork, samples: int, real: int | None = None, data: str = "", expected: str = ""
) -> str:
    """ "yes", or "no: " and every reason why numbers must not be compared with published ones.

    Args:
        network: the feature network. For features other than Inception's this is the only reason given.
        samples: number of samples.
        real: number of images of the reference, None if unknown.
        data: description of these images, "" if unknown.
        expected: description of the images that published numbers are computed against; "" for any.

    Returns:
        The text of "comparable".
    """
    if not network.digest:
        return own_features_reason(network.name)
    size = network.dim
    reasons = [
        ("other weights than FID's", not network.original),
        (f"{samples:,} samples, not {COMPARABLE:,}", samples < COMPARABLE),
        (f"the samples' covariance is singular, {samples:,} for {size:,} features", samples <= size),
        (
            f"the reference's covariance is singular, {real or 0:,} for {size:,} features",
            real is not None and real <= size,
        ),
        ("the reference's file does not describe its images", real is None),
        (
            f"the reference is of the {data}, not of the {expected}",
            bool(data and expected) and data != expected,
        ),
    ]
    found = [reason for reason, holds in reasons if holds]
    return f"no: {'; '.join(found)}" if found else "yes"
