"""Guidance and constraints as functions `Denoise -> Denoise`: samplers never know of them.

Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598, eq. 6, with w there = scale - 1 here):

    eps_guided = eps(x) + scale (eps(x, c) - eps(x)),

and the same for x_0, which is linear in eps: scale 0 is the unconditional model, 1 the conditional one.
"""

import jax.numpy as jnp
from jaxtyping import Float

from genjax.diffusion.prediction import Denoise, Prediction, from_x0
from genjax.diffusion.process import Process
from genjax.types import Array


def classifier_free(conditional: Denoise, unconditional: Denoise, scale: float) -> Denoise:
    """Extrapolates from the unconditional to the conditional denoiser.

    Args:
        conditional: denoiser that knows the condition.
        unconditional: denoiser that does not.
        scale: 0 gives the unconditional model and 1 the conditional one, exactly and at the cost of one.

    Returns:
        The guided denoiser.
    """
    if scale == 1.0:
        return conditional
    if scale == 0.0:
        return unconditional

    def guided(x: Float[Array, "b ..."], t: Float[Array, ""]) -> Prediction:
        given, free = conditional(x, t), unconditional(x, t)
        return Prediction(
            x0=free.x0 + scale * (given.x0 - free.x0), eps=free.eps + scale * (given.eps - free.eps)
        )

    return guided


def clipped(denoise: Denoise, process: Process, low: float, high: float) -> Denoise:
    """Clips the estimate of x_0 to the data's range and makes eps agree (DDPM's static thresholding).

    Args:
        denoise: the denoiser to constrain.
        process: gives alpha and sigma.
        low: smallest value of the data as the model sees them.
        high: largest value.

    Returns:
        The constrained denoiser.
    """

    def constrained(x: Float[Array, "b ..."], t: Float[Array, ""]) -> Prediction:
        return from_x0(process, jnp.clip(denoise(x, t).x0, low, high), x, t)

    return constrained
