"""Samplers of tokens: steps from x_t to x_s for `scan.sample`, starting from `process.prior`.

TokenAncestral draws each position from p(x_s | x_t) (Austin et al. 2021, arXiv:2107.03006; for masks Sahoo et al. 2024,
arXiv:2406.07524, sec. 3.2.3). Positions are drawn independently of each other, which is exact in the limit of many
steps; with few steps many dependent tokens are revealed at once.

Confidence (MaskGIT, Chang et al. 2022, arXiv:2202.04200, sec. 3.2) fixes how many of n tokens are masked at time s,
floor(n noise(s)), and reveals the draws of highest confidence first. With much noise on the confidence the
order is random; then one token per step is exact any-order sampling.

Categorical draws use Gumbel noise of high dynamic range: float32 noise with the usual bits is truncated, which
silently sharpens the distribution (Zheng et al. 2024, arXiv:2409.02908).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.row_keys import categorical
from genjax.core.types import Array, Key, named
from genjax.diffusion.discrete import Absorbing, LogProbs, TokenDenoise, TokenProcess, Tokens, log_at
from genjax.samplers.scan import SamplerState


def nucleus(log_p: LogProbs, top_p: float) -> LogProbs:
    """Keeps the smallest set of values whose probability reaches `top_p` (Holtzman et al. 2019, arXiv:1904.09751)."""
    order = jnp.argsort(-log_p, axis=-1)
    ranked = jnp.exp(jnp.take_along_axis(log_p, order, axis=-1))
    before = jnp.cumsum(ranked, axis=-1) - ranked
    kept = jnp.take_along_axis(before, jnp.argsort(order, axis=-1), axis=-1) < top_p
    return jax.nn.log_softmax(jnp.where(kept, log_p, -jnp.inf))


@dataclass(frozen=True)
class _Tokens:
    """Base of both samplers.

    Attributes:
        steps: evaluations of the denoiser, at times 1, 1 - 1 / steps, ... 1 / steps.
        temperature: p(x_0 | x_t) is raised to the power 1 / temperature and normalised; 1 is the model.
        top_p: draws only from the most probable values of this total probability; 1 is the model.
    """

    steps: int = 64
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.temperature <= 0.0 or not 0.0 < self.top_p <= 1.0:
            raise UserError(
                f"steps={self.steps} must be at least 1, temperature={self.temperature} positive and "
                f"top_p={self.top_p} in (0, 1]"
            )

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the denoiser per sample."""
        return self.steps

    def times(self, process: TokenProcess) -> Float[Array, " n"]:
        """Equal steps from 1 to 0; the process's schedule sets how many tokens change in each."""
        return jnp.linspace(1.0, 0.0, self.steps + 1)

    def init(self, x: Tokens) -> SamplerState:
        """The initial state, without memory."""
        return SamplerState(x=x)

    def _sharpened(self, log_p: LogProbs) -> LogProbs:
        if self.temperature != 1.0:
            log_p = jax.nn.log_softmax(log_p / self.temperature)
        return log_p if self.top_p == 1.0 else nucleus(log_p, self.top_p)


def draw(key: Key, log_p: LogProbs) -> Tokens:
    """One value at each position, int32."""
    return categorical(key, log_p)


@dataclass(frozen=True)
class TokenAncestral(_Tokens):
    """Draws from p(x_s | x_t) = sum_{x_0} q(x_s | x_t, x_0) p(x_0 | x_t) at each position."""

    def step(
        self, denoise: TokenDenoise, process: TokenProcess, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """One evaluation; see `Sampler.step`."""
        log_p = self._sharpened(denoise(state.x, t))
        return SamplerState(x=draw(named(key, "tokens"), process.log_backward(state.x, log_p, t, s)))


@dataclass(frozen=True)
class Confidence(_Tokens):
    """Reveals the tokens of highest confidence first, for `Absorbing`.

    Attributes:
        choice: randomness of the order: Gumbel noise times `choice` t is added to log p of the draws.
    """

    choice: float = 4.5

    def step(
        self, denoise: TokenDenoise, process: TokenProcess, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """One evaluation; see `Sampler.step`.

        Raises:
            UserError: the process is not `Absorbing`.
        """
        if not isinstance(process, Absorbing):
            raise UserError(f"Confidence is for Absorbing, not {type(process).__name__}: use TokenAncestral")
        x = state.x
        log_p = self._sharpened(denoise(x, t))
        drawn, masked = draw(named(key, "tokens"), log_p), process.masked(x)
        chance = self.choice * t * jax.random.gumbel(named(key, "order"), x.shape, log_p.dtype)
        confidence = jnp.where(masked, log_at(log_p, drawn) + chance, jnp.inf).reshape(len(x), -1)
        rank = jnp.argsort(jnp.argsort(confidence, axis=-1), axis=-1)  # 0 is the lowest confidence
        hidden = jnp.floor(rank.shape[-1] * process.noise(s) + 1e-4)
        again = (rank < hidden).reshape(x.shape)
        return SamplerState(x=jnp.where(again, process.vocab, jnp.where(masked, drawn, x)))
