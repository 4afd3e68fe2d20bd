"""A small classifier trained on the data's own train split: label accuracy, and a feature space for distances.

    features(x) = silu(net(x)),    logits = features W + b,    loss = -log softmax(logits)[label].

The network gives `width` numbers, whatever it is; the last layer belongs to the classifier, so that features
are what the labels are read from. A Fréchet distance over these features depends on this data set and seed:
it is named `frechet_classifier` and never "FID", which is over Inception-v3.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange
from jaxtyping import Float, Float32, Float64, Int, Shaped
from numpy import ndarray

from genjax.core.errors import UserError
from genjax.core.objective import Network
from genjax.core.types import Array, Key, PyTree, named
from genjax.networks import MLP, ConvEncoder

See = Callable[[Shaped[ndarray, "n ..."]], Shaped[ndarray, "n ..."]]


def as_is(x: Shaped[ndarray, "n ..."]) -> Shaped[ndarray, "n ..."]:
    """Shows a network the examples themselves."""
    return x


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a classifier is trained: AdamW, cosine decay to zero, batches drawn with replacement, no augmentation.

    Attributes:
        width: number of features.
        channels: of the levels of the `ConvEncoder` (16 positions a side or fewer at the first one).
        steps: optimizer steps.
        batch_size: examples per step.
        learning_rate: at the start.
        weight_decay: of AdamW.
    """

    width: int = 64
    channels: tuple[int, ...] = (16, 32)
    steps: int = 300
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained classifier; made by `train_classifier`.

    Attributes:
        net: the network, called with `out=width`.
        params: {"net", "weight" [width, classes], "bias" [classes]}.
        shift: mean of the training data, broadcast over examples.
        scale: its standard deviation.
        classes: number of classes.
        see: what is shown of examples in the data's own units, before `shift` and `scale`.
    """

    net: Network
    params: PyTree
    shift: Float32[ndarray, "..."]
    scale: Float32[ndarray, "..."]
    classes: int
    see: See = as_is

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.params["weight"].shape[0])

    def hidden(self, params: PyTree, x: Shaped[Array, "b ..."]) -> Float[Array, "b width"]:
        """Features, within a compiled call, of examples in the data's own units."""
        shift, scale = jnp.asarray(self.shift), jnp.asarray(self.scale)
        return _features(self.net, params, (x.astype(jnp.float32) - shift[None]) / scale[None])

    def head(self, params: PyTree, features: Float[Array, "b width"]) -> Float[Array, "b classes"]:
        """Logits of features."""
        return _head(params, features)

    def outputs(
        self, x: Shaped[ndarray, "n ..."], chunk: int = 512
    ) -> tuple[Float64[ndarray, "n width"], Float64[ndarray, "n classes"]]:
        """Features and logits of examples in the data's own units."""
        features, logits, x = [], [], self.see(x)
        for start in range(0, len(x), chunk):
            block = x[start : start + chunk]
            padding = [(0, chunk - len(block))] + [(0, 0)] * (x.ndim - 1)  # one shape, compiled once
            both = _apply(self.net, self.params, _standardise(np.pad(block, padding), self.shift, self.scale))
            features.append(np.asarray(both[0], np.float64)[: len(block)])
            logits.append(np.asarray(both[1], np.float64)[: len(block)])
        return np.concatenate(features), np.concatenate(logits)

    def features(self, x: Shaped[ndarray, "n ..."]) -> Float64[ndarray, "n width"]:
        """Penultimate features."""
        return self.outputs(x)[0]

    def accuracy(self, x: Shaped[ndarray, "n ..."], labels: Int[ndarray, " n"]) -> float:
        """Share of examples whose most probable class is their label."""
        return float((self.outputs(x)[1].argmax(axis=1) == labels).mean())


def _standardise(
    x: Shaped[ndarray, "n ..."], shift: Float32[ndarray, "..."], scale: Float32[ndarray, "..."]
) -> Float32[ndarray, "n ..."]:
    return (x.astype(np.float32) - shift[None]) / scale[None]


def _features(net: Network, params: PyTree, x: Float[Array, "b ..."]) -> Array:
    return jax.nn.silu(net.apply(params["net"], _patches(x), out=params["weight"].shape[0]))


def _head(params: PyTree, features: Float[Array, "b width"]) -> Array:
    return features @ params["weight"] + params["bias"][None]


def _logits(net: Network, params: PyTree, x: Float[Array, "b ..."]) -> tuple[Array, Array]:
    features = _features(net, params, x)
    return features, _head(params, features)


def _patches(x: Float[Array, "b ..."], most: int = 16) -> Float[Array, "b ..."]:
    """Moves patches of images into channels, without loss, so that at most `most` positions are left a side."""
    if x.ndim != 4:
        return x
    size = -(-max(x.shape[1:3]) // most)
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % size), (0, -x.shape[2] % size), (0, 0)))
    return rearrange(x, "b (h i) (w j) c -> b h w (i j c)", i=size, j=size)


_apply = jax.jit(_logits, static_argnums=0)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _step(
    net: Network,
    recipe: Recipe,
    state: tuple[PyTree, Any],
    x: Float[Array, "b ..."],
    labels: Int[Array, " b"],
) -> tuple[PyTree, Any]:
    """One step of AdamW on one batch; not in `lax.scan`, where XLA:CPU takes ten times as long for convolutions."""
    params, moments = state

    def loss(params: PyTree) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(_logits(net, params, x)[1], labels).mean()

    updates, moments = _optimizer(recipe).update(jax.grad(loss)(params), moments, params)
    return optax.apply_updates(params, updates), moments


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _init(net: Network, width: int, classes: int, key: Key, x: Float[Array, "b ..."]) -> PyTree:
    return {
        "net": net.init(named(key, "net"), _patches(x), out=width),
        "weight": jax.random.normal(named(key, "weight"), (width, classes)) / jnp.sqrt(width),
        "bias": jnp.zeros(classes),
    }


def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, recipe.steps)
    return optax.adamw(schedule, weight_decay=recipe.weight_decay)


def train_classifier(
    x: Shaped[ndarray, "n ..."],
    labels: Int[ndarray, " n"],
    *,
    net: Network | None = None,
    recipe: Recipe = Recipe(),
    seed: int = 0,
    see: See = as_is,
) -> Classifier:
    """Trains a classifier; the same arguments give the same parameters on the same machine.

    Args:
        x: images [n, h, w, c] or vectors [n, d], in the data's own units, or what `see` makes such of.
        labels: classes 0..K-1.
        net: any network that takes `out=`; by default a small `ConvEncoder` for images, `MLP` for vectors.
        recipe: how it is trained.
        seed: of initialisation and batches.
        see: what is shown of the examples, such as the spectrograms of sounds.

    Raises:
        UserError: labels that do not fit, fewer than two classes, or constant data.
    """
    if len(labels) != len(x) or labels.min() < 0 or labels.max() < 1:
        raise UserError(
            f"needs a label 0..K-1, K >= 2, for each of {len(x)} examples; got {len(labels)} labels"
        )
    x = see(x)
    axes = tuple(range(x.ndim)) if x.ndim > 2 else (0,)  # images: one scale for all pixels
    shape = (1,) * (x.ndim - 1) if x.ndim > 2 else x.shape[1:]
    spread = x.std(axis=axes, dtype=np.float64)
    if (spread == 0.0).all():
        raise UserError("all training examples are the same constant: nothing to classify")
    shift = x.mean(axis=axes, dtype=np.float64).reshape(shape).astype(np.float32)
    scale = np.where(spread > 0.0, spread, 1.0).reshape(shape).astype(np.float32)

    net = net or (ConvEncoder(recipe.channels, width=128) if x.ndim > 2 else MLP(width=64, depth=2))
    classes = int(labels.max()) + 1
    params = _init(net, recipe.width, classes, jax.random.key(seed), _standardise(x[:1], shift, scale))
    state = params, _optimizer(recipe).init(params)
    rng = np.random.default_rng(seed)
    for _ in range(recipe.steps):
        chosen = rng.integers(len(x), size=recipe.batch_size)
        state = _step(
            net, recipe, state, _standardise(x[chosen], shift, scale), labels[chosen].astype(np.int32)
        )
    return Classifier(net, state[0], shift, scale, classes, see)
