"""Gaussian terms of the variational bound -log p(x) <= prior + reconstruction + diffusion, all in nats.

Between Gaussians of variances v_q, v_p whose means differ by d, in each dimension

    KL(q || p) = ( (v_q + d^2) / v_p - 1 + log v_p - log v_q ) / 2.

Discrete data take L evenly spaced values in [-1, 1], each in a cell of width w = 2 / (L - 1). Two likelihoods of these
values, both of which sum to 1:

    softmax   p(x | z) proportional to N(z; x, v)             (Kingma et al. 2021, arXiv:2107.00630, eq. 13)
    cells     Phi((x + w/2 - m) / s) - Phi((x - w/2 - m) / s), the outer cells extending to infinity
                                                              (Ho et al. 2020, arXiv:2006.11239, eq. 13)

A probability P, spread evenly over its cell, is the density P / w^D in the scale of x. Evaluation adds the
log-determinant of the map from integers to [-1, 1], D log w, which recovers P.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array

State = Float[Array, "b ..."]
Value = Float[Array, "..."]
LOG_TAU = math.log(2.0 * math.pi)
FAR = 1e6  # standard deviations, in place of infinity


def check_levels(levels: int) -> None:
    """Raises UserError unless `levels` is 0 (continuous data) or at least 2."""
    if levels < 0 or levels == 1:
        raise UserError(f"levels={levels} must be 0 for continuous data, or the number of values, at least 2")


def gaussian_kl(gap: Value, log_variance_q: Value, log_variance_p: Value) -> Value:
    """KL(N(m, v_q) || N(m + gap, v_p)) in each dimension.

    Args:
        gap: difference of the means, any shape.
        log_variance_q: log v_q; broadcasts with `gap`.
        log_variance_p: log v_p; broadcasts with `gap`.

    Returns:
        Nats, of the broadcast shape.
    """
    ratio = log_variance_q - log_variance_p
    return 0.5 * (jnp.exp(ratio) - 1.0 - ratio + gap**2 * jnp.exp(-log_variance_p))


def log_normal(x: Value, mean: Value, log_std: Value) -> Value:
    """log N(x; mean, exp(2 log_std)) in each dimension.

    Args:
        x: points, any shape.
        mean: broadcasts with x.
        log_std: log standard deviation; broadcasts with x.

    Returns:
        Nats, of the broadcast shape.
    """
    return -0.5 * ((x - mean) * jnp.exp(-log_std)) ** 2 - log_std - 0.5 * LOG_TAU


def log_softmax(x: State, center: State, log_variance: Value, levels: int) -> State:
    """log p of the softmax likelihood in each dimension (Kingma et al. 2021, eq. 13).

    Args:
        x: the data, each within half a cell of one of the values.
        center: z, rescaled to the data's units.
        log_variance: of z in these units, a scalar.
        levels: L, at least 2.

    Returns:
        Nats, shaped as x; needs memory for L times as many numbers.
    """
    values = jnp.linspace(-1.0, 1.0, levels, dtype=x.dtype)
    logits = -0.5 * (center[..., None] - values.reshape((1,) * x.ndim + (-1,))) ** 2 * jnp.exp(-log_variance)
    index = jnp.round((x + 1.0) * (0.5 * (levels - 1))).astype(jnp.int32)
    return jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), index[..., None], axis=-1)[..., 0]


def log_cells(x: State, mean: State, log_std: State, levels: int) -> State:
    """Log-probability of a Gaussian in the cell around x, in each dimension, without cancellation in the tails.

    Args:
        x: the data, each one of the values.
        mean: of the Gaussian.
        log_std: log of its standard deviation.
        levels: L, at least 2.

    Returns:
        Nats, shaped as x.
    """
    half = 1.0 / (levels - 1)
    low = jnp.where(x < -1.0 + half, -FAR, (x - half - mean) * jnp.exp(-log_std))
    high = jnp.where(x > 1.0 - half, FAR, (x + half - mean) * jnp.exp(-log_std))
    mirror = low + high > 0.0  # both in the lower tail, where log Phi is precise
    low, high = jnp.where(mirror, -high, low), jnp.where(mirror, -low, high)
    top = jax.scipy.special.log_ndtr(high)
    share = jnp.minimum(jax.scipy.special.log_ndtr(low) - top, -jnp.finfo(x.dtype).eps)
    return top + jnp.log(-jnp.expm1(share))


def log_cell_volume(levels: int, dims: int) -> float:
    """D log w in nats: log-probability minus log-density; 0 for continuous data."""
    return dims * math.log(2.0 / (levels - 1)) if levels else 0.0
