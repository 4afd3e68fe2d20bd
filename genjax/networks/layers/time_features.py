"""Embeddings of time.

Sinusoidal features (Vaswani et al. 2017, section 3.5; Ho et al. 2020, appendix B), with n frequencies
falling geometrically from 1 towards 1 / max_period, for a time t in [0, 1] scaled by `time_scale`:

    omega_i = max_period^(-i / n),   i = 0 ... n - 1
    features(t) = (cos(omega_i s t), sin(omega_i s t)),   s = time_scale

Random Fourier features (Tancik et al. 2020, equation 5; Song et al. 2021, appendix C.2), with frequencies
drawn once and never trained:

    features(t) = (cos(2 pi w_i t), sin(2 pi w_i t)),   w_i ~ N(0, scale^2)
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array


def _waves(t: Array, frequencies: Array) -> Array:
    angles = t.astype(jnp.float32)[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def _pairs(dim: int) -> int:
    if dim < 2 or dim % 2:
        raise UserError(f"time features come in pairs (cos, sin): their number must be even, not {dim}")
    return dim // 2


def sinusoidal(
    t: Float[Array, " b"], dim: int, time_scale: float = 1000.0, max_period: float = 10_000.0
) -> Float[Array, "b dim"]:
    """Sinusoidal features with geometrically spaced frequencies.

    Args:
        t: times, usually in [0, 1].
        dim: number of features, even.
        time_scale: factor on t; 1000 maps [0, 1] to the steps of a discrete-time model.
        max_period: longest wavelength over 2 pi, in units of `time_scale * t`.

    Returns:
        float32 features: dim / 2 cosines, then dim / 2 sines.

    Raises:
        UserError: `dim` is odd.
    """
    n = _pairs(dim)
    frequencies = time_scale * jnp.asarray(max_period ** (-np.arange(n) / n), jnp.float32)
    return _waves(t, frequencies)


def fourier(t: Float[Array, " b"], dim: int, scale: float = 16.0, seed: int = 0) -> Float[Array, "b dim"]:
    """Random Fourier features with fixed frequencies.

    Args:
        t: times, or any scalar such as a log noise level.
        dim: number of features, even.
        scale: standard deviation of the frequencies, in cycles per unit of t.
        seed: seed of the frequencies, which are constants of the network, not parameters.

    Returns:
        float32 features: dim / 2 cosines, then dim / 2 sines.

    Raises:
        UserError: `dim` is odd.
    """
    # RandomState's stream is frozen; a Generator's may change between versions and break old checkpoints.
    draws = np.random.RandomState(seed).standard_normal(_pairs(dim))
    return _waves(t, jnp.asarray(2 * np.pi * scale * draws, jnp.float32))
