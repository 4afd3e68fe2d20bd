"""Guidance as functions `Denoise -> Denoise`, independent of the sampler.

Classifier guidance (Dhariwal & Nichol 2021, arXiv:2105.05233, alg. 2 for DDIM) applies Bayes' rule to the score (at
scale 1), with x_0 such that alpha x_0 + sigma eps = x_t:

    eps_guided = eps - scale sigma grad_x log p(y | x_t).

Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598, eq. 6, with w there = scale - 1 here):

    eps_guided = eps(x) + scale (eps(x, c) - eps(x)),

and the same for x_0, which is linear in eps: scale 0 is the unconditional model, 1 the conditional one. Variants:

    interval        the conditional model alone outside (low, high] in t (Kynkaanniemi et al. 2024,
                    arXiv:2404.07724, there in sigma; `Process.time_at` translates)
    rescale         x_0 <- (1 - phi + phi std(x_0(x, c)) / std(x_0)) x_0 (Lin et al. 2023, arXiv:2305.08891,
                    sec. 3.4, there for the network's output), with the standard deviations of each example
    projected       x_0 = x_0(x, c) + (scale - 1) (d - (1 - eta) (component of d along x_0(x, c))),
                    d = x_0(x, c) - x_0(x) (APG, Sadat et al. 2024, arXiv:2410.02416, without its momentum and
                    norm bound)
    plus plus       x_0 as above with scale in [0, 1], and eps = eps(x) (CFG++, Chung et al. 2024,
                    arXiv:2406.08070)
    autoguidance    a better model in place of the conditional one, a worse model in place of the unconditional one
                    (Karras et al. 2024, arXiv:2406.02507, eq. 3)
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array
from genjax.diffusion.prediction import Denoise, Prediction
from genjax.diffusion.process import Process, expand
from genjax.diffusion.threshold import with_x0

State = Float[Array, "b ..."]
Scalar = Float[Array, "..."]  # a scalar, or one time per example


def with_score(prediction: Prediction, process: Process, extra: State, t: Scalar) -> Prediction:
    """Adds a term to the score of a prediction: eps - sigma extra, and the consistent x_0.

    Args:
        prediction: at x_t.
        process: gives alpha and sigma.
        extra: the term, shaped as x_t.
        t: a scalar, or one time per example.

    Returns:
        The new prediction. Where alpha = 0, x_t is independent of x_0, and x_0 is unchanged.
    """
    alpha, sigma = process.alpha(t), process.sigma(t)
    gain = jnp.where(alpha > 0, sigma**2 / jnp.where(alpha > 0, alpha, 1.0), 0.0)
    return dataclasses.replace(
        prediction,
        x0=prediction.x0 + expand(gain, extra) * extra,
        eps=prediction.eps - expand(sigma, extra) * extra,
    )


def classifier(
    denoise: Denoise,
    log_prob: Callable[[State, Scalar], Float[Array, " b"]],
    process: Process,
    scale: float = 1.0,
) -> Denoise:
    """Adds scale times a classifier's gradient to the score.

    Args:
        denoise: the unconditional denoiser.
        log_prob: (x_t, t) -> log p(y | x_t) [b] of each example's target y, in nats; each row independently.
        process: gives alpha and sigma.
        scale: 1 is Bayes' rule; larger values sharpen the classifier.

    Returns:
        The guided denoiser.
    """

    def guided(x: State, t: Scalar) -> Prediction:
        gradient = jax.grad(lambda x: jnp.sum(log_prob(x, t)))(x)
        return with_score(denoise(x, t), process, scale * gradient, t)

    return guided


def classifier_free(conditional: Denoise, unconditional: Denoise, scale: float) -> Denoise:
    """Extrapolates from the unconditional to the conditional denoiser.

    Args:
        conditional: denoiser given the condition.
        unconditional: denoiser without the condition.
        scale: 0 gives the unconditional model and 1 the conditional one, exactly and with one evaluation.

    Returns:
        The guided denoiser.
    """
    if scale == 1.0:
        return conditional
    if scale == 0.0:
        return unconditional

    def guided(x: State, t: Scalar) -> Prediction:
        given, free = conditional(x, t), unconditional(x, t)
        return dataclasses.replace(
            given, x0=free.x0 + scale * (given.x0 - free.x0), eps=free.eps + scale * (given.eps - free.eps)
        )

    return guided


def autoguidance(good: Denoise, bad: Denoise, scale: float) -> Denoise:
    """Extrapolates from a worse model of the same data to a better one: bad + scale (good - bad).

    Args:
        good: the better denoiser.
        bad: the worse denoiser.
        scale: as in `classifier_free`.

    Returns:
        The guided denoiser (Karras et al. 2024, arXiv:2406.02507, eq. 3).
    """
    return classifier_free(good, bad, scale)


def projected(
    conditional: Denoise, unconditional: Denoise, process: Process, scale: float, parallel: float
) -> Denoise:
    """Classifier-free guidance whose component along the conditional x_0 is scaled by `parallel`.

    Args:
        conditional: denoiser given the condition.
        unconditional: denoiser without the condition.
        process: gives alpha and sigma.
        scale: as in `classifier_free`.
        parallel: eta; 1 is classifier-free guidance, 0 removes the component of the change along x_0.

    Returns:
        The guided denoiser.
    """

    def guided(x: State, t: Scalar) -> Prediction:
        given, free = conditional(x, t), unconditional(x, t)
        rest = tuple(range(1, x.ndim))
        change = given.x0 - free.x0
        norm = jnp.sum(given.x0**2, axis=rest, keepdims=True)
        along = jnp.sum(change * given.x0, axis=rest, keepdims=True) / jnp.where(norm > 0, norm, 1.0)
        change = change - (1.0 - parallel) * along * given.x0
        return with_x0(given, process, given.x0 + (scale - 1.0) * change, x, t)

    return guided


def plus_plus(conditional: Denoise, unconditional: Denoise, scale: float) -> Denoise:
    """The guided x_0 with the unconditional eps: for `DDIM`, which noises x_0 again with this eps.

    Here alpha x_0 + sigma eps differs from x_t, so other samplers integrate a different ODE.

    Args:
        conditional: denoiser given the condition.
        unconditional: denoiser without the condition.
        scale: in [0, 1], applied to x_0.

    Returns:
        The guided denoiser.
    """

    def guided(x: State, t: Scalar) -> Prediction:
        given, free = conditional(x, t), unconditional(x, t)
        return dataclasses.replace(given, x0=free.x0 + scale * (given.x0 - free.x0), eps=free.eps)

    return guided


def within(inside: Denoise, outside: Denoise, low: float, high: float) -> Denoise:
    """`inside` at times in (low, high], `outside` at others; only the selected denoiser is evaluated.

    Args:
        inside: denoiser within the interval.
        outside: denoiser elsewhere.
        low: excluded lower end, in t.
        high: included upper end, in t.

    Returns:
        The combined denoiser, for scalar t.
    """
    return lambda x, t: jax.lax.cond((low < t) & (t <= high), inside, outside, x, t)


def rescaled(denoise: Denoise, reference: Denoise, process: Process, share: float) -> Denoise:
    """Moves the standard deviation of x_0 over each example's dimensions to that of a reference denoiser.

    Args:
        denoise: the denoiser to rescale, such as a guided one.
        reference: gives the target standard deviation, such as the conditional model.
        process: gives alpha and sigma.
        share: phi in [0, 1]; 0 leaves x_0 unchanged, 1 matches the reference exactly.

    Returns:
        The rescaled denoiser.
    """

    def changed(x: State, t: Scalar) -> Prediction:
        prediction, rest = denoise(x, t), tuple(range(1, x.ndim))
        wanted = jnp.std(reference(x, t).x0, axis=rest, keepdims=True)
        std = jnp.std(prediction.x0, axis=rest, keepdims=True)
        factor = jnp.where(std > 0, wanted / jnp.where(std > 0, std, 1.0), 1.0)
        return with_x0(prediction, process, (1.0 - share + share * factor) * prediction.x0, x, t)

    return changed


@runtime_checkable
class Guidance(Protocol):
    """Combines the conditional and the unconditional denoiser. Implemented by frozen dataclasses."""

    def apply(self, conditional: Denoise, unconditional: Denoise, process: Process) -> Denoise:
        """Combines two denoisers.

        Args:
            conditional: denoiser given the condition.
            unconditional: denoiser without the condition.
            process: gives alpha and sigma.

        Returns:
            The guided denoiser.
        """
        ...


@dataclass(frozen=True)
class ClassifierFree:
    """Classifier-free guidance.

    Attributes:
        scale: 0 is the unconditional model, 1 the conditional one, exactly and with one evaluation.
        low: guidance applies at times in (low, high]; elsewhere only the conditional model is evaluated.
        high: see `low`.
        rescale: phi, in [0, 1]: how far the standard deviation of x_0 is moved to that of the conditional model.
    """

    scale: float = 1.0
    low: float = 0.0
    high: float = 1.0
    rescale: float = 0.0

    def apply(self, conditional: Denoise, unconditional: Denoise, process: Process) -> Denoise:
        """See `Guidance.apply`.

        Raises:
            UserError: the interval is empty, or `rescale` is outside [0, 1].
        """
        if self.low >= self.high:
            raise UserError(f"guidance.low={self.low} must be less than guidance.high={self.high}")
        if not 0.0 <= self.rescale <= 1.0:
            raise UserError(f"guidance.rescale={self.rescale} must be in [0, 1]")
        guided = classifier_free(conditional, unconditional, self.scale)
        if self.rescale and self.scale != 1.0:
            guided = rescaled(guided, conditional, process, self.rescale)
        if guided is conditional or (self.low <= 0.0 and self.high >= 1.0):
            return guided
        return within(guided, conditional, self.low, self.high)


@dataclass(frozen=True)
class Projected:
    """Projected guidance; see `projected`."""

    scale: float = 1.0
    parallel: float = 0.0

    def apply(self, conditional: Denoise, unconditional: Denoise, process: Process) -> Denoise:
        """See `Guidance.apply`; scale 1 is the conditional model, exactly and with one evaluation."""
        if self.scale == 1.0:
            return conditional
        return projected(conditional, unconditional, process, self.scale, self.parallel)


@dataclass(frozen=True)
class PlusPlus:
    """CFG++, for DDIM; see `plus_plus`."""

    scale: float = 0.6

    def apply(self, conditional: Denoise, unconditional: Denoise, process: Process) -> Denoise:
        """See `Guidance.apply`.

        Raises:
            UserError: `scale` is outside [0, 1].
        """
        if not 0.0 <= self.scale <= 1.0:
            raise UserError(f"guidance.scale={self.scale} must be in [0, 1] for PlusPlus")
        return plus_plus(conditional, unconditional, self.scale)
