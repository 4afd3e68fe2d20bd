"""One block of a transformer: attention among places, then a perceptron at each; see `transformer`."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from genjax.core.errors import UserError
from genjax.core.sharding_rules import BATCH, constrain, shares
from genjax.core.types import Array
from genjax.networks.layers import kv_cache, ops, positions
from genjax.networks.layers.blocks import Embedding
from genjax.networks.layers.linen import Dense, Norm, zeros
from genjax.networks.transformers.experts import Experts, Form, Mixture, Perceptron, matrix_init

Angles = Float[Array, "n pairs"] | Float[Array, "b n pairs"] | None
Mask = Bool[Array, "b n n"] | None


def ada_norm(
    kind: Literal["layer", "rms"], name: str, x: Array, move: Array | None, epsilon: float = 1e-6
) -> Array:
    """norm(x) (1 + s) + m for x [b, n, c] and move = (m, s) [b, 2, c]; without it a norm with its own scale.

    To be called inside a compact method, of which the norm becomes a part.
    """
    y = Norm(kind, affine=move is None, epsilon=epsilon, name=name)(x)
    if move is None:
        return y
    shift, scale = ops.wide(move[:, None, 0]), ops.wide(move[:, None, 1])
    return (ops.wide(y) * (1 + scale) + shift).astype(x.dtype)


class Block(nn.Module):
    """One block: attention, then a perceptron for each position.

    Attributes:
        heads: attention heads; divides the width.
        groups: heads of keys and values, each shared by heads / groups heads of queries (GQA, Ainslie et al. 2023,
            arXiv:2305.13245); 0 for as many as heads.
        hidden: features inside the perceptron.
        mlp: form of the perceptron, see `experts.Perceptron`.
        experts: a mixture of perceptrons in place of the one.
        norm: which normalisation.
        qk_norm: normalise queries and keys of each head (Henry et al. 2020; "rms" with a scale).
        causal: position i sees positions j <= i only.
        window: how many positions, its own included, each one sees back; 0 for all. Needs `causal`.
        bias: whether the matrices of attention and perceptron have biases.
        residual: variance of the initial values of what is added to x, relative to one without this factor.
        dropout: probability of dropping a feature of what is added to x, in training.
        epsilon: added to the variance by the norms.
        init_std: standard deviation of the matrices' initial values; 0 keeps the variance of their inputs.
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
        turn: kv_cache.Turn | None = None,
    ) -> Any:
        """Applies the block.

        Args:
            x: features of each position.
            e: conditioning vector, or None for a block without adaLN.
            angles: rotary positions, see `positions.angles`.
            mask: which positions each one sees, see `ops.attention`.
            train: whether dropout is on.
            memory: keys and values of earlier positions, for a block that walks.
            turn: where x belongs among them.

        Returns:
            The new features [b, n, c], in `dtype`; of a block that walks (features, memory).

        Raises:
            UserError: `heads` does not divide the width, or `groups` the heads.
        """
        x = constrain(x.astype(self.dtype), BATCH, "sequence", None)
        moves: list[Array | None] = [None] * 2
        gates: list[Array | None] = [None] * 2
        if e is not None:
            move = Dense(6 * x.shape[-1], dtype=self.dtype, kernel_init=zeros, name="modulate")(
                jax.nn.silu(e)
            )
            move = ops.wide(move).reshape(x.shape[0], 2, 3, x.shape[-1])
            moves, gates = [move[:, i, :2] for i in range(2)], [move[:, i, 2] for i in range(2)]
        h = ada_norm(self.norm, "norm1", x, moves[0], self.epsilon)
        h, memory = self._attention(h, angles, mask, memory, turn)
        x = self._add(x, h, gates[0], train)
        h = ada_norm(self.norm, "norm2", x, moves[1], self.epsilon)
        x = self._add(x, self._perceptron(h, train), gates[1], train)
        return x if memory is None else (x, memory)

    def _dense(self, features: int, name: str, factor: float = 1.0, **dealt: Any) -> Dense:
        return Dense(features, self.bias, self.dtype, matrix_init(self.init_std, factor), name=name, **dealt)

    def _add(self, x: Array, h: Array, gate: Array | None, train: bool) -> Array:
        """x + gate * dropout(h); the way back to the gate sums over positions, so it is float32."""
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        return x + (h if gate is None else (ops.wide(h) * gate[:, None]).astype(h.dtype))

    def _attention(
        self, h: Array, angles: Angles, mask: Mask, memory: kv_cache.Layer | None, turn: kv_cache.Turn | None
    ) -> tuple[Array, kv_cache.Layer | None]:
        b, n, c = h.shape
        groups = self.groups or self.heads
        if c % self.heads or self.heads % groups:
            raise UserError(
                f"heads={self.heads} must divide the width {c}, and groups={self.groups} must divide the heads"
            )
        d = c // self.heads
        parts, ways = (self.heads * d, groups * d, groups * d), shares("tensor", self.heads, groups)
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
        if memory is not None and turn is not None:
            h, memory = kv_cache.attend(q, k, v, memory, turn)
        else:
            h = ops.attention(q, k, v, causal=self.causal, mask=mask, window=self.window)
        h = constrain(h.reshape(b, n, c), BATCH, "sequence", "tensor")
        return self._dense(c, "out", self.residual, rows=True)(h), memory

    def _perceptron(self, h: Array, train: bool) -> Array:
        form = (self.hidden, self.mlp, self.bias, self.residual, self.init_std, self.dtype)
        if self.experts is not None:
            return Experts(*form, self.experts, name="experts")(h, train)
        perceptron = Perceptron(*form)
        nn.share_scope(self, perceptron)  # its parameters are the block's own
        return perceptron(h)
