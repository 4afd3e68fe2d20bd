"""One block of a transformer: attention among positions, then a perceptron at each; see `transformer`."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from genjax.core.errors import UserError
from genjax.core.sharding_rules import BATCH, constrain, even_splits
from genjax.core.types import Array
from genjax.networks.layers import kv_cache, ops, positions
from genjax.networks.layers.blocks import Embedding
from genjax.networks.layers.linen import Dense, Norm, zeros
from genjax.networks.transformers.experts import Experts, Form, Mixture, Perceptron, matrix_init

Angles = Float[Array, "n pairs"] | Float[Array, "b n pairs"] | None
Mask = Bool[Array, "b n n"] | None


def ada_norm(
    kind: Literal["layer", "rms"], name: str, x: Array, modulation: Array | None, epsilon: float = 1e-6
) -> Array:
    """norm(x) (1 + s) + m for x [b, n, c] and modulation (m, s) [b, 2, c].

    Must be called inside a compact method; the norm becomes its submodule.

    Args:
        kind: which normalisation.
        name: name of the norm's submodule.
        x: features [b, n, c].
        modulation: (m, s), or None for a norm with its own scale.
        epsilon: added to the variance.

    Returns:
        [b, n, c] in the dtype of x.
    """
    y = Norm(kind, affine=modulation is None, epsilon=epsilon, name=name)(x)
    if modulation is None:
        return y
    shift, scale = ops.wide(modulation[:, None, 0]), ops.wide(modulation[:, None, 1])
    return (ops.wide(y) * (1 + scale) + shift).astype(x.dtype)


class Block(nn.Module):
    """One block: attention, then a perceptron for each position.

    Attributes:
        heads: number of attention heads; divides the width.
        groups: number of heads of keys and values, each shared by heads / groups heads of queries (GQA, Ainslie et al.
            2023, arXiv:2305.13245); 0 for as many as heads.
        hidden: features inside the perceptron.
        mlp: form of the perceptron, see `experts.Perceptron`.
        experts: a mixture of experts instead of the perceptron, or None.
        norm: which normalisation.
        qk_norm: normalise queries and keys of each head (Henry et al. 2020; "rms" with a scale).
        causal: position i sees positions j <= i only.
        window: number of positions, its own included, that each one sees; 0 for all. Requires `causal`.
        bias: whether the matrices of attention and perceptron have biases.
        residual: factor on the initial variance of the matrices before each residual sum.
        dropout: probability of dropping a feature before each residual sum, in training.
        epsilon: added to the variance by the norms.
        init_std: standard deviation of the matrices' initial values; 0 for variance-preserving ones.
        dtype: in which products are computed; norms, softmax and modulation are float32.
    """

    heads: int = 4
    groups: int = 0
    hidden: int = 512
    mlp: Form = "gelu"
    experts: Mixture | None = None
    norm: Literal["layer", "rms"] = "layer"
    qk_norm: bool = False
    causal: bool = False
    window: int = 0
    bias: bool = True
    residual: float = 1.0
    dropout: float = 0.0
    epsilon: float = 1e-6
    init_std: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n c"],
        e: Embedding = None,
        angles: Angles = None,
        mask: Mask = None,
        train: bool = False,
        memory: kv_cache.Layer | None = None,
        update: kv_cache.CacheUpdate | None = None,
    ) -> Any:
        """Applies the block.

        Args:
            x: features of each position.
            e: conditioning vector, or None for a block without adaLN.
            angles: rotary positions, see `positions.angles`.
            mask: visible positions, see `ops.attention`.
            train: whether dropout is on.
            memory: cached keys and values of earlier positions, for incremental decoding; or None.
            update: slots and mask of x's positions, see `kv_cache.advance`.

        Returns:
            The new features [b, n, c], in `dtype`; with `memory`: (features, memory).

        Raises:
            UserError: `heads` does not divide the width, or `groups` the heads.
        """
        x = constrain(x.astype(self.dtype), BATCH, "sequence", None)
        modulations: list[Array | None] = [None] * 2
        gates: list[Array | None] = [None] * 2
        if e is not None:
            modulation = Dense(6 * x.shape[-1], dtype=self.dtype, kernel_init=zeros, name="modulate")(
                jax.nn.silu(e)
            )
            modulation = ops.wide(modulation).reshape(x.shape[0], 2, 3, x.shape[-1])
            modulations, gates = (
                [modulation[:, i, :2] for i in range(2)],
                [modulation[:, i, 2] for i in range(2)],
            )
        h = ada_norm(self.norm, "norm1", x, modulations[0], self.epsilon)
        h, memory = self._attention(h, angles, mask, memory, update)
        x = self._add(x, h, gates[0], train)
        h = ada_norm(self.norm, "norm2", x, modulations[1], self.epsilon)
        x = self._add(x, self._perceptron(h, train), gates[1], train)
        return x if memory is None else (x, memory)

    def _dense(self, features: int, name: str, factor: float = 1.0, **options: Any) -> Dense:
        return Dense(
            features, self.bias, self.dtype, matrix_init(self.init_std, factor), name=name, **options
        )

    def _add(self, x: Array, h: Array, gate: Array | None, train: bool) -> Array:
        """x + gate * dropout(h); the gate's gradient sums over positions, so it is float32."""
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        return x + (h if gate is None else (ops.wide(h) * gate[:, None]).astype(h.dtype))

    def _attention(
        self,
        h: Array,
        angles: Angles,
        mask: Mask,
        memory: kv_cache.Layer | None,
        update: kv_cache.CacheUpdate | None,
    ) -> tuple[Array, kv_cache.Layer | None]:
        b, n, c = h.shape
        groups = self.groups or self.heads
        if c % self.heads or self.heads % groups:
            raise UserError(
                f"heads={self.heads} must divide the width {c}, and groups={self.groups} must divide the heads"
            )
        d = c // self.heads
        parts, ways = (self.heads * d, groups * d, groups * d), even_splits("tensor", self.heads, groups)
        qkv = self._dense(sum(parts), "qkv", shares=ways, parts=parts)(h).reshape(b, n, ways, -1, d)
        borders = (self.heads // ways, (self.heads + groups) // ways)
        q, k, v = (z.reshape(b, n, -1, d) for z in jnp.split(qkv, borders, axis=3))
        if self.qk_norm:
            q, k = (
                Norm("rms", epsilon=self.epsilon, name=f"{name}_norm")(z) for name, z in (("q", q), ("k", k))
            )
        if angles is not None:
            q, k = positions.rotate(q, angles), positions.rotate(k, angles)
        q = constrain(q, BATCH, "sequence", "tensor", None)
        k, v = (constrain(z, BATCH, None, "tensor", None) for z in (k, v))
        if memory is not None and update is not None:
            h, memory = kv_cache.attend(q, k, v, memory, update)
        else:
            h = ops.attention(q, k, v, causal=self.causal, mask=mask, window=self.window)
        h = constrain(h.reshape(b, n, c), BATCH, "sequence", "tensor")
        return self._dense(c, "out", self.residual, rows=True)(h), memory

    def _perceptron(self, h: Array, train: bool) -> Array:
        form = (self.hidden, self.mlp, self.bias, self.residual, self.init_std, self.dtype)
        if self.experts is not None:
            return Experts(*form, self.experts, name="experts")(h, train)
        perceptron = Perceptron(*form)
        nn.share_scope(self, perceptron)  # its parameters belong to the block
        return perceptron(h)
