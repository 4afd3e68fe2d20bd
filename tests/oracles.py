"""Closed forms for the tests."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from genjax.core.types import Array
from genjax.diffusion.prediction import Prediction, from_x0
from genjax.diffusion.process import Process, expand


@dataclass(frozen=True)
class GaussianData:
    """Data N(mean, std^2 I), with its diffusion in closed form."""

    mean: float = 0.7
    std: float = 0.4

    def variance(self, process: Process, t: Array) -> Array:
        """Variance of x_t: alpha^2 std^2 + sigma^2."""
        return process.alpha(t) ** 2 * self.std**2 + process.sigma(t) ** 2

    def denoise(self, process: Process):
        """E[x_0 | x_t] by Bayes' rule, and the consistent eps."""

        def exact(x: Array, t: Array) -> Prediction:
            alpha = expand(process.alpha(t), x)
            gain = alpha * self.std**2 / expand(self.variance(process, t), x)
            return from_x0(process, self.mean + gain * (x - alpha * self.mean), x, t)

        return exact

    def transport(self, process: Process, x: Array, t: Array, s: Array) -> Array:
        """The probability-flow ODE's solution from x at t to time s."""
        ratio = jnp.sqrt(self.variance(process, s) / self.variance(process, t))
        return process.alpha(s) * self.mean + ratio * (x - process.alpha(t) * self.mean)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """log p(x) in nats per example."""
        z = (x - self.mean) / self.std
        return (-0.5 * z**2 - np.log(self.std) - 0.5 * np.log(2 * np.pi)).reshape(len(x), -1).sum(axis=1)


@dataclass(frozen=True)
class CorrelatedData:
    """Data N(0, A A^T) in the plane, with a non-diagonal covariance."""

    rows: tuple[tuple[float, ...], ...] = ((0.6, 0.0), (0.5, 0.3))

    @property
    def covariance(self) -> np.ndarray:
        """A A^T."""
        return np.array(self.rows) @ np.array(self.rows).T

    def gain(self, process: Process, t: Array) -> Array:
        """The matrix M of E[x_0 | x_t] = M x_t, by Bayes' rule."""
        covariance = jnp.asarray(self.covariance, t.dtype)
        spread = process.alpha(t) ** 2 * covariance + process.sigma(t) ** 2 * jnp.eye(2, dtype=t.dtype)
        return process.alpha(t) * covariance @ jnp.linalg.inv(spread)

    def denoise(self, process: Process):
        """E[x_0 | x_t], and the consistent eps."""
        return lambda x, t: from_x0(process, x @ self.gain(process, t).T, x, t)


def fitted_order(sizes: list[float], errors: list[float]) -> float:
    """Slope of log error against log step size."""
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


@dataclass(frozen=True)
class Switched(Process):
    """One of several processes, selected by a traced index, so that one compiled program serves all."""

    processes: tuple[Process, ...]
    index: Array

    def _choose(self, name: str, t: Array) -> Array:
        return jax.lax.switch(self.index, [getattr(process, name) for process in self.processes], t)

    def alpha(self, t: Array) -> Array:
        """Of the selected process."""
        return self._choose("alpha", t)

    def sigma(self, t: Array) -> Array:
        """Of the selected process."""
        return self._choose("sigma", t)
