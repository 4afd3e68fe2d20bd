"""Noising processes on tokens: each position independently keeps its token or has it replaced.

With K values, noise(t) = 1 - alpha(t) the probability that a token has been replaced by time t, and pi the
distribution of the replacement,

    q(x_t | x_0) = alpha(t) [x_t = x_0] + noise(t) pi(x_t),
    q(x_t | x_s) = a [x_t = x_s] + (1 - a) pi(x_t),          a = alpha(t) / alpha(s),  s < t.

These are the cumulative products of D3PM's transition matrices (Austin et al. 2021, arXiv:2107.03006, app. A.2)
and their continuous-time limits, in closed form: `Absorbing` puts pi on an extra symbol, MASK = K; `UniformNoise`
has pi = 1 / K. Where a network estimates p(x_0 | x_t) at each position, the reverse transition is

    p(x_s | x_t) = sum_{x_0} q(x_s | x_t, x_0) p(x_0 | x_t),
    q(x_s | x_t, x_0) = q(x_t | x_s) q(x_s | x_0) / q(x_t | x_0).

D3PM's eq. 4 sums q(x_s, x_t | x_0) p(x_0 | x_t) instead. For `Absorbing` the two agree; otherwise only the sum above
gives the true reverse transition for the true p(x_0 | x_t), so that bound and cross-entropy share their optimum.

A schedule has noise(0) = 0 and noise(1) = 1: x_0 is intact at t = 0 and carries no information at t = 1, so neither
end adds a term to a bound.
"""

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.errors import UserError
from genjax.core.types import Array, Key, named
from genjax.diffusion.process import Time, expand

Tokens = Int[Array, "b ..."]
LogProbs = Float[Array, "b ... _"]  # over the values of each position, in nats
TokenDenoise = Callable[[Array, Array], Array]  # (x_t [b, ...], t scalar) -> log p(x_0 | x_t) [b, ..., K]


@runtime_checkable
class Schedule(Protocol):
    """The noise schedule: the probability of replacement as a function of time."""

    def noise(self, t: Time) -> Time:
        """1 - alpha(t), increasing from exactly 0 at t = 0 to 1 at t = 1, with small relative error near 0."""
        ...


@dataclass(frozen=True)
class Polynomial:
    """noise = t^power; power 1 is MDLM's log-linear schedule and D3PM's 1 / (T - t + 1) for masks.

    Sahoo et al. 2024 (arXiv:2406.07524, app. E.1); Shi et al. 2024 (arXiv:2406.04329, table 1).
    """

    power: float = 1.0

    def noise(self, t: Time) -> Time:
        """t^power."""
        return t**self.power


@dataclass(frozen=True)
class CosineNoise:
    """noise = sin(pi t / 2): MaskGIT's cosine (Chang et al. 2022, arXiv:2202.04200; Shi et al. 2024, table 1)."""

    def noise(self, t: Time) -> Time:
        """sin(pi t / 2)."""
        return jnp.sin(0.5 * math.pi * t)


@dataclass(frozen=True)
class Geometric:
    """-log alpha in proportion to low^(1 - t) high^t (Shi et al. 2024, table 1), mapped onto alpha from 1 to 0.

    Attributes:
        low: -log alpha before the mapping, at t = 0.
        high: the same at t = 1.
    """

    low: float = 1e-3
    high: float = 20.0

    def noise(self, t: Time) -> Time:
        """(e^-low - e^-r(t)) / (e^-low - e^-high), r(t) = low (high / low)^t."""
        rise = self.low * jnp.expm1(t * math.log(self.high / self.low))
        return jnp.expm1(-rise) / math.expm1(self.low - self.high)


def one_hot_log(x: Tokens, values: int) -> LogProbs:
    """log [j = x] for j = 0 ... values - 1: 0 or -infinity, float32."""
    return jnp.where(jax.nn.one_hot(x, values, dtype=bool), 0.0, -jnp.inf)


def log_at(log_p: LogProbs, x0: Tokens) -> Float[Array, "b ..."]:
    """log p(x_0) at each position, gathered from the log-probabilities of all values."""
    return jnp.take_along_axis(log_p, x0[..., None], axis=-1)[..., 0]


@dataclass(frozen=True)
class TokenProcess(abc.ABC):
    """Base class of the two processes; times are scalars or [b].

    Attributes:
        vocab: K, the number of values of a clean token: 0 ... K - 1.
        schedule: noise(t).
    """

    vocab: int
    schedule: Schedule = Polynomial()

    def __post_init__(self) -> None:
        if self.vocab < 2:
            raise UserError(f"vocab={self.vocab} must be at least 2: the number of values of a token")

    @property
    @abc.abstractmethod
    def symbols(self) -> int:
        """Number of values of a noisy token x_t."""

    @property
    @abc.abstractmethod
    def time_dependent(self) -> bool:
        """Whether p(x_0 | x_t) depends on t, given x_t."""

    @abc.abstractmethod
    def prior(self, key: Key, shape: tuple[int, ...]) -> Tokens:
        """Samples x_1: independent draws from pi at every position, int32."""

    @abc.abstractmethod
    def log_backward(self, x: Tokens, log_p: LogProbs, t: Time, s: Time) -> LogProbs:
        """The log-probabilities of the reverse transition from t to s.

        Args:
            x: x_t [b, ...], int32.
            log_p: log p(x_0 | x_t) [b, ..., K]. With `one_hot_log(x0, K)` the result is log q(x_s | x_t, x_0), where
                q(x_t | x_0) > 0.
            t: the current time, a scalar or [b].
            s: the earlier time, as t.

        Returns:
            log p(x_s | x_t) [b, ..., symbols], in nats.
        """

    def noise(self, t: Time) -> Time:
        """Probability that a token has been replaced by time t."""
        return self.schedule.noise(t)

    def corrupt(self, key: Key, x0: Tokens, t: Time) -> Tokens:
        """Samples x_t from q(x_t | x_0).

        Args:
            key: typed PRNG key.
            x0: clean tokens [b, ...].
            t: one time per example [b], or a scalar.

        Returns:
            x_t, int32, shaped as x0.
        """
        u = jax.random.uniform(named(key, "gone"), x0.shape)
        return jnp.where(u < expand(self.noise(t), u), self.prior(named(key, "symbols"), x0.shape), x0)


@dataclass(frozen=True)
class Absorbing(TokenProcess):
    """Tokens become MASK = K and stay masked: masked diffusion.

    p(x_0 | x_t) depends on the unmasked tokens alone, not on t (Ou et al. 2024, arXiv:2406.03736, theorem 1).
    """

    @property
    def symbols(self) -> int:
        """K + 1."""
        return self.vocab + 1

    @property
    def time_dependent(self) -> bool:
        """False."""
        return False

    def masked(self, x: Tokens) -> Array:
        """Which tokens are masked, bool."""
        return x == self.vocab

    def prior(self, key: Key, shape: tuple[int, ...]) -> Tokens:
        """MASK at every position."""
        return jnp.full(shape, self.vocab, jnp.int32)

    def log_backward(self, x: Tokens, log_p: LogProbs, t: Time, s: Time) -> LogProbs:
        """A mask stays with probability noise(s) / noise(t), else becomes x_0; unmasked tokens stay."""
        stay = expand(self.noise(s) / self.noise(t), log_p)
        mask = jnp.broadcast_to(jnp.log(stay), (*x.shape, 1)).astype(log_p.dtype)
        revealed = jnp.concatenate([log_p + jnp.log1p(-stay), mask], axis=-1)
        return jnp.where(self.masked(x)[..., None], revealed, one_hot_log(x, self.symbols))


@dataclass(frozen=True)
class UniformNoise(TokenProcess):
    """Tokens are replaced by one of the K values, uniformly (Hoogeboom et al. 2021, arXiv:2102.05379)."""

    @property
    def symbols(self) -> int:
        """K."""
        return self.vocab

    @property
    def time_dependent(self) -> bool:
        """True: the probability that a token is still x_0 depends on t."""
        return True

    def prior(self, key: Key, shape: tuple[int, ...]) -> Tokens:
        """Uniform on 0 ... K - 1."""
        return jax.random.randint(key, shape, 0, self.vocab)

    def log_backward(self, x: Tokens, log_p: LogProbs, t: Time, s: Time) -> LogProbs:
        """log q(x_t | x_s) + log sum_{x_0} q(x_s | x_0) w(x_0), w = p(x_0 | x_t) / q(x_t | x_0)."""
        here = jax.nn.one_hot(x, self.vocab, dtype=bool)

        def transition(noise: Array) -> Array:
            """log ((1 - noise) [x_t = j] + noise / K) for all j."""
            noise = expand(noise, log_p)
            return jnp.where(here, jnp.log1p(noise / self.vocab - noise), jnp.log(noise / self.vocab))

        noise_t, noise_s = self.noise(t), self.noise(s)
        weight = log_p - transition(noise_t)
        total = jax.nn.logsumexp(weight, axis=-1, keepdims=True)
        noise = expand(noise_s, log_p)
        sources = jnp.logaddexp(jnp.log1p(-noise) + weight, jnp.log(noise / self.vocab) + total)
        return transition((noise_t - noise_s) / (1.0 - noise_s)) + sources


def classifier_free_tokens(
    conditional: TokenDenoise, unconditional: TokenDenoise, scale: float
) -> TokenDenoise:
    """Classifier-free guidance on log-probabilities, renormalised at each position.

    p ~ p(x_0 | x_t) (p(x_0 | x_t, c) / p(x_0 | x_t))^scale (Schiff et al. 2024, arXiv:2412.10193, sec. 3).

    Args:
        conditional: denoiser given the condition.
        unconditional: denoiser without the condition.
        scale: 0 gives the unconditional model and 1 the conditional one, exactly and with one evaluation.

    Returns:
        The guided denoiser.
    """
    if scale in (0.0, 1.0):
        return conditional if scale else unconditional

    def guided(x: Array, t: Array) -> Array:
        given, free = conditional(x, t), unconditional(x, t)
        return jax.nn.log_softmax(free + scale * (given - free))

    return guided
