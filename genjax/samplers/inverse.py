"""Linear inverse problems y = A x_0 + noise, solved with an unconditionally trained denoiser.

A is a linear function of batches, row by row; its adjoint comes from `jax.linear_transpose`. The operators here
(masks, grey values, averages of blocks) are partial isometries, A A^T A = A, scaled where needed.

Replacement (Song et al. 2021, arXiv:2011.13456, app. I.2-3, after each step to time s; A^T A is a projection):

    x_s <- x_s + A^T (y_s - A x_s),        y_s = alpha_s y + sigma_s A z.

Each y_s is independent of the rest of x_s: samples do not follow p(x_0 | y). RePaint
(Lugmayr et al. 2022, arXiv:2201.09865, alg. 1) noises x_s back to x_t = a x_s + b z and steps down again, several
times per step, which reduces the error; the repeats also accumulate the sampler's loss of variance per step, so
`DDIM(eta=1)` and `Ancestral` need short steps.

Pseudo-inverse guidance (Song et al. 2023, "Pseudoinverse-guided diffusion models for inverse problems") takes
p(x_0 | x_t) as N(x_0(x_t), r^2 I), so that with the denoiser's Jacobian J and the noise's std n

    grad log p(y | x_t) = J^T A^T (r^2 A A^T + n^2 I)^-1 (y - A x_0(x_t)),
    r^2 = s^2 sigma^2 / (alpha^2 s^2 + sigma^2),

exact for data N(m, s^2 I). With s = 0 it is the likelihood of DPS (Chung et al. 2023, arXiv:2209.14687, eq. 16),
whose algorithm 1 instead takes a gradient step after each of the sampler's steps:

    x_s <- x_s - strength grad_{x_t} ||y - A x_0(x_t)||.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array, Key, named
from genjax.diffusion.guidance import with_score
from genjax.diffusion.prediction import Denoise, Prediction
from genjax.diffusion.process import Process
from genjax.samplers.scan import Sampler, SamplerState, Stepper, sample
from genjax.samplers.sde import transition

State = Float[Array, "b ..."]
Scalar = Float[Array, ""]
Linear = Callable[[Array], Array]


def adjoint(operator: Linear, x: State) -> Linear:
    """A^T of an operator on arrays of the shape and dtype of x."""
    transposed = jax.linear_transpose(operator, jax.ShapeDtypeStruct(x.shape, x.dtype))
    return lambda y: transposed(y)[0]


def masked(mask: Float[Array, "..."]) -> Linear:
    """A x = mask x: keeps the pixels where `mask` is 1; it broadcasts against x [b, ...]."""
    return lambda x: jnp.broadcast_to(mask, x.shape).astype(x.dtype) * x


def grey(x: Float[Array, "b h w c"]) -> Float[Array, "b h w 1"]:
    """The sum of the channels over sqrt(c): the first coordinate of a rotated colour space."""
    return jnp.sum(x, axis=-1, keepdims=True) / x.shape[-1] ** 0.5


def pooled(factor: int) -> Linear:
    """The averages of blocks of factor x factor pixels, times `factor`: [b, h, w, c] -> [b, h / factor, w / factor, c].

    Raises:
        UserError: when applied, if `factor` does not divide h and w.
    """

    def operator(x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
        b, h, w, c = x.shape
        if h % factor or w % factor:
            raise UserError(f"factor={factor} must divide the images' {h} x {w} pixels")
        blocks = x.reshape(b, h // factor, factor, w // factor, factor, c)
        return jnp.sum(blocks, axis=(2, 4)) / factor

    return operator


@runtime_checkable
class Correct(Protocol):
    """Corrects x_s after a step from x_t."""

    def __call__(
        self, denoise: Denoise, process: Process, x_t: Array, x_s: Array, t: Array, s: Array, key: Key
    ) -> Array:
        """Corrects the end of a step.

        Args:
            denoise: (x, t) -> Prediction.
            process: alpha and sigma.
            x_t: start of the step, [b, ...].
            x_s: end of the step, [b, ...].
            t: time of x_t, scalar.
            s: time of x_s, scalar.
            key: typed PRNG key.

        Returns:
            The corrected x_s.
        """
        ...


@dataclass(frozen=True)
class Corrected:
    """A sampler with a correction of the state after each of its steps.

    Attributes:
        sampler: the step and its grid.
        correct: the correction; the sampler's memory is unchanged.
    """

    sampler: Stepper
    correct: Correct

    def times(self, process: Process) -> Float[Array, " n"]:
        """The sampler's grid."""
        return self.sampler.times(process)

    def init(self, x: State) -> SamplerState:
        """The sampler's initial state."""
        return self.sampler.init(x)

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """The sampler's step, and the correction; see `Sampler.step`."""
        after = self.sampler.step(denoise, process, state, t, s, named(key, "step"))
        x = self.correct(denoise, process, state.x, after.x, t, s, named(key, "correct"))
        return dataclasses.replace(after, x=x)


@dataclass(frozen=True)
class Repeated(Corrected):
    """Takes each corrected step `repeats` times, with x_s noised back to time t in between (RePaint)."""

    repeats: int = 1

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """`repeats` steps; each starts with the memory at time t; see `Sampler.step`."""
        a, b = transition(process, s, t)

        def again(x: Array, index: Array) -> tuple[Array, None]:
            now = jax.random.fold_in(key, index)
            down = Corrected.step(self, denoise, process, dataclasses.replace(state, x=x), t, s, now).x
            return a * down + b * jax.random.normal(named(now, "back"), x.shape, x.dtype), None

        x, _ = jax.lax.scan(again, state.x, jnp.arange(1, self.repeats))
        return super().step(denoise, process, dataclasses.replace(state, x=x), t, s, key)


def replaced(operator: Linear, y: Float[Array, "b ..."]) -> Correct:
    """Replacement: sets the measured part of x_s to the noised measurement.

    Args:
        operator: a partial isometry.
        y: measurements [b, ...] without noise, in the operator's range.

    Returns:
        The correction.
    """

    def correct(
        denoise: Denoise, process: Process, x_t: Array, x_s: Array, t: Array, s: Array, key: Key
    ) -> Array:
        noise = operator(jax.random.normal(named(key, "noise"), x_s.shape, x_s.dtype))
        return onto(operator, process.alpha(s) * y + process.sigma(s) * noise, x_s)

    return correct


def onto(operator: Linear, y: Float[Array, "b ..."], x: State) -> State:
    """Projects x onto {x: A x = y}.

    Args:
        operator: a partial isometry A.
        y: measurements [b, ...] in its range.
        x: states [b, ...].

    Returns:
        x + A^T (y - A x).
    """
    return x + adjoint(operator, x)(y - operator(x))


def restore(
    denoise: Denoise,
    process: Process,
    sampler: Sampler,
    key: Key,
    operator: Linear,
    y: Float[Array, "b ..."],
    shape: tuple[int, ...],
    repeats: int = 1,
) -> State:
    """Draws samples with A x = y, by replacement (`repeats` = 1) or RePaint.

    Args:
        denoise: (x, t) -> Prediction.
        process: alpha and sigma.
        sampler: the step and its grid; for RePaint a stochastic one, such as `DDIM(eta=1)`.
        key: typed PRNG key.
        operator: a partial isometry.
        y: measurements [b, ...] without noise, in the operator's range.
        shape: (b, ...), of the samples.
        repeats: U of RePaint: how often each step is taken; multiplies the cost.

    Returns:
        Samples [b, ...] with A x = y.

    Raises:
        UserError: `repeats` is below 1.
    """
    if repeats < 1:
        raise UserError(f"repeats={repeats} must be at least 1")
    steps = Repeated(sampler, replaced(operator, y), repeats)
    return onto(operator, y, sample(denoise, process, steps, key, shape))


def inpaint(
    denoise: Denoise,
    process: Process,
    sampler: Sampler,
    key: Key,
    known: State,
    mask: Float[Array, "..."],
    repeats: int = 1,
) -> State:
    """Draws samples that equal `known`, bit for bit, where `mask` is 1.

    Args:
        denoise: see `restore`.
        process: see `restore`.
        sampler: see `restore`.
        key: typed PRNG key.
        known: data [b, ...]; only pixels where `mask` is 1 are used.
        mask: 0 or 1, broadcasts against `known`.
        repeats: see `restore`.

    Returns:
        Samples [b, ...].

    Raises:
        UserError: `repeats` is below 1.
    """
    operator = masked(mask)
    x = restore(denoise, process, sampler, key, operator, operator(known), known.shape, repeats)
    return jnp.where(jnp.broadcast_to(mask, x.shape) > 0, known.astype(x.dtype), x)


def pseudo_inverse(
    denoise: Denoise,
    process: Process,
    operator: Linear,
    y: Float[Array, "b ..."],
    noise: float = 0.0,
    data_std: float | Scalar = 1.0,
    iterations: int = 20,
) -> Denoise:
    """Pseudo-inverse guidance: adds the gradient of a Gaussian log p(y | x_t) to the score.

    The linear system is solved by conjugate gradients; one iteration suffices for a partial isometry.

    Args:
        denoise: the denoiser; it is differentiated, so a step costs about three evaluations.
        process: alpha and sigma.
        operator: any linear A.
        y: measurements [b, ...].
        noise: standard deviation of the measurement noise; with 0, y must be in the operator's range.
        data_std: s, the standard deviation of the data in each direction, as the model sees them.
        iterations: maximum number of iterations of the solver.

    Returns:
        The guided denoiser. No guidance where alpha = 0, as at t = 1 of `RectifiedFlow`.
    """

    def guided(x: State, t: Scalar) -> Prediction:
        alpha, sigma = process.alpha(t), process.sigma(t)
        variance = data_std**2 * sigma**2 / (alpha**2 * data_std**2 + sigma**2)

        def estimate(x: Array) -> tuple[Array, Prediction]:
            prediction = denoise(x, t)
            return prediction.x0, prediction

        x0, pull, prediction = jax.vjp(estimate, x, has_aux=True)
        transposed = adjoint(operator, x0)
        covariance = lambda u: variance * operator(transposed(u)) + noise**2 * u
        tolerance = 10.0 * float(jnp.finfo(x0.dtype).eps)
        solution, _ = jax.scipy.sparse.linalg.cg(
            covariance, y - operator(x0), tol=tolerance, maxiter=iterations
        )
        return with_score(prediction, process, pull(transposed(solution))[0], t)

    return guided


def descended(operator: Linear, y: Float[Array, "b ..."], strength: float) -> Correct:
    """DPS: x_s minus `strength` times the gradient of each example's residual norm.

    Args:
        operator: any linear (or differentiable) A.
        y: measurements [b, ...].
        strength: zeta' of Chung et al. 2023, app. D.1; 1 is common for images in [-1, 1].

    Returns:
        The correction, for `Corrected`.
    """

    def correct(
        denoise: Denoise, process: Process, x_t: Array, x_s: Array, t: Array, s: Array, key: Key
    ) -> Array:
        def distance(x: Array) -> Array:
            residual = y - operator(denoise(x, t).x0)
            squared = jnp.sum(residual**2, axis=tuple(range(1, residual.ndim)))
            return jnp.sum(jnp.sqrt(squared + jnp.finfo(x.dtype).tiny))

        return x_s - strength * jax.grad(distance)(x_t)

    return correct
