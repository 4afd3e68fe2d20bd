"""Position encodings of tokens and patches; without them attention is permutation-equivariant.

Places lie on a grid of any number of axes; each axis gets an equal part of the features. With
omega_i = 10000^(-i / n), i = 0 ... n - 1, and p the coordinate along one axis:

    sinusoidal (Vaswani et al. 2017, section 3.5):  (cos(omega_i p), sin(omega_i p)), added to the input;
    rotary (Su et al. 2021, arXiv:2104.09864, equation 34):  the pairs (q_i, q_{i + d/2}) of queries and keys
    are rotated by the angle omega_i p, so that their products depend on differences of positions only.
"""

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array
from genjax.networks.layers import time_features
from genjax.networks.layers.plain_ops import wide

Positions = Literal["none", "learned", "sinusoidal", "rotary"]


def grid(shape: tuple[int, ...]) -> Float[Array, "n axes"]:
    """Coordinates 0, 1, ... of all places of a grid, the last axis fastest; axes of size 1 are left out."""
    long = tuple(size for size in shape if size > 1) or (1,)
    return jnp.asarray(np.indices(long).reshape(len(long), math.prod(long)).T, jnp.float32)


def _share(features: int, axes: int, what: str) -> int:
    if features % (2 * axes):
        raise UserError(
            f"{what} positions on {axes} axes need a number of features divisible by {2 * axes}, not {features}"
        )
    return features // axes


def sinusoidal(places: Float[Array, "n axes"], features: int) -> Float[Array, "n features"]:
    """Sinusoidal position encodings along each axis.

    Args:
        places: coordinates, see `grid`.
        features: number of features, divided equally among the axes, half cosines, half sines.

    Returns:
        float32 features with entries in [-1, 1].

    Raises:
        UserError: `features` is not divisible by twice the number of axes.
    """
    share = _share(features, places.shape[1], "sinusoidal")
    return jnp.concatenate([time_features.sinusoidal(p, share, 1.0) for p in places.T], axis=-1)


def angles(places: Float[Array, "n axes"], features: int, base: float = 10_000.0) -> Float[Array, "n pairs"]:
    """Angles of rotary positions for each pair of features.

    Args:
        places: coordinates, see `grid`.
        features: features of one head; half as many pairs are divided equally among the axes.
        base: longest wavelength over 2 pi.

    Returns:
        float32 angles in radians.

    Raises:
        UserError: `features` is not divisible by twice the number of axes.
    """
    pairs = _share(features, places.shape[1], "rotary") // 2
    omega = jnp.asarray(base ** (-np.arange(pairs) / pairs))
    return (places[:, :, None] * omega[None, None]).reshape(places.shape[0], -1)


def rotate(
    x: Float[Array, "b n heads d"], angles: Float[Array, "n pairs"] | Float[Array, "b n pairs"]
) -> Float[Array, "b n heads d"]:
    """Rotates the pairs (x_i, x_{i + d/2}) by `angles`; in float32, result in the dtype of x."""
    expanded = (angles if angles.ndim == 3 else angles[None])[:, :, None]
    cos, sin = jnp.cos(expanded), jnp.sin(expanded)
    cos, sin = jnp.concatenate([cos, cos], axis=-1), jnp.concatenate([-sin, sin], axis=-1)
    z = wide(x)
    return (z * cos + jnp.roll(z, x.shape[-1] // 2, axis=-1) * sin).astype(x.dtype)
