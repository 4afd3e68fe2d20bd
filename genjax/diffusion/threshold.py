"""Thresholding, which keeps x_0 in the range of the data, as functions `Denoise -> Denoise`.

Static: clip(x_0, -bound, bound) (Ho et al. 2020, arXiv:2006.11239). Dynamic, for each example
separately (Saharia et al. 2022, arXiv:2205.11487, sec. 2.3):

    x_0 <- clip(x_0, -s, s) bound / s,        s = max(bound, a quantile of |x_0|).

eps follows from x_0: alpha x_0 + sigma eps = x_t.
"""

import dataclasses
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array
from genjax.diffusion.prediction import Denoise, Prediction, from_x0
from genjax.diffusion.process import Process, expand

State = Float[Array, "b ..."]
Scalar = Float[Array, "..."]  # a scalar, or one time per example


def with_x0(prediction: Prediction, process: Process, x0: State, x: State, t: Scalar) -> Prediction:
    """Replaces x_0 in a prediction, and eps by the consistent value.

    Args:
        prediction: at x_t.
        process: gives alpha and sigma.
        x0: the new estimate [b, ...].
        x: x_t, shaped as x0.
        t: a scalar, or one time per example [b].

    Returns:
        The new prediction, alpha x_0 + sigma eps = x_t.
    """
    return dataclasses.replace(prediction, x0=x0, eps=from_x0(process, x0, x, t).eps)


def clipped(denoise: Denoise, process: Process, low: float, high: float) -> Denoise:
    """Clips the estimate of x_0 to the range of the data (DDPM's static thresholding).

    Args:
        denoise: the denoiser to constrain.
        process: gives alpha and sigma.
        low: smallest value of the data as given to the model.
        high: largest value.

    Returns:
        The constrained denoiser.
    """

    def constrained(x: State, t: Scalar) -> Prediction:
        prediction = denoise(x, t)
        return with_x0(prediction, process, jnp.clip(prediction.x0, low, high), x, t)

    return constrained


def dynamic_threshold(
    denoise: Denoise, process: Process, percentile: float = 0.995, bound: float = 1.0
) -> Denoise:
    """Clips each example's x_0 at a quantile of its absolute values, and scales it into the range of the data.

    Args:
        denoise: the denoiser to constrain.
        process: gives alpha and sigma.
        percentile: of |x_0| over the example's dimensions, as a fraction.
        bound: the data as given to the model lie in [-bound, bound].

    Returns:
        The constrained denoiser; x_0 within [-bound, bound] is unchanged.
    """

    def constrained(x: State, t: Scalar) -> Prediction:
        prediction = denoise(x, t)
        size = jnp.quantile(jnp.abs(prediction.x0).reshape(len(x), -1), percentile, axis=1)
        limit = expand(jnp.maximum(size, bound), x)
        inside = jnp.clip(prediction.x0, -limit, limit) * (bound / limit)
        return with_x0(prediction, process, inside, x, t)

    return constrained


@runtime_checkable
class Threshold(Protocol):
    """Keeps x_0 in the range of the data. Implemented by frozen dataclasses."""

    def constrain(self, denoise: Denoise, process: Process) -> Denoise:
        """The constrained denoiser."""
        ...


@dataclass(frozen=True)
class NoThreshold:
    """x_0 unchanged."""

    def constrain(self, denoise: Denoise, process: Process) -> Denoise:
        """The denoiser itself."""
        return denoise


@dataclass(frozen=True)
class Static:
    """x_0 clipped to [-bound, bound]."""

    bound: float = 1.0

    def constrain(self, denoise: Denoise, process: Process) -> Denoise:
        """The constrained denoiser.

        Raises:
            UserError: `bound` is not above 0.
        """
        check_bound(self.bound)
        return clipped(denoise, process, -self.bound, self.bound)


@dataclass(frozen=True)
class Dynamic:
    """x_0 clipped at a quantile of each example's |x_0|, and scaled into [-bound, bound]."""

    percentile: float = 0.995
    bound: float = 1.0

    def constrain(self, denoise: Denoise, process: Process) -> Denoise:
        """The constrained denoiser.

        Raises:
            UserError: `bound` is not above 0, or `percentile` is outside (0, 1].
        """
        check_bound(self.bound)
        if not 0.0 < self.percentile <= 1.0:
            raise UserError(f"threshold.percentile={self.percentile} must be in (0, 1]")
        return dynamic_threshold(denoise, process, self.percentile, self.bound)


def check_bound(bound: float) -> None:
    """Raises UserError unless a threshold's bound is above 0."""
    if bound <= 0.0:
        raise UserError(f"threshold.bound={bound} must be above 0; NoThreshold() disables it")
