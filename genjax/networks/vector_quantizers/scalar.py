"""Quantizers without a learned codebook: each feature is rounded independently.

FSQ  f(z)_i = half_i tanh(z_i + shift_i) - offset_i, rounded to one of L_i integers and divided by floor(L_i / 2);
     half_i = (L_i - 1)(1 + 1e-3) / 2, and for even L_i offset_i = 1/2, shift_i = artanh(offset_i / half_i), so that
     z = 0 is rounded to 0                            (Mentzer et al. 2024, arXiv:2309.15505, section 3.1 and appendix)
LFQ  sign(z_i)                                        (Yu et al. 2024, arXiv:2310.05737, eq. 3-5)
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array, Key, PyTree
from genjax.networks.vector_quantizers.base import Codes, Features, Quantized, Step, straight_through


@dataclass(frozen=True)
class FSQ:
    """Finite scalar quantization: no codebook, no cost, no dead codes.

    Feature i is bounded to L_i values by a scaled tanh and rounded.

    Attributes:
        levels: L_i of each feature, at least 2.
    """

    levels: tuple[int, ...] = (8, 8)

    @property
    def values(self) -> int:
        """prod L_i."""
        return math.prod(self.levels)

    @property
    def stack(self) -> int:
        """See `Quantizer.stack`."""
        return 1

    @property
    def features(self) -> int:
        """See `Quantizer.features`: the number of levels."""
        return len(self.levels)

    def init(self, key: Key, z: Features) -> tuple[PyTree, PyTree]:
        """No parameters and no state.

        Raises:
            UserError: a feature has fewer than 2 levels.
        """
        if min(self.levels) < 2:
            raise UserError(f"levels={self.levels} must be at least 2 each")
        return {}, {}

    def _along(self, values: list[int] | tuple[int, ...], like: Array) -> Array:
        return jnp.asarray(values, jnp.float32).reshape((1,) * (like.ndim - 1) + (-1,))

    def bounded(self, z: Features) -> Features:
        """f(z) before rounding to one of -floor(L / 2), ..., ceil(L / 2) - 1."""
        levels = self._along(self.levels, z)
        half = 0.5 * (levels - 1.0) * 1.001
        offset = 0.5 * (1.0 - levels % 2.0)
        return half * jnp.tanh(z + jnp.arctanh(offset / half)) - offset

    def quantize(self, params: PyTree, carried: PyTree, z: Features, key: Key, step: Step) -> Quantized:
        """See `Quantizer.quantize`."""
        y, middle = self.bounded(z), self._along([n // 2 for n in self.levels], z)
        rounded = jnp.round(y)
        codes = jnp.sum((rounded + middle) * self._along(self._places, z), axis=-1, keepdims=True)
        scaled = straight_through(y, rounded) / middle
        return Quantized(scaled, codes.astype(jnp.int32), jnp.zeros(()), carried)

    @property
    def _places(self) -> list[int]:
        """The place value of each feature in the mixed-radix code."""
        return [math.prod(self.levels[:i]) for i in range(len(self.levels))]

    def lookup(self, params: PyTree, carried: PyTree, codes: Codes) -> Features:
        """See `Quantizer.lookup`."""
        digits = [codes[..., 0] // p % n for p, n in zip(self._places, self.levels, strict=True)]
        return jnp.stack([d / (n // 2) - 1.0 for d, n in zip(digits, self.levels, strict=True)], axis=-1)


@dataclass(frozen=True)
class LFQ:
    """Lookup-free quantization: bit i of the code is [z_i > 0], the decoder's input is -1 or 1.

    The cost is commitment mean (z - sign z)^2 + entropy ( mean over positions of H(q) - H(mean over positions of q) ),
    in nats, q(code) proportional to exp(-|z - code|^2 / tau): confident assignments, and all codes in use (eq. 4-5).
    Needs memory for 2^bits numbers per position.

    Attributes:
        bits: log2 of the number of codes.
        commitment: its weight.
        entropy: its weight.
        tau: temperature of q.
    """

    bits: int = 6
    commitment: float = 0.25
    entropy: float = 0.1
    tau: float = 1.0

    @property
    def values(self) -> int:
        """2^bits."""
        return 2**self.bits

    @property
    def stack(self) -> int:
        """See `Quantizer.stack`."""
        return 1

    @property
    def features(self) -> int:
        """See `Quantizer.features`: one per bit."""
        return self.bits

    def init(self, key: Key, z: Features) -> tuple[PyTree, PyTree]:
        """No parameters and no state."""
        return {}, {}

    def table(self) -> Float[Array, "k d"]:
        """The decoder's input for all codes."""
        bits = jnp.arange(self.values)[:, None] >> jnp.arange(self.bits)[None]
        return 2.0 * (bits & 1).astype(jnp.float32) - 1.0

    def quantize(self, params: PyTree, carried: PyTree, z: Features, key: Key, step: Step) -> Quantized:
        """See `Quantizer.quantize`."""
        signs = jnp.where(z > 0, 1.0, -1.0)
        place = 2 ** jnp.arange(self.bits).reshape((1,) * (z.ndim - 1) + (-1,))
        codes = jnp.sum((z > 0) * place, axis=-1, keepdims=True).astype(jnp.int32)
        # -|z - code|^2 = 2 z code + a constant, as all codes have the same norm.
        log_q = jax.nn.log_softmax(2.0 / self.tau * z.reshape(-1, self.bits) @ self.table().T)
        each = -jnp.mean(jnp.sum(jnp.exp(log_q) * log_q, axis=1))
        mean = jnp.mean(jnp.exp(log_q), axis=0)
        diversity = -jnp.sum(mean * jnp.log(mean + 1e-9))
        cost = self.commitment * jnp.mean((z - signs) ** 2) + self.entropy * (each - diversity)
        return Quantized(straight_through(z, signs), codes, cost, carried)

    def lookup(self, params: PyTree, carried: PyTree, codes: Codes) -> Features:
        """See `Quantizer.lookup`."""
        return self.table()[codes[..., 0]]
