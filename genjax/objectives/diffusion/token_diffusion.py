"""Diffusion on tokens: masked diffusion (MDLM, MD4) and D3PM, by choice of process and bound.

    x_t ~ q(x_t | x_0),      loss = E_{x_0, t, x_t} [ nats(x_0, x_t, t) + hybrid * cross-entropy ],

nats per example, an upper bound on -log p(x_0); see `diffusion.token_bounds`. `Absorbing` with `ContinuousTime` is MDLM
(Sahoo et al. 2024, arXiv:2406.07524) and MD4 (Shi et al. 2024, arXiv:2406.04329); `Absorbing` or `UniformNoise` with
`DiscreteTime` is D3PM (Austin et al. 2021, arXiv:2107.03006), whose hybrid loss adds 0.001 times the cross-entropy
-log p(x_0 | x_t) (eq. 5).

Tokens are one-hot inputs, so that the first layer of any network is the embedding. The network gives logits for the K
clean values alone: MASK has probability 0, and unmasked tokens are kept, not predicted (MDLM's SUBS parameterisation).
The time t is an input only where p(x_0 | x_t) depends on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.conditioning.labels import condition_vector, training_vector
from genjax.core.arrays import sum_dims
from genjax.core.errors import UserError
from genjax.core.objective import Aux, Conditioner, Context, Network, Player, Sampling
from genjax.core.tree import tunable
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.diffusion.discrete import (
    LogProbs,
    TokenDenoise,
    TokenProcess,
    Tokens,
    classifier_free_tokens,
    log_at,
)
from genjax.diffusion.times import stratified
from genjax.diffusion.token_bounds import Bound, ContinuousTime
from genjax.objectives.common import check_shape
from genjax.samplers.scan import Sampler, sample, sampling_of
from genjax.samplers.tokens import TokenAncestral


@dataclass(frozen=True)
class TokenDiffusion:
    """Learns p(x_0 | x_t); samples by reversing the noising process step by step.

    Attributes:
        net: called as net(x, t or None, cond, out=shape, train=...) with x one-hot: [b, n, symbols] for sequences (n,),
            [b, h, w, c symbols] for images (h, w, c); gives logits in the same layout with K for `symbols`.
        shape: of one example.
        process: the noising process, with the number of values K of a token.
        bound: the training loss.
        condition: what the model is given beside x, such as `Labels`; None for an unconditional model.
        hybrid: weight of the cross-entropy of all tokens beside the bound.
        guidance: scale of classifier-free guidance in sampling; 1 is the conditional model.
        sampler: the sampler and its steps.
        draws: number of times per example in `log_prob`, stratified over (0, 1]; 0 disables the likelihood.
    """

    net: Network
    shape: tuple[int, ...]
    process: TokenProcess
    bound: Bound = ContinuousTime()
    condition: Conditioner | None = None
    hybrid: float = 0.0
    guidance: float = tunable(1.0)
    sampler: Sampler = tunable(TokenAncestral())
    draws: int = tunable(16)

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """One player, `net`.

        Raises:
            UserError: the batch does not match `shape`, or is not of integers.
        """
        check_shape(self.shape, batch, self.condition)
        x = batch["x"]
        if not jnp.issubdtype(x.dtype, jnp.integer):
            raise UserError("TokenDiffusion requires integer data: remove transforms such as Scale")
        cond = condition_vector(self.condition, batch, len(x))
        time = jnp.zeros(len(x)) if self.process.time_dependent else None
        inputs = self._one_hot(x)
        return {"net": self.net.init(key, inputs, time, cond, out=self._width(self.process.vocab))}, {}

    def players(self) -> Mapping[str, Player]:
        """One player, `net`."""
        return {"net": Player(self.loss)}

    def _width(self, values: int) -> tuple[int, ...]:
        """Shape of one example with an entry per value: a last axis for sequences, more channels for images."""
        if len(self.shape) == 1:
            return (*self.shape, values)
        return (*self.shape[:-1], self.shape[-1] * values)

    def _one_hot(self, x: Tokens) -> Float[Array, "b ..."]:
        """The network's input: one-hot tokens."""
        return jax.nn.one_hot(x, self.process.symbols).reshape(len(x), *self._width(self.process.symbols))

    def _log_p(self, params: Params, x: Tokens, t: Array, cond: Array | None, **options: Any) -> LogProbs:
        """log p(x_0 | x_t) [b, *shape, K] at times t [b]."""
        time, out = t if self.process.time_dependent else None, self._width(self.process.vocab)
        logits = self.net.apply(params["net"], self._one_hot(x), time, cond, out=out, **options)
        return jax.nn.log_softmax(logits.reshape(*x.shape, self.process.vocab))

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """The bound at one time per example plus `hybrid` times the cross-entropy; nats, mean over the batch."""
        x0 = batch["x"]
        t = self.bound.time(1.0 - stratified(named(ctx.key, "times"), len(x0)))
        x = self.process.corrupt(named(ctx.key, "noise"), x0, t)
        cond = training_vector(self.condition, batch, ctx)
        rngs = {"dropout": named(ctx.key, "dropout")}
        log_p = self._log_p(params, x, t, cond, train=ctx.train, rngs=rngs)
        bound = jnp.mean(self.bound.nats(self.process, x0, x, t, log_p))
        cross_entropy = -jnp.mean(sum_dims(log_at(log_p, x0)))
        return bound + self.hybrid * cross_entropy, Aux({"bound": bound, "cross_entropy": cross_entropy})

    def denoise(self, params: Params, cond: Batch | None = None) -> TokenDenoise:
        """The learned log p(x_0 | x_t), conditional on labels [b], or unconditional."""

        def log_p(x: Array, t: Array) -> Array:
            vector = condition_vector(self.condition, cond, len(x))
            return self._log_p(params, x, jnp.broadcast_to(t, (len(x),)), vector)

        return log_p

    @property
    def sampling(self) -> Sampling:
        """The sampler's."""
        return sampling_of(self.sampler)

    def sample(self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None) -> Tokens:
        """Samples from the prior with the sampler, guided if a label is given; int32."""
        return self._run_sampler(params, key, num, cond, trace=False)

    def path(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> tuple[Float[Array, " n"], Int[Array, "n b ..."]]:
        """The time grid [n], and the states of `sample` [n, b, ...]; MASK is `vocab`."""
        return self.sampler.times(self.process), self._run_sampler(params, key, num, cond, trace=True)

    def _run_sampler(self, params: Params, key: Key, num: int, cond: Batch | None, trace: bool) -> Array:
        cond = cond if self.condition else None
        denoise = self.denoise(params, cond)
        if cond is not None:
            denoise = classifier_free_tokens(denoise, self.denoise(params), self.guidance)
        shape = (num, *self.shape)
        start = self.process.prior(named(key, "prior"), shape)
        return sample(denoise, self.process, self.sampler, key, shape, start=start, trace=trace)

    @property
    def log_prob_kind(self) -> str:
        """The bound and the number of times of its estimate; empty if `draws` is 0."""
        return f"lower bound (ELBO, {self.bound.kind}, {self.draws} times)" if self.draws else ""

    def log_prob(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Float[Array, " b"]:
        """Unbiased estimate of the bound on log p(x), or log p(x | label), in nats per example."""
        x0, denoise = batch["x"], self.denoise(params, batch)

        def term(stratum: Array) -> Array:
            now = jax.random.fold_in(key, stratum)
            u = stratum + 1.0 - jax.random.uniform(named(now, "times"), (len(x0),))
            t = self.bound.time(u / self.draws)
            x = self.process.corrupt(named(now, "noise"), x0, t)
            return -self.bound.nats(self.process, x0, x, t, denoise(x, t))

        return jnp.mean(jax.lax.map(term, jnp.arange(self.draws)), axis=0)
