"""Closed forms of mixtures of Gaussians under diffusion."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from genjax.core.types import Array
from genjax.diffusion.prediction import Prediction, from_x0
from genjax.diffusion.process import Process


@dataclass(frozen=True)
class MixtureData:
    """Every dimension is independently distributed as sum_k weights_k N(means_k, stds_k^2)."""

    weights: tuple[float, ...] = (0.3, 0.7)
    means: tuple[float, ...] = (-1.0, 0.8)
    stds: tuple[float, ...] = (0.3, 0.5)

    def denoise(self, process: Process):
        """E[x_0 | x_t]: the components' posterior means, weighted by their responsibilities."""

        def exact(x: Array, t: Array) -> Prediction:
            shape = (1,) * x.ndim + (-1,)
            weights, means, stds = (
                jnp.asarray(field, x.dtype).reshape(shape) for field in (self.weights, self.means, self.stds)
            )
            alpha, sigma, wide = process.alpha(t), process.sigma(t), x[..., None]
            variance = alpha**2 * stds**2 + sigma**2
            log_share = jnp.log(weights) - 0.5 * (wide - alpha * means) ** 2 / variance
            share = jax.nn.softmax(log_share - 0.5 * jnp.log(variance), axis=-1)
            posterior = means + alpha * stds**2 / variance * (wide - alpha * means)
            return from_x0(process, jnp.sum(share * posterior, axis=-1), x, t)

        return exact

    @property
    def mean(self) -> float:
        """Of the data."""
        return float(np.dot(self.weights, self.means))

    @property
    def variance(self) -> float:
        """Of the data."""
        second = np.dot(self.weights, np.square(self.means) + np.square(self.stds))
        return float(second - self.mean**2)

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """Of one dimension of the data."""
        parts = zip(self.weights, self.means, self.stds, strict=True)
        return sum(weight * stats.norm(mean, std).cdf(x) for weight, mean, std in parts)

    def transport(self, process: Process, x: Array, t: float, s: float) -> np.ndarray:
        """The probability-flow ODE's solution in one dimension: it preserves quantiles (bisection, float64)."""

        def marginal(time: float, at: np.ndarray) -> np.ndarray:
            alpha, sigma = float(process.alpha(jnp.asarray(time))), float(process.sigma(jnp.asarray(time)))
            parts = zip(self.weights, self.means, self.stds, strict=True)
            return sum(w * stats.norm.cdf(at, alpha * m, np.hypot(alpha * d, sigma)) for w, m, d in parts)

        quantile = marginal(t, np.asarray(x, np.float64))
        low, high = np.full(quantile.shape, -50.0), np.full(quantile.shape, 50.0)
        for _ in range(100):
            middle = 0.5 * (low + high)
            below = marginal(s, middle) < quantile
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return 0.5 * (low + high)
