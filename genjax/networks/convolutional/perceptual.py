"""Perceptual distances: distances between images in the features of a fixed network, for reconstruction losses.

    d(x, y) = mean over positions of | f(x) / |f(x)| - f(y) / |f(y)| |^2,     f(x) the features at a position,

after LPIPS (Zhang et al. 2018, arXiv:1801.03924, eq. 1) with one layer and unit weights. Random features need no
download; for a trained network define a class with the same two methods.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.objective import Network
from genjax.core.types import Array, Key, PyTree
from genjax.networks.convolutional.conv import ConvEncoder

Images = Float[Array, "b ..."]


@runtime_checkable
class Perceptual(Protocol):
    """Implemented by frozen dataclasses."""

    def init(self, key: Key, x: Images) -> PyTree:
        """The distance's parameters, which are not trained."""
        ...

    def distance(self, params: PyTree, x: Images, y: Images) -> Float[Array, " b"]:
        """d(x, y) of each pair.

        Args:
            params: as `init` returns them.
            x: images [b, ...].
            y: images [b, ...].

        Returns:
            [b].
        """
        ...


@dataclass(frozen=True)
class NoPerceptual:
    """d = 0."""

    def init(self, key: Key, x: Images) -> PyTree:
        """{}."""
        return {}

    def distance(self, params: PyTree, x: Images, y: Images) -> Float[Array, " b"]:
        """See `Perceptual.distance`: zeros."""
        return jnp.zeros(len(x))


@dataclass(frozen=True)
class RandomFeatures:
    """Features of a convolutional network at its random initialisation.

    Attributes:
        net: called as net(x, out=out).
        out: shape of its features.
        weight: factor of the distance.
    """

    net: Network = ConvEncoder(channels=(16,))
    out: int | tuple[int, ...] = 64
    weight: float = 1.0

    def init(self, key: Key, x: Images) -> PyTree:
        """The network's parameters."""
        return self.net.init(key, x, out=self.out)

    def distance(self, params: PyTree, x: Images, y: Images) -> Float[Array, " b"]:
        """See `Perceptual.distance`."""
        f, g = (self.net.apply(jax.lax.stop_gradient(params), image, out=self.out) for image in (x, y))
        each = jnp.sum((_unit(f) - _unit(g)) ** 2, axis=-1)
        return self.weight * jnp.mean(each.reshape(len(x), -1), axis=1)


def _unit(f: Array) -> Array:
    return f / jnp.sqrt(jnp.sum(f**2, axis=-1, keepdims=True) + 1e-8)
