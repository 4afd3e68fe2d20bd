"""FID, Inception Score and KID of a trained model's samples, and what has to be said with each of them.

    FID = |mu - mu_r|^2 + tr(C + C_r - 2 (C C_r)^{1/2})           Heusel et al. 2017 (arXiv:1706.08500), eq. 6
    IS  = exp(E KL(p(y | x) || p(y)))                             Salimans et al. 2016 (arXiv:1606.03498), section 4
    KID = MMD^2 with k(x, y) = (<x, y> / d + 1)^3                 Binkowski et al. 2018 (arXiv:1801.01401), section 4

over pool3 features of samples and of real images (r), and the class probabilities of samples. IS is the mean over ten
consecutive parts, with their standard deviation (of the population, as in the paper's program). KID is the mean over
subsets of both sides, with its standard deviation over them.

The names fid, inception_score and kid are given only to numbers made with the original weights. Whatever keeps a number
from being comparable with published ones stands beside it, in words, under "comparable". "Yes" means: with numbers by
pytorch-fid (which resizes as here) against the whole of the same training split, grey images repeated.
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
from genjax.metrics.distances.distance import frechet, kernel_distance
from genjax.metrics.features.extraction import FeatureNetwork, Part
from genjax.metrics.features.inception import image_stream, load_network, to_bytes
from genjax.metrics.features.reference import Statistics, gather_statistics, load_statistics, save_statistics
from genjax.parallel import multihost
from genjax.parallel.mesh import batch_shards, shard_batch

COMPARABLE = 50_000  # samples
OWN_NAMES = {"fid": "fid", "score": "inception_score", "kid": "kid"}
OTHER_NAMES = {
    "fid": "frechet_other_weights",
    "score": "class_score_other_weights",
    "kid": "kernel_distance_other_weights",
}
# Of an evaluation's report, what numbers of samples have to carry, besides how the objective was set to sample.
CARRIED = ("step", "parameters_of", "sample_seed")

Report = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class InceptionJudge:
    """A network and real images seen by it, ready to judge any number of sets of samples; all processes do so together.

    Attributes:
        mesh: the devices that look at images.
        network: that does so.
        reference: statistics of real images.
        where: the reference's file.
        expected: words for the images that published numbers of this data set are against.
        levels: integer values of a pixel.
        batch_size: images in one compiled call, rounded up to a multiple of the devices.
    """

    mesh: Mesh
    network: FeatureNetwork
    reference: Statistics
    where: Path
    expected: str
    levels: int
    batch_size: int = 64

    def report(self, samples: Shaped[ndarray, "n h w c"], said: Mapping[str, Any] | None = None) -> Report:
        """Numbers and words for json.

        Args:
            samples: images in the data's own units, all of them on every process.
            said: an evaluation's report: what is carried from it is under `CARRIED`.

        Raises:
            UserError: no uint8 images, too few, or all of them equal.
        """
        images = to_bytes(samples, self.levels)
        if (images == images[:1]).all():
            raise UserError(f"all {len(images)} samples are equal, there is no distribution to compare")
        stream = image_stream([images], self.mesh, self.batch_size)
        made = gather_statistics(self.network, self.mesh, stream, len(images), data="samples")
        found = inception_report(self.network, made, self.reference, self.expected)
        carried = {
            name: value
            for name, value in (said or {}).items()
            if name in CARRIED or name.startswith("objective.")
        }
        return found | {"reference_file": str(self.where)} | carried

    def section(self, samples: Shaped[ndarray, "n h w c"], said: Mapping[str, Any]) -> Report:
        """`report`, or {"none": why}: what an evaluation has found otherwise is not lost for it."""
        try:
            return self.report(samples, said)
        except UserError as error:
            return {"none": str(error)}


def open_judge(
    data: Data,
    weights: Path,
    reference: Path,
    mesh: Mesh,
    report: Callable[[str], None] = lambda line: None,
    batch_size: int = 64,
) -> InceptionJudge:
    """Reads weights and reference statistics; makes the latter, of the whole training split, where there is no file.

    Args:
        data: of uint8 images.
        weights: see `load_network`.
        reference: .npz, read if it is there, written if not.
        mesh: the devices; all processes that have some call this together, and read the same files.
        report: called with a line of progress now and then.
        batch_size: images in one compiled call.

    Raises:
        UserError: no images, or as `load_network`, `load_statistics` and `save_statistics`.
    """
    if data.kind != "image" or not data.levels:
        raise UserError(f"Inception looks at images of integer pixels, and these data are {data.kind}")
    network, expected = load_network(weights), describe(data, "train")
    if not multihost.agreed(reference.exists()):
        examples = data.load("train")
        stream = _bytes_stream(examples, data.levels, mesh, batch_size, report)
        made = gather_statistics(network, mesh, stream, len(examples), data=expected)
        multihost.first(lambda: save_statistics(made, reference))
        report(f"wrote {reference}")
    known = load_statistics(reference, network)
    return InceptionJudge(mesh, network, known, reference, expected, data.levels, batch_size)


def _bytes_stream(
    examples: Examples, levels: int, mesh: Mesh, batch_size: int, report: Callable[[str], None]
) -> Iterator[Part]:
    """Images as bytes; each process loads its devices' rows alone."""
    shards = batch_shards(mesh)
    size = -(-batch_size // shards) * shards
    for call, (batch, count) in enumerate(sweep(examples, size, *multihost.block(mesh, size))):
        yield Part(shard_batch({"x": to_bytes(batch["x"], levels)}, mesh)["x"], count)
        if call % 20 == 0:
            report(f"reference: {call * size + count}/{len(examples)} images")


def describe(data: Data, split: str) -> str:
    """Words for a split: its source with all that training depends on."""
    values = ", ".join(f"{name}={value!r}" for name, value in tree.untunable(data.source).items())
    return f"{split} split of {type(data.source).__name__}({values})"


def inception_report(
    network: FeatureNetwork, made: Statistics, reference: Statistics, expected: str = ""
) -> Report:
    """Compares samples with real images, both as the network sees them.

    Args:
        network: that looked at both.
        made: of samples.
        reference: of real images.
        expected: words for the images that published numbers are against; "" if any will do.

    Returns:
        Numbers by the names fid, inception_score and kid, the last two with their _std, or, of other weights, by names
        that say so; and in words what they were made of and whether they are "comparable".
    """
    names = OWN_NAMES if network.original else OTHER_NAMES
    report: Report = {
        "features": network.name,
        "weights": weights_words(network),
        "samples": made.moments.count,
        "reference": reference.data or "unknown: its file has mean and covariance alone",
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


def weights_words(network: FeatureNetwork) -> str:
    """Whose weights a network has."""
    return f"{'original' if network.original else 'other weights'}, arrays' SHA-256 {network.digest}"


def of_other_features(name: str) -> str:
    """Why a distance in features that are not Inception's is not comparable; `name` is theirs."""
    return f"no: features of this data's own ({name}), not of FID's Inception"


def comparable(
    network: FeatureNetwork, samples: int, real: int | None = None, data: str = "", expected: str = ""
) -> str:
    """ "yes", or "no: " and every reason why numbers must not be set beside published ones.

    Args:
        network: that looked at samples and real images. Of features that are not Inception's no more is said.
        samples: how many.
        real: how many images the reference is of, None if it does not say.
        data: what they are, in words, "" if unknown.
        expected: words for the images that published numbers are against; "" if any will do.
    """
    if not network.digest:
        return of_other_features(network.name)
    size = network.dim
    reasons = [
        ("other weights than FID's", not network.original),
        (f"{samples:,} samples, not {COMPARABLE:,}", samples < COMPARABLE),
        (f"the samples' covariance is singular, {samples:,} for {size:,} features", samples <= size),
        (
            f"the reference's covariance is singular, {real or 0:,} for {size:,} features",
            real is not None and real <= size,
        ),
        ("the reference's file does not say what it was made of", real is None),
        (
            f"the reference is of the {data}, not of the {expected}",
            bool(data and expected) and data != expected,
        ),
    ]
    found = [reason for reason, holds in reasons if holds]
    return f"no: {'; '.join(found)}" if found else "yes"
