"""Differentiable augmentation of what the discriminator sees, real and made alike, in both players' losses.

With random transformations T of known law, the players compare the laws of T(x) and T(G(z)); gradients reach the
generator through T (Zhao et al. 2020, arXiv:2006.10738, eq. 5-6). Where each transformation is applied with a
probability p < 1 only, equal laws of T(x) and T(G(z)) mean equal laws of x and G(z) (Karras et al. 2020,
arXiv:2006.06676, section 2.2), and p can follow how much the discriminator overfits:

    p <- clip(p + speed sign(r - target), 0, 1),     r = E_data sign(D(x) - threshold).                   (eq. 1, r_t)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array, Key, named

Carried = dict[str, Array]
Images = Float[Array, "b h w c"]
Change = Callable[[Key, Images], Images]


@runtime_checkable
class Augment(Protocol):
    """What the discriminator is shown in place of its inputs, in training."""

    def begin(self) -> Carried:
        """What is carried at first; empty if nothing is."""
        ...

    def apply(self, carried: Carried, key: Key, x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
        """The examples, changed."""
        ...

    def adapt(self, carried: Carried, margin: Float[Array, "..."]) -> tuple[Carried, dict[str, Array]]:
        """(what is carried on, metrics), given D(x) - threshold of augmented data."""
        ...


@runtime_checkable
class Transformation(Protocol):
    """Random changes, each made with a given probability."""

    def transform(self, key: Key, x: Float[Array, "b ..."], p: Float[Array, ""]) -> Float[Array, "b ..."]:
        """The examples, each changed in each way with probability p, independently."""
        ...


@dataclass(frozen=True)
class NoAugment:
    """What it was."""

    def begin(self) -> Carried:
        """Nothing."""
        return {}

    def apply(self, carried: Carried, key: Key, x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
        """x."""
        return x

    def adapt(self, carried: Carried, margin: Float[Array, "..."]) -> tuple[Carried, dict[str, Array]]:
        """Nothing."""
        return {}, {}


@dataclass(frozen=True)
class DiffAugment:
    """Colour, translation and cut-out of images in [-1, 1] (Zhao et al. 2020, section 3.2).

    Attributes:
        color: c; adds U[-c/2, c/2] to an image, scales it about each pixel's mean over channels by U[1-c, 1+c]
            and about its own mean by U[1-c/2, 1+c/2]; 0 for none of these.
        translation: the longest shift as a fraction of the size, down and across; zeros move in.
        cutout: side of the square that is set to zero, as a fraction of the size; its centre is any pixel.
    """

    color: float = 1.0
    translation: float = 0.125
    cutout: float = 0.5

    def begin(self) -> Carried:
        """Nothing."""
        return {}

    def apply(self, carried: Carried, key: Key, x: Images) -> Images:
        """All changes of every image."""
        return self.transform(key, x, jnp.ones(()))

    def adapt(self, carried: Carried, margin: Float[Array, "..."]) -> tuple[Carried, dict[str, Array]]:
        """Nothing."""
        return {}, {}

    def transform(self, key: Key, x: Images, p: Float[Array, ""]) -> Images:
        """See `Transformation`."""
        for name, change in self._changes():
            own = named(key, name)
            on = jax.random.bernoulli(named(own, "whether"), p, (len(x), 1, 1, 1))
            x = jnp.where(on, change(named(own, "how"), x), x)
        return x

    def _changes(self) -> list[tuple[str, Change]]:
        changes: list[tuple[str, Change]] = []
        if self.color:
            changes += [
                ("brightness", lambda key, x: x + self.color * _uniform(key, x, 0.5)),
                ("saturation", lambda key, x: _about(x, -1, 1.0 + self.color * _uniform(key, x, 1.0))),
                ("contrast", lambda key, x: _about(x, (1, 2, 3), 1.0 + self.color * _uniform(key, x, 0.5))),
            ]
        if self.translation:
            changes.append(("translation", lambda key, x: translate(key, x, self.translation)))
        if self.cutout:
            changes.append(("cutout", lambda key, x: cut_out(key, x, self.cutout)))
        return changes


def _uniform(key: Key, x: Images, high: float) -> Float[Array, "b 1 1 1"]:
    return jax.random.uniform(key, (len(x), 1, 1, 1), minval=-high, maxval=high)


def _about(x: Images, axes: int | tuple[int, ...], factor: Float[Array, "b 1 1 1"]) -> Images:
    """Scales the distance from a mean."""
    mean = jnp.mean(x, axis=axes, keepdims=True)
    return mean + factor * (x - mean)


def translate(key: Key, x: Images, fraction: float) -> Images:
    """Moves each image by whole pixels, uniformly up to `fraction` of its size; zeros move in."""
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
    """Sets a square of each image to zero; what would lie outside is cut off."""

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
    """Adaptive discriminator augmentation (ADA): as much as keeps the discriminator from being too sure of its data.

    Attributes:
        augment: the transformations.
        target: of r, the mean sign of D(x) - threshold.
        speed: by how much p moves at each move of the discriminator.
    """

    augment: Transformation = DiffAugment()
    target: float = 0.6
    speed: float = 1e-3

    def begin(self) -> Carried:
        """p = 0."""
        return {"p": jnp.zeros(())}

    def apply(self, carried: Carried, key: Key, x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
        """Each change with the probability p that is carried."""
        return self.augment.transform(key, x, carried["p"])

    def adapt(self, carried: Carried, margin: Float[Array, "..."]) -> tuple[Carried, dict[str, Array]]:
        """Moves p."""
        sure = jnp.mean(jnp.sign(margin))
        p = jnp.clip(carried["p"] + self.speed * jnp.sign(sure - self.target), 0.0, 1.0)
        return {"p": p}, {"augment_p": p, "augment_r": sure}
