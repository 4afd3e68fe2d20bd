"""Categorical codes with the Gumbel-softmax relaxation: sum_k y_k e_k with y = softmax((z + Gumbel noise) / tau).

(Jang et al. 2017, arXiv:1611.01144, eq. 2.) The features z are the logits of q.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.types import Array, Key, PyTree
from genjax.networks.vector_quantizers.base import Codes, Features, Quantized, Step, straight_through


@dataclass(frozen=True)
class Gumbel:
    """Gumbel-softmax quantization: the features are logits of the codes.

    The cost is weight times the mean over positions of KL(q || uniform); for the ELBO of a loss in nats per dimension,
    weight is the number of positions over the number of dimensions.

    Attributes:
        values: K.
        width: D of the codes.
        weight: of the KL.
        first: initial tau.
        last: final tau, reached by exponential decay.
        steps: of the decay.
        hard: pass a one-hot code to the decoder, straight-through, in training too.
    """

    values: int = 64
    width: int = 8
    weight: float = 0.01
    first: float = 1.0
    last: float = 0.3
    steps: int = 1000
    hard: bool = False

    @property
    def stack(self) -> int:
        """See `Quantizer.stack`."""
        return 1

    @property
    def features(self) -> int:
        """See `Quantizer.features`: one logit per value."""
        return self.values

    def temperature(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """tau = first (last / first)^(step / steps), then `last`."""
        share = jnp.minimum(1.0, step.astype(jnp.float32) / self.steps)
        return self.first * (self.last / self.first) ** share

    def init(self, key: Key, z: Features) -> tuple[PyTree, PyTree]:
        """The codebook [K, D]."""
        return {"codebook": jax.random.normal(key, (self.values, self.width))}, {}

    def quantize(self, params: PyTree, carried: PyTree, z: Features, key: Key, step: Step) -> Quantized:
        """See `Quantizer.quantize`; in evaluation the most likely code, without noise."""
        log_q = jax.nn.log_softmax(z)
        kl = jnp.mean(jnp.sum(jnp.exp(log_q) * log_q, axis=-1)) + math.log(self.values)
        noisy = z if step is None else z + jax.random.gumbel(key, z.shape)
        codes = jnp.argmax(noisy, axis=-1).astype(jnp.int32)
        weights = jax.nn.one_hot(codes, self.values)
        if step is not None:
            soft = jax.nn.softmax(noisy / self.temperature(step))
            weights = straight_through(soft, weights) if self.hard else soft
        return Quantized(weights @ params["codebook"], codes[..., None], self.weight * kl, carried)

    def lookup(self, params: PyTree, carried: PyTree, codes: Codes) -> Features:
        """See `Quantizer.lookup`."""
        return params["codebook"][codes[..., 0]]
