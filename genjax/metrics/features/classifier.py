"""A small classifier trained on the data's own train split: label accuracy, and a feature space for distances.

    features(x) = silu(net(x)),    logits = features W + b,    loss = -log softmax(logits)[label].

Any network with `width` outputs serves; the last linear layer belongs to the classifier. A Fréchet distance over these
features depends on the data set and seed: it is named `frechet_classifier`, never "FID", which is over Inception-v3.
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
from genjax.core.types import Array, Key, PyTree, named, root_key
from genjax.networks import MLP, ConvEncoder

Preprocess = Callable[[Shaped[ndarray, "n ..."]], Shaped[ndarray, "n ..."]]


def as_is(x: Shaped[ndarray, "n ..."]) -> Shaped[ndarray, "n ..."]:
    """No preprocessing."""
    return x


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Training hyperparameters: AdamW, cosine decay to zero, batches drawn with replacement, no augmentation.

    Attributes:
        width: number of features.
        channels: channels of the `ConvEncoder` by level (at most 16 positions per side at the first level).
        steps: optimizer steps.
        batch_size: examples per step.
        learning_rate: initial learning rate.
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
        preprocess: map of examples in the data's own units, before `shift` and `scale`.
    """

    net: Network
    params: PyTree
    shift: Float32[ndarray, "..."]
    scale: Float32[ndarray, "..."]
    classes: int
    preprocess: Preprocess = as_is

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.params["weight"].shape[0])

    def hidden(self, params: PyTree, x: Shaped[Array, "b ..."]) -> Float[Array, "b width"]:
        """Features of examples in the data's own units; traceable."""
        shift, scale = jnp.asarray(self.shift), jnp.asarray(self.scale)
        return _features(self.net, params, (x.astype(jnp.float32) - shift[None]) / scale[None])

    def head(self, params: PyTree, features: Float[Array, "b width"]) -> Float[Array, "b classes"]:
        """Logits of features."""
        return _head(params, features)

    def outputs(
        self, x: Shaped[ndarray, "n ..."], chunk: int = 512
    ) -> tuple[Float64[ndarray, "n width"], Float64[ndarray, "n classes"]]:
        """Features and logits of examples in the data's own units."""
        features, logits, x = [], [], self.preprocess(x)
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


def _patches(x: Float[Array, "b ..."], max_size: int = 16) -> Float[Array, "b ..."]:
    """Space-to-depth of images, so that at most `max_size` positions are left per side; keeps all values."""
    if x.ndim != 4:
        return x
    size = -(-max(x.shape[1:3]) // max_size)
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
    """One AdamW step on one batch; not in `lax.scan`, where convolutions on XLA:CPU take ten times as long."""
    params, opt_state = state

    def loss(params: PyTree) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(_logits(net, params, x)[1], labels).mean()

    updates, opt_state = _optimizer(recipe).update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


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
    preprocess: Preprocess = as_is,
) -> Classifier:
    """Trains a classifier; the same arguments give the same parameters on the same machine.

    Args:
        x: images [n, h, w, c] or vectors [n, d] in the data's own units, or any input of `preprocess`.
        labels: classes 0..K-1, int [n].
        net: any network that takes `out=`; by default a small `ConvEncoder` for images, an `MLP` for vectors.
        recipe: training hyperparameters.
        seed: seed of initialisation and batches.
        preprocess: map to images or vectors, such as spectrograms of sounds.

    Returns:
        The trained classifier.

    Raises:
        UserError: labels that do not fit, fewer than two classes, or constant data.
    """
    if len(labels) != len(x) or labels.min() < 0 or labels.max() < 1:
        raise UserError(
            f"needs a label 0..K-1, K >= 2, for each of {len(x)} examples; got {len(labels)} labels"
        )
    x = preprocess(x)
    axes = tuple(range(x.ndim)) if x.ndim > 2 else (0,)  # images: one scale for all pixels
    shape = (1,) * (x.ndim - 1) if x.ndim > 2 else x.shape[1:]
    std = x.std(axis=axes, dtype=np.float64)
    if (std == 0.0).all():
        raise UserError("all training examples are the same constant: nothing to classify")
    shift = x.mean(axis=axes, dtype=np.float64).reshape(shape).astype(np.float32)
    scale = np.where(std > 0.0, std, 1.0).reshape(shape).astype(np.float32)

    net = net or (ConvEncoder(recipe.channels, width=128) if x.ndim > 2 else MLP(width=64, depth=2))
    classes = int(labels.max()) + 1
    params = _init(net, recipe.width, classes, root_key(seed), _standardise(x[:1], shift, scale))
    state = params, _optimizer(recipe).init(params)
    rng = np.random.default_rng(seed)
    for _ in range(recipe.steps):
        chosen = rng.integers(len(x), size=recipe.batch_size)
        state = _step(
            net, recipe, state, _standardise(x[chosen], shift, scale), labels[chosen].astype(np.int32)
        )
    return Classifier(net, state[0], shift, scale, classes, preprocess)
