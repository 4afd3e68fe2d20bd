"""Differentiable augmentation of the discriminator's inputs, real and generated, in both players' losses.

With random transformations T, the game compares the distributions of T(x) and T(G(z)); gradients reach the generator
through T (Zhao et al. 2020, arXiv:2006.10738, eq. 5-6). If each transformation is applied with probability p < 1,
equal distributions of T(x) and T(G(z)) imply equal distributions of x and G(z) (Karras et al. 2020, arXiv:2006.06676,
section 2.2), and p can adapt to the overfitting of the discriminator:

    p <- clip(p + speed sign(r - target), 0, 1),     r = E_data sign(D(x) - threshold).                   (eq. 1, r_t)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array, Key, named

State = dict[str, Array]
Images = Float[Array, "b h w c"]
ImageTransform = Callable[[Key, Images], Images]


@runtime_checkable
class Augment(Protocol):
    """Augments the discriminator's inputs in training. Implemented by frozen dataclasses."""

    def init(self) -> State:
        """The initial state; empty if there is none."""
        ...

    def apply(self, state: State, key: Key, x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
        """Augments a batch.

        Args:
            state: from `init` or `adapt`.
            key: typed PRNG key.
            x: examples [b, ...], real or generated.

        Returns:
            Augmented examples, shaped as x.
        """
        ...

    def adapt(self, state: State, margin: Float[Array, "..."]) -> tuple[State, dict[str, Array]]:
        """Updates the state from the discriminator's outputs on augmented data.

        Args:
            state: from `init` or here.
            margin: D(x) - threshold, of any shape.

        Returns:
            (new state, metrics).
        """
        ...


@runtime_checkable
class Transformation(Protocol):
    """Random transformations, each applied with a given probability."""

    def transform(self, key: Key, x: Float[Array, "b ..."], p: Float[Array, ""]) -> Float[Array, "b ..."]:
        """Applies each transformation to each example with probability p, independently.

        Args:
            key: typed PRNG key.
            x: examples [b, ...].
            p: probability, a scalar.

        Returns:
            Transformed examples, shaped as x.
        """
        ...


@dataclass(frozen=True)
class NoAugment:
    """No augmentation."""

    def init(self) -> State:
        """No state."""
        return {}

    def apply(self, state: State, key: Key, x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
        """x."""
        return x

    def adapt(self, state: State, margin: Float[Array, "..."]) -> tuple[State, dict[str, Array]]:
        """No state and no metrics."""
        return {}, {}


@dataclass(frozen=True)
class DiffAugment:
    """Colour, translation and cut-out of images in [-1, 1] (Zhao et al. 2020, section 3.2).

    Attributes:
        color: c; brightness adds U[-c/2, c/2] to an image, saturation scales each pixel about its mean over channels
            by U[1-c, 1+c], contrast scales the image about its mean by U[1-c/2, 1+c/2]; 0 disables all three.
        translation: the largest shift as a fraction of the size, along both axes; padded with zeros.
        cutout: side of the square set to zero, as a fraction of the size; its centre is a uniformly drawn pixel.
    """

    color: float = 1.0
    translation: float = 0.125
    cutout: float = 0.5

    def init(self) -> State:
        """No state."""
        return {}

    def apply(self, state: State, key: Key, x: Images) -> Images:
        """Every transformation on every image; see `Augment.apply`."""
        return self.transform(key, x, jnp.ones(()))

    def adapt(self, state: State, margin: Float[Array, "..."]) -> tuple[State, dict[str, Array]]:
        """No state and no metrics."""
        return {}, {}

    def transform(self, key: Key, x: Images, p: Float[Array, ""]) -> Images:
        """See `Transformation.transform`."""
        for name, function in self._transforms():
            own_key = named(key, name)
            applied = jax.random.bernoulli(named(own_key, "whether"), p, (len(x), 1, 1, 1))
            x = jnp.where(applied, function(named(own_key, "how"), x), x)
        return x

    def _transforms(self) -> list[tuple[str, ImageTransform]]:
        transforms: list[tuple[str, ImageTransform]] = []
        if self.color:
            transforms += [
                ("brightness", lambda key, x: x + self.color * _uniform(key, x, 0.5)),
                ("saturation", lambda key, x: _about(x, -1, 1.0 + self.color * _uniform(key, x, 1.0))),
                ("contrast", lambda key, x: _about(x, (1, 2, 3), 1.0 + self.color * _uniform(key, x, 0.5))),
            ]
        if self.translation:
            transforms.append(("translation", lambda key, x: translate(key, x, self.translation)))
        if self.cutout:
            transforms.append(("cutout", lambda key, x: cut_out(key, x, self.cutout)))
        return transforms


def _uniform(key: Key, x: Images, high: float) -> Float[Array, "b 1 1 1"]:
    return jax.random.uniform(key, (len(x), 1, 1, 1), minval=-high, maxval=high)


def _about(x: Images, axes: int | tuple[int, ...], factor: Float[Array, "b 1 1 1"]) -> Images:
    """Scales the deviation from the mean over `axes`."""
    mean = jnp.mean(x, axis=axes, keepdims=True)
    return mean + factor * (x - mean)


def translate(key: Key, x: Images, fraction: float) -> Images:
    """Shifts each image by a uniformly drawn whole number of pixels, padding with zeros.

    Args:
        key: typed PRNG key.
        x: images [b, h, w, c].
        fraction: the largest shift, as a fraction of the size.

    Returns:
        Shifted images, shaped as x.
    """
    for axis, name in ((1, "rows"), (2, "columns")):
        size = x.shape[axis]
        most = round(fraction * size)
        shift = jax.random.randint(named(key, name), (len(x), 1), -most, most + 1)
        # Row i of a permutation matrix is zero where pixel i + shift lies outside.
        moved = jax.nn.one_hot(jnp.arange(size)[None] + shift, size)
        equation = "bij,bjwc->biwc" if axis == 1 else "bij,bhjc->bhic"
        x = jnp.einsum(equation, moved, x, precision="highest")
    return x


def cut_out(key: Key, x: Images, fraction: float) -> Images:
    """Sets a square of each image to zero; the square is clipped at the image's edges.

    Args:
        key: typed PRNG key.
        x: images [b, h, w, c].
        fraction: side of the square, as a fraction of the size.

    Returns:
        Images, shaped as x.
    """

    def inside(axis: int, name: str) -> Float[Array, "b n"]:
        size = x.shape[axis]
        side = round(fraction * size)
        first = jax.random.randint(named(key, name), (len(x), 1), 0, size) - side // 2
        place = jnp.arange(size)[None]
        return ((place >= first) & (place < first + side)).astype(x.dtype)

    square = inside(1, "rows")[:, :, None] * inside(2, "columns")[:, None, :]
    return x * (1.0 - square[..., None])


@dataclass(frozen=True)
class Adaptive:
    """Adaptive discriminator augmentation (ADA): p follows the overfitting of the discriminator.

    Attributes:
        augment: the transformations.
        target: target of r, the mean sign of D(x) - threshold.
        speed: change of p at each update of the discriminator.
    """

    augment: Transformation = DiffAugment()
    target: float = 0.6
    speed: float = 1e-3

    def init(self) -> State:
        """p = 0."""
        return {"p": jnp.zeros(())}

    def apply(self, state: State, key: Key, x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
        """Applies each transformation with the current p; see `Augment.apply`."""
        return self.augment.transform(key, x, state["p"])

    def adapt(self, state: State, margin: Float[Array, "..."]) -> tuple[State, dict[str, Array]]:
        """Updates p by the module's equation."""
        r = jnp.mean(jnp.sign(margin))
        p = jnp.clip(state["p"] + self.speed * jnp.sign(r - self.target), 0.0, 1.0)
        return {"p": p}, {"augment_p": p, "augment_r": r}
