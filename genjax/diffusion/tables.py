"""Discrete-time tables of a process, in DDPM's notation (Ho et al. 2020, arXiv:2006.11239), in float64.

Every Gaussian process is variance preserving up to the scale of x_t: x_t / sqrt(alpha^2 + sigma^2) has

    alpha_bar(t) = alpha^2 / (alpha^2 + sigma^2) = SNR / (1 + SNR).

Evaluated at t_i = i / T, i = 1 ... T, with alpha_bar_0 = 1 for clean data:

    beta_i = 1 - alpha_bar_i / alpha_bar_{i-1},        alpha_bar_i = prod_{j <= i} (1 - beta_j),
    q(x_{i-1} | x_i, x_0) = N( coefficient_x0 x_0 + coefficient_x x_i, variance ),            (eq. 6-7)
    coefficient_x0 = sqrt(alpha_bar_{i-1}) beta_i / (1 - alpha_bar_i),
    coefficient_x  = sqrt(1 - beta_i) (1 - alpha_bar_{i-1}) / (1 - alpha_bar_i),
    variance       = (1 - alpha_bar_{i-1}) / (1 - alpha_bar_i) beta_i.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from genjax.diffusion.process import Process


@dataclass(frozen=True)
class Tables:
    """float64 numpy arrays [steps]; entry i - 1 belongs to step i.

    Attributes:
        beta: variance added by step i.
        alpha_bar: squared scale of the data after step i.
    """

    beta: np.ndarray
    alpha_bar: np.ndarray

    @property
    def alpha_bar_before(self) -> np.ndarray:
        """alpha_bar_{i-1}, with 1 at the start."""
        return np.concatenate([np.ones(1), self.alpha_bar[:-1]])

    @property
    def variance(self) -> np.ndarray:
        """Variance of q(x_{i-1} | x_i, x_0); 0 for the first step."""
        return (1.0 - self.alpha_bar_before) / (1.0 - self.alpha_bar) * self.beta

    @property
    def coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """(coefficient_x0, coefficient_x) of the mean of q(x_{i-1} | x_i, x_0)."""
        before, left = self.alpha_bar_before, 1.0 - self.alpha_bar
        return np.sqrt(before) * self.beta / left, np.sqrt(1.0 - self.beta) * (1.0 - before) / left


def discretise(process: Process, steps: int, max_beta: float = 0.999) -> Tables:
    """DDPM's tables of a process, computed on the host.

    Args:
        process: gives alpha and sigma.
        steps: T.
        max_beta: upper limit of beta (Nichol & Dhariwal 2021, arXiv:2102.09672, sec. 3.2), so that alpha_bar_T > 0.

    Returns:
        The tables; alpha_bar is the cumulative product of 1 - beta.
    """
    with jax.enable_x64(True):
        t = jnp.arange(1, steps + 1, dtype=jnp.float64) / steps
        log_bar = np.asarray(-jnp.log1p((process.sigma(t) / process.alpha(t)) ** 2))
    beta = -np.expm1(np.diff(log_bar, prepend=0.0))
    beta = np.minimum(beta, max_beta)
    return Tables(beta=beta, alpha_bar=np.cumprod(1.0 - beta))
