"""Distances between images in the features of a fixed network: parts of a reconstruction loss.

    d(x, y) = mean over places of | f(x) / |f(x)| - f(y) / |f(y)| |^2,     f(x) the features at a place,

after LPIPS (Zhang et al. 2018, arXiv:1801.03924, eq. 1) with one layer and all weights 1. Random features need no
download; a trained network's are a class of your own with the same two methods.
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
        """What the distance needs; nothing of it is trained."""
        ...

    def distance(self, params: PyTree, x: Images, y: Images) -> Float[Array, " b"]:
        """d(x, y) of each pair."""
        ...


@dataclass(frozen=True)
class NoPerceptual:
    """d = 0."""

    def init(self, key: Key, x: Images) -> PyTree:
        """Nothing."""
        return {}

    def distance(self, params: PyTree, x: Images, y: Images) -> Float[Array, " b"]:
        """Zeros."""
        return jnp.zeros(len(x))


@dataclass(frozen=True)
class RandomFeatures:
    """Features of a convolutional network with the parameters that it was initialised with.

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
        """See the module."""
        f, g = (self.net.apply(jax.lax.stop_gradient(params), image, out=self.out) for image in (x, y))
        each = jnp.sum((_unit(f) - _unit(g)) ** 2, axis=-1)
        return self.weight * jnp.mean(each.reshape(len(x), -1), axis=1)


def _unit(f: Array) -> Array:
    return f / jnp.sqrt(jnp.sum(f**2, axis=-1, keepdims=True) + 1e-8)
