"""Bounds on the log-probability of tokens: what a diffusion on tokens is trained by.

-log p(x_0) <= E_{t, x_t} [ nats(x_0, x_t, t) ],        x_t ~ q(x_t | x_0).

ContinuousTime, for masks (Sahoo et al. 2024, MDLM, arXiv:2406.07524, eq. 10; Shi et al. 2024, MD4, arXiv:2406.04329,
eq. 5), with t uniform on (0, 1]:

    nats = - noise'(t) / noise(t) sum_{i masked} log p(x_0^i | x_t).

Its value does not depend on the schedule, only its variance does. It is the mean over all orders of the any-order
autoregressive log-likelihood, hence -log p(x_0) itself where the p(x_0^i | x_t) are exact.

DiscreteTime, for any process (Austin et al. 2021, D3PM, arXiv:2107.03006, eq. 1), with t uniform on 1/T ... 1:

    nats = T KL( q(x_s | x_t, x_0) || p(x_s | x_t) ),    s = t - 1/T,

in which t = 1/T gives the reconstruction -log p(x_0 | x_t), and the prior's term is 0 by the schedule.
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
    """An upper bound on -log p(x_0) by an average over times. Implemented by frozen dataclasses."""

    @property
    def kind(self) -> str:
        """How time goes, in words."""
        ...

    def time(self, u: Times) -> Times:
        """The time that belongs to a uniform number in (0, 1]."""
        ...

    def nats(self, process: TokenProcess, x0: Tokens, x: Tokens, t: Times, log_p: LogProbs) -> Times:
        """The term of time t, whose mean over t and x_t is the bound.

        Args:
            process: of the noise.
            x0: clean tokens.
            x: tokens at time t.
            t: [b].
            log_p: log p(x_0 | x_t) [b, ..., K], summing to 1 at each position.

        Returns:
            Nats per example, at least 0.
        """
        ...


def _total(x: Float[Array, "b ..."]) -> Times:
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


@dataclass(frozen=True)
class ContinuousTime:
    """The bound of infinitely many steps, for `Absorbing`."""

    @property
    def kind(self) -> str:
        """How time goes."""
        return "continuous time"

    def time(self, u: Times) -> Times:
        """u."""
        return u

    def nats(self, process: TokenProcess, x0: Tokens, x: Tokens, t: Times, log_p: LogProbs) -> Times:
        """Cross-entropy of the masked tokens, by noise' / noise.

        Raises:
            UserError: the process has no masks.
        """
        if not isinstance(process, Absorbing):
            raise UserError(
                f"ContinuousTime is for Absorbing, not {type(process).__name__}: use DiscreteTime"
            )
        noise, rate = derivative(process.noise, t)
        return -rate / noise * _total(jnp.where(process.masked(x), log_at(log_p, x0), 0.0))


@dataclass(frozen=True)
class DiscreteTime:
    """The bound of T steps, which `TokenAncestral(steps=T)` samples from.

    Attributes:
        steps: T.
    """

    steps: int = 1000

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"DiscreteTime: steps={self.steps} must be at least 1")

    @property
    def kind(self) -> str:
        """How time goes."""
        return f"{self.steps} steps"

    def time(self, u: Times) -> Times:
        """u, rounded up to a multiple of 1 / T."""
        return jnp.clip(jnp.ceil(u * self.steps), 1, self.steps) / self.steps

    def nats(self, process: TokenProcess, x0: Tokens, x: Tokens, t: Times, log_p: LogProbs) -> Times:
        """T KL( q(x_s | x_t, x_0) || p(x_s | x_t) )."""
        s = (jnp.round(t * self.steps) - 1.0) / self.steps
        log_q = process.log_backward(x, one_hot_log(x0, process.vocab).astype(log_p.dtype), t, s)
        possible = log_q > -jnp.inf
        gap = jnp.where(possible, log_q, 0.0) - jnp.where(possible, process.log_backward(x, log_p, t, s), 0.0)
        return self.steps * _total(jnp.exp(log_q) * gap)
