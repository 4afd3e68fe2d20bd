"""Bounds on the log-probability of tokens: the training losses of discrete diffusion.

-log p(x_0) <= E_{t, x_t} [ nats(x_0, x_t, t) ],        x_t ~ q(x_t | x_0).

ContinuousTime, for masks (Sahoo et al. 2024, MDLM, arXiv:2406.07524, eq. 10; Shi et al. 2024, MD4, arXiv:2406.04329,
eq. 5), with t uniform on (0, 1]:

    nats = - noise'(t) / noise(t) sum_{i masked} log p(x_0^i | x_t).

Its value does not depend on the schedule; the variance of its estimates does. It is the any-order autoregressive
negative log-likelihood averaged over orders, hence exactly -log p(x_0) where the p(x_0^i | x_t) are exact.

DiscreteTime, for any process (Austin et al. 2021, D3PM, arXiv:2107.03006, eq. 1), with t uniform on 1/T ... 1:

    nats = T KL( q(x_s | x_t, x_0) || p(x_s | x_t) ),    s = t - 1/T,

in which t = 1/T gives the reconstruction term -log p(x_0 | x_t); the prior term is 0 since noise(1) = 1.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array
from genjax.diffusion.discrete import Absorbing, LogProbs, TokenProcess, Tokens, log_at, one_hot_log
from genjax.diffusion.process import derivative

Times = Float[Array, " b"]


@runtime_checkable
class Bound(Protocol):
    """An upper bound on -log p(x_0), as an expectation over times. Implemented by frozen dataclasses."""

    @property
    def kind(self) -> str:
        """The time discretisation, for reports."""
        ...

    def time(self, u: Times) -> Times:
        """Maps uniform numbers in (0, 1] to times."""
        ...

    def nats(self, process: TokenProcess, x0: Tokens, x: Tokens, t: Times, log_p: LogProbs) -> Times:
        """The term of time t, whose mean over t and x_t is the bound.

        Args:
            process: the noising process.
            x0: clean tokens [b, ...].
            x: x_t, tokens at time t.
            t: times [b].
            log_p: log p(x_0 | x_t) [b, ..., K], summing to 1 at each position.

        Returns:
            Nats per example, at least 0.
        """
        ...


def _total(x: Float[Array, "b ..."]) -> Times:
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


@dataclass(frozen=True)
class ContinuousTime:
    """The continuous-time bound, for `Absorbing`."""

    @property
    def kind(self) -> str:
        """The time discretisation, for reports."""
        return "continuous time"

    def time(self, u: Times) -> Times:
        """u."""
        return u

    def nats(self, process: TokenProcess, x0: Tokens, x: Tokens, t: Times, log_p: LogProbs) -> Times:
        """Cross-entropy of the masked tokens, weighted by noise' / noise; see `Bound.nats`.

        Raises:
            UserError: the process is not `Absorbing`.
        """
        if not isinstance(process, Absorbing):
            raise UserError(
                f"ContinuousTime requires Absorbing, got {type(process).__name__}: use DiscreteTime"
            )
        noise, rate = derivative(process.noise, t)
        return -rate / noise * _total(jnp.where(process.masked(x), log_at(log_p, x0), 0.0))


@dataclass(frozen=True)
class DiscreteTime:
    """The bound of T steps, that of the sampler `TokenAncestral(steps=T)`.

    Attributes:
        steps: T.
    """

    steps: int = 1000

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"DiscreteTime: steps={self.steps} must be at least 1")

    @property
    def kind(self) -> str:
        """The time discretisation, for reports."""
        return f"{self.steps} steps"

    def time(self, u: Times) -> Times:
        """u, rounded up to a multiple of 1 / T."""
        return jnp.clip(jnp.ceil(u * self.steps), 1, self.steps) / self.steps

    def nats(self, process: TokenProcess, x0: Tokens, x: Tokens, t: Times, log_p: LogProbs) -> Times:
        """T KL( q(x_s | x_t, x_0) || p(x_s | x_t) ); see `Bound.nats`."""
        s = (jnp.round(t * self.steps) - 1.0) / self.steps
        log_q = process.log_backward(x, one_hot_log(x0, process.vocab).astype(log_p.dtype), t, s)
        possible = log_q > -jnp.inf
        gap = jnp.where(possible, log_q, 0.0) - jnp.where(possible, process.log_backward(x, log_p, t, s), 0.0)
        return self.steps * _total(jnp.exp(log_q) * gap)
