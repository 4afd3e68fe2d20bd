"""Named feature spaces in which distributions are compared.

- "classifier": penultimate features of a classifier trained on the data's own labels (`classifier.py`).
- "random convolutions": for images, a stack of convolutions with fixed random weights (He et al. 2015 scaling,
  stride 2, ReLU) down to at most 4 x 4 positions. Sensitive to local structure and noise, to which a classifier becomes
  invariant, but not to semantics.
- "log mel": for sounds, their log-mel spectrograms (`spectrogram.py`), without a network; a distance over them is not
  the "Fréchet audio distance" (FAD), which is over VGGish.
- "identity": the vectors themselves.

All but the last are whitened, z = (x - mean) V / sqrt(lambda), with mean, eigenvectors V and eigenvalues lambda of
the covariance of real training examples, the 64 largest. Distances then do not depend on the arbitrary scale of the
network's outputs. On 8 x 8 digits the std of frechet(new real, test) / frechet(other real, test) over classifiers
halves, since the few directions that encode class frequencies no longer dominate.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Float64, Shaped
from numpy import ndarray
from scipy.linalg import eigh

from genjax.core.types import Array, PyTree
from genjax.metrics.distances.frechet import Moments
from genjax.metrics.features.classifier import Classifier
from genjax.metrics.features.extraction import FeatureNetwork
from genjax.metrics.features.spectrogram import log_mel

Extract = Callable[[Shaped[ndarray, "n ..."]], Float64[ndarray, "n d"]]
Finish = Callable[[Float64[ndarray, "n d"]], Float64[ndarray, "n k"]]


@dataclasses.dataclass(frozen=True)
class FeatureSpace:
    """A named map from examples in the data's own units to float64 features.

    Attributes:
        name: "classifier", "identity", "log mel" or "random convolutions".
        extract: [n, ...] -> [n, d] float64, for examples that one process holds.
        network: the same map for streams over devices and processes; None for sounds.
    """

    name: str
    extract: Extract
    network: FeatureNetwork | None = None


def identity(dim: int = 0) -> FeatureSpace:
    """Vectors [n, dim] as they are."""
    network = FeatureNetwork("identity", dim, {}, lambda params, x: x.astype(jnp.float32))
    return FeatureSpace("identity", lambda x: x.astype(np.float64), network)


def of_classifier(classifier: Classifier, fit: Shaped[ndarray, "n ..."]) -> FeatureSpace:
    """Whitened penultimate features of a trained classifier; mean and covariance are estimated on `fit`."""
    finish = _whitening(classifier.features(fit))
    network = FeatureNetwork(
        "classifier", classifier.width, classifier.params, classifier.hidden, classifier.head, finish
    )
    return FeatureSpace("classifier", lambda x: finish(classifier.features(x)), network)


def of_spectrogram(fit: Shaped[ndarray, "n t c"], rate: int) -> FeatureSpace:
    """Whitened log-mel spectrograms; mean and covariance are estimated on `fit`, sounds at `rate` Hz."""
    flat = lambda x: log_mel(x, rate).reshape(len(x), -1)
    finish = _whitening(flat(fit))
    return FeatureSpace("log mel", lambda x: finish(flat(x)))


def _whitening(features: Float64[ndarray, "n d"], max_dims: int = 64) -> Finish:
    """PCA whitening of these features; near-constant directions are dropped.

    The sign of an eigenvector depends on rounding. Its largest component is made positive, so that metrics that are not
    invariant under reflections (such as fixed random projections) agree between machines.
    """
    moments = Moments.of(features)
    values, vectors = eigh(moments.covariance)
    keep = np.argsort(values)[::-1][:max_dims]
    keep = keep[values[keep] > 1e-6 * values.max()]
    vectors = vectors[:, keep]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0, keepdims=True), axis=0)
    whiten = vectors * np.sign(largest) / np.sqrt(values[keep])[None]
    return lambda x: (x - moments.mean[None]) @ whiten


@jax.jit
def _convolve(filters: list[Float[Array, "3 3 i o"]], x: Float[Array, "b h w c"]) -> Float[Array, "b k"]:
    for kernel in filters:
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=layout))
    return x.reshape(len(x), -1)


def random_convolutions(
    fit: Shaped[ndarray, "n h w c"], seed: int = 0, width: int = 16, chunk: int = 512
) -> FeatureSpace:
    """Whitened features of fixed random convolutions.

    Args:
        fit: images [n, h, w, c] on which scale, mean and covariance are estimated.
        seed: seed of the weights.
        width: channels of each convolution.
        chunk: images per compiled call.

    Returns:
        The feature space, with its network.
    """
    shift, scale = float(fit.mean(dtype=np.float64)), float(fit.std(dtype=np.float64)) or 1.0
    rng = np.random.default_rng(seed)
    filters: list[Float32[ndarray, "3 3 i o"]] = []
    size, channels = max(fit.shape[1:3]), fit.shape[3]
    while size > 4 or not filters:
        kernel = rng.normal(size=(3, 3, channels, width)) * np.sqrt(2.0 / (9 * channels))
        filters.append(kernel.astype(np.float32))
        size, channels = -(-size // 2), width

    def convolve(x: Shaped[ndarray, "n h w c"]) -> Float64[ndarray, "n k"]:
        blocks = [(x[i : i + chunk].astype(np.float32) - shift) / scale for i in range(0, len(x), chunk)]
        return np.concatenate([np.asarray(_convolve(filters, jnp.asarray(b)), np.float64) for b in blocks])

    def apply(params: PyTree, x: Shaped[Array, "b h w c"]) -> Float[Array, "b k"]:
        return _convolve(params, (x.astype(jnp.float32) - shift) / scale)

    known = convolve(fit)
    finish = _whitening(known)
    network = FeatureNetwork("random convolutions", known.shape[1], filters, apply, None, finish)
    return FeatureSpace("random convolutions", lambda x: finish(convolve(x)), network)
