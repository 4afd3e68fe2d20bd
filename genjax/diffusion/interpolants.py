"""Stochastic interpolants between two distributions, with latent noise.

Data x_0, base samples x_1 and z ~ N(0, I) are combined as (Albergo, Boffi & Vanden-Eijnden 2023, arXiv:2303.08797,
sec. 2 and 4)

    x_t = I(t) + gamma(t) z,      I(t) = alpha(t) x_0 + beta(t) x_1,      gamma(0) = gamma(1) = 0,

so that x_t is data at t = 0 and the base at t = 1 (the paper reverses time). alpha and beta are the
alpha and sigma of a `Process` with alpha(1) = 0, sigma(0) = 0, sigma(1) = 1: `RectifiedFlow` is the linear
interpolant, `Trigonometric` the trigonometric one. Two regressions determine the velocity and the score of x_t:

    v = E[I'(t) | x_t],   eta = E[z | x_t],     velocity b = v + gamma' eta,     score s = -eta / gamma.

All of these processes, backwards in time from base to data, have the marginals of x_t, for any epsilon(t) >= 0:

    dx = b dt                                          (probability flow)
    dx = (b - epsilon s) dt + sqrt(2 epsilon) dw       (backward SDE)

gamma = sqrt(a t (1 - t)) has infinite rates at both ends. Solvers integrate over u instead, t = sin^2(pi u / 2), where
the rate is finite: dx/du = t'(u) v + (d gamma / du) eta. They skip `margin` at both ends, 2.5 margin^2 in t.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array, Key, PyTree, named, record
from genjax.diffusion.ode_likelihood import STEP, OdeLikelihood, Pair, Rate
from genjax.diffusion.prediction import Prediction
from genjax.diffusion.process import EDM, Process, Time, derivative

State = Float[Array, "b ..."]
LINEAR_SIGMA = EDM(sigma_min=0.0, sigma_max=1.0, rho=1.0)  # alpha = 1, sigma = u: the velocity is eps


@dataclass(frozen=True)
class EncoderDecoder(Process):
    """Data to pure latent noise to base: alpha = cos^2(pi t) before t = 1/2 and 0 after, beta its mirror image.

    Only for interpolants with gamma = `SinSquared`: without latent noise x_t = 0 at t = 1/2.
    """

    def alpha(self, t: Time) -> Time:
        """cos^2(pi t) on [0, 1/2], then 0."""
        return jnp.where(t < 0.5, jnp.cos(math.pi * t) ** 2, 0.0)

    def sigma(self, t: Time) -> Time:
        """0 on [0, 1/2], then cos^2(pi t)."""
        return jnp.where(t > 0.5, jnp.cos(math.pi * t) ** 2, 0.0)


@runtime_checkable
class Gamma(Protocol):
    """The scale of the latent noise."""

    @property
    def noisy(self) -> bool:
        """Whether there is latent noise, and hence a score."""
        ...

    def gamma(self, t: Time) -> Time:
        """gamma(t) >= 0, with gamma(0) = gamma(1) = 0."""
        ...


@dataclass(frozen=True)
class NoLatent:
    """gamma = 0: the paths are I(t), the velocity is v, and there is no score."""

    noisy: ClassVar[bool] = False

    def gamma(self, t: Time) -> Time:
        """0."""
        return jnp.zeros_like(t)


@dataclass(frozen=True)
class Bridge:
    """gamma = sqrt(a t (1 - t)): x_t given x_0 and x_1 is that of a Brownian bridge of variance a per unit time."""

    a: float = 1.0
    noisy: ClassVar[bool] = True

    def gamma(self, t: Time) -> Time:
        """sqrt(a t (1 - t)); its derivative is infinite at 0 and 1."""
        return jnp.sqrt(self.a * t * (1.0 - t))


@dataclass(frozen=True)
class SinSquared:
    """gamma = scale sin^2(pi t)."""

    scale: float = 1.0
    noisy: ClassVar[bool] = True

    def gamma(self, t: Time) -> Time:
        """scale sin^2(pi t)."""
        return self.scale * jnp.sin(math.pi * t) ** 2


@runtime_checkable
class Base(Protocol):
    """The distribution at t = 1: it can be sampled, and its density evaluated for likelihoods."""

    def draw(self, key: Key, shape: tuple[int, ...]) -> State:
        """float32 samples [b, ...]."""
        ...

    def log_density(self, x: State) -> Float[Array, " b"]:
        """log p_1(x) in nats per example."""
        ...


@dataclass(frozen=True)
class Normal:
    """N(0, I)."""

    def draw(self, key: Key, shape: tuple[int, ...]) -> State:
        """Standard normal."""
        return jax.random.normal(key, shape)

    def log_density(self, x: State) -> Float[Array, " b"]:
        """log p_1(x) in closed form, nats per example [b]."""
        return LINEAR_SIGMA.log_prior(x, jnp.ones((), x.dtype))


@dataclass(frozen=True)
class Ring:
    """Equally likely modes N(c_k, std^2 I) on a circle in the plane, the first at angle 0.

    Attributes:
        modes: number of modes.
        radius: radius of the circle.
        std: standard deviation of each mode.
    """

    modes: int = 8
    radius: float = 1.0
    std: float = 0.1

    def centres(self) -> Float[np.ndarray, "k 2"]:
        """c_k, float32."""
        angle = 2.0 * np.pi * np.arange(self.modes) / self.modes
        return (self.radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)).astype(np.float32)

    def draw(self, key: Key, shape: tuple[int, ...]) -> State:
        """A uniformly drawn mode plus Gaussian noise.

        Raises:
            UserError: `shape` is not (b, 2).
        """
        if shape[1:] != (2,):
            raise UserError(f"the base Ring is for points of shape (2,), got {shape[1:]}")
        mode = jax.random.randint(named(key, "mode"), shape[:1], 0, self.modes)
        return jnp.asarray(self.centres())[mode] + self.std * jax.random.normal(named(key, "noise"), shape)

    def log_density(self, x: State) -> Float[Array, " b"]:
        """log p_1(x) in closed form, nats per example [b]."""
        z = (x[:, None, :] - jnp.asarray(self.centres(), x.dtype)[None]) / self.std
        rest = math.log(self.modes) + 2.0 * math.log(self.std) + math.log(2.0 * math.pi)
        return jax.nn.logsumexp(-0.5 * jnp.sum(z**2, axis=-1), axis=1) - rest


@record
class Estimate:
    """Estimates of v = E[I' | x_t] and eta = E[z | x_t], each shaped as x_t [b, ...]."""

    v: PyTree
    eta: PyTree


Estimator = Callable[[Array, Array], Estimate]  # (x_t [b, ...], t scalar) -> Estimate


def time_change(u: Time) -> Time:
    """t = sin^2(pi u / 2)."""
    return jnp.sin(0.5 * math.pi * u) ** 2


def drift(estimate: Estimate, gamma: Gamma, u: Float[Array, ""]) -> State:
    """dx/du of the probability flow.

    Args:
        estimate: v and eta at x_t, t = sin^2(pi u / 2).
        gamma: the scale of the latent noise.
        u: the integration variable, a scalar.

    Returns:
        t'(u) v + (d gamma / du) eta, shaped as x_t.
    """
    rate = derivative(time_change, u)[1]
    return rate * estimate.v + derivative(lambda u: gamma.gamma(time_change(u)), u)[1] * estimate.eta


def euler(rate: Rate, here: Pair, u: Array, h: Array) -> Pair:
    """One Euler step: order 1, one evaluation.

    Args:
        rate: the rates of x and of the log-determinant.
        here: their current values.
        u: the current position.
        h: the step size.

    Returns:
        The values at u + h.
    """
    first = rate(here[0], u)
    return here[0] + h * first[0], here[1] + h * first[1]


def _grid(steps: int, margin: float, x: Array) -> tuple[Array, Array, Array]:
    """For each step, from base to data: its start in u, its end, and its index."""
    u = jnp.linspace(1.0 - margin, margin, steps + 1, dtype=x.dtype)
    return u[:-1], u[1:], jnp.arange(steps)


@runtime_checkable
class Solver(Protocol):
    """Integrates from base to data."""

    @property
    def steps(self) -> int:
        """Number of steps."""
        ...

    @property
    def evaluations(self) -> int:
        """Evaluations of the network for one sample."""
        ...

    @property
    def margin(self) -> float:
        """Integration runs from u = 1 - margin to u = margin."""
        ...

    def solve(self, estimate: Estimator, gamma: Gamma, x: State, key: Key) -> State:
        """Integrates from the base to the data.

        Args:
            estimate: (x_t, t) -> estimates of v and eta.
            gamma: the scale of the latent noise.
            x: the state at u = 1 - margin [b, ...].
            key: typed PRNG key, for stochastic solvers.

        Returns:
            The state at u = margin [b, ...].
        """
        ...


@dataclass(frozen=True)
class ODE:
    """The probability flow.

    Attributes:
        steps: number of steps, of equal size in u.
        method: "euler" (order 1, one evaluation a step), "heun" (order 2, two) or "rk4" (order 4, four).
        margin: skipped at both ends, in u.
    """

    steps: int = 50
    method: Literal["euler", "heun", "rk4"] = "heun"
    margin: float = 1e-3

    @property
    def evaluations(self) -> int:
        """See `Solver.evaluations`."""
        return self.steps * {"euler": 1, "heun": 2, "rk4": 4}[self.method]

    def solve(self, estimate: Estimator, gamma: Gamma, x: State, key: Key) -> State:
        """See `Solver.solve`; deterministic."""
        still = jnp.zeros(len(x), x.dtype)
        rate = lambda x, u: (drift(estimate(x, time_change(u)), gamma, u), still)
        step = {"euler": euler, **STEP}[self.method]

        def body(x: Array, now: tuple[Array, Array, Array]) -> tuple[Array, None]:
            return step(rate, (x, still), now[0], now[1] - now[0])[0], None

        return jax.lax.scan(body, x, _grid(self.steps, self.margin, x))[0]


@dataclass(frozen=True)
class SDE:
    """The backward SDE with epsilon(t) = scale gamma(t)^power, by Euler-Maruyama; weak order 1.

    Attributes:
        steps: number of steps, of equal size in u.
        scale: 0 is the probability flow by Euler's method.
        power: 1 cancels the 1 / gamma of the score; 0 is a constant epsilon.
        margin: skipped at both ends, in u.
    """

    steps: int = 250
    scale: float = 1.0
    power: float = 1.0
    margin: float = 1e-3

    @property
    def evaluations(self) -> int:
        """See `Solver.evaluations`."""
        return self.steps

    def solve(self, estimate: Estimator, gamma: Gamma, x: State, key: Key) -> State:
        """See `Solver.solve`; step i uses the key `fold_in(named(key, "walk"), i)`.

        Raises:
            UserError: there is no latent noise, hence no score.
        """
        if not gamma.noisy:
            raise UserError(
                "an interpolant without latent noise has no score: use the sampler ODE instead of SDE"
            )

        def body(x: Array, now: tuple[Array, Array, Array]) -> tuple[Array, None]:
            u, end, index = now
            (t, rate), h = derivative(time_change, u), u - end
            here, width = estimate(x, t), gamma.gamma(t)
            pull = rate * self.scale * width ** (self.power - 1.0)  # epsilon s dt/du = -pull eta
            noise = jax.random.normal(jax.random.fold_in(named(key, "walk"), index), x.shape, x.dtype)
            x = x - h * (drift(here, gamma, u) + pull * here.eta)
            return x + jnp.sqrt(2.0 * h * pull * width) * noise, None

        return jax.lax.scan(body, x, _grid(self.steps, self.margin, x))[0]


def log_prob(
    estimate: Estimator, gamma: Gamma, base: Base, likelihood: OdeLikelihood, x: State, key: Key
) -> Float[Array, " b"]:
    """log p_0(x) along the probability flow, in nats per example.

    Args:
        estimate: (x_t, t) -> estimates of v and eta; maps each example independently.
        gamma: the scale of the latent noise.
        base: the distribution at t = 1.
        likelihood: the solver over u; both ends inside (0, 1), power 1.
        x: data [b, ...].
        key: typed PRNG key of the trace's probes.

    Returns:
        The base's log-density at the end point of the flow plus the flow's log-determinant, in nats [b].
    """

    def flow(x: Array, u: Array) -> Prediction:
        return Prediction(x0=jnp.zeros_like(x), eps=drift(estimate(x, time_change(u)), gamma, u))

    end, log_det = likelihood.solve(flow, LINEAR_SIGMA, x, key)
    return base.log_density(end) + log_det
