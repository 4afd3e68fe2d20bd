"""The body of all transformers here: pre-norm blocks (Xiong et al. 2020), scanned over depth.

With norm a layer or root-mean-square normalisation, each block is

    x <- x + g1 attention(norm(x) (1 + s1) + m1),
    x <- x + g2 mlp(norm(x) (1 + s2) + m2).

Where there is a conditioning vector e, (m1, s1, g1, m2, s2, g2) = W silu(e) + b start at zero and the norms have no
parameters: "adaLN-zero" (Peebles & Xie 2022, arXiv:2212.09748, section 3.2), each block starts as the identity.
Without e the norms have their own scale (and bias), and g = 1.

The parameters of all blocks are stacked along a leading axis, layer by layer; block l is
`jax.tree.map(lambda a: a[l], params["blocks"])`.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from genjax.errors import UserError
from genjax.networks import ops, positions
from genjax.networks.blocks import Conditioning, Embedding
from genjax.networks.layers import Dense, Norm, lecun, zeros
from genjax.types import Array

Angles = Float[Array, "n pairs"] | None
Mask = Bool[Array, "b n n"] | None
unit = nn.initializers.normal(0.5**0.5)  # of tokens and of places, so that their sum has variance 1


def ada_norm(kind: Literal["layer", "rms"], name: str, x: Array, move: Array | None) -> Array:
    """norm(x) (1 + s) + m for x [b, n, c] and move = (m, s) [b, 2, c]; without it a norm with its own scale.

    To be called inside a compact method, of which the norm becomes a part.
    """
    y = Norm(kind, affine=move is None, name=name)(x)
    if move is None:
        return y
    shift, scale = move[:, None, 0].astype(jnp.float32), move[:, None, 1].astype(jnp.float32)
    return (y.astype(jnp.float32) * (1 + scale) + shift).astype(x.dtype)


class Block(nn.Module):
    """One block: attention, then a perceptron for each position.

    Attributes:
        heads: attention heads; divides the width.
        hidden: features inside the perceptron.
        mlp: "gelu" (two matrices), or "swiglu" (three, Shazeer 2020): W (silu(U x) * V x).
        norm: which normalisation.
        qk_norm: normalise queries and keys of each head (Henry et al. 2020; "rms" with a scale).
        causal: position i sees positions j <= i only.
        bias: whether the matrices of attention and perceptron have biases.
        residual: variance of the initial values of what is added to x, relative to one without this factor.
        dropout: probability of dropping a feature of what is added to x, in training.
        dtype: in which products are computed; norms, softmax and modulation are float32.
    """

    heads: int = 4
    hidden: int = 512
    mlp: Literal["gelu", "swiglu"] = "gelu"
    norm: Literal["layer", "rms"] = "layer"
    qk_norm: bool = False
    causal: bool = False
    bias: bool = True
    residual: float = 1.0
    dropout: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n c"],
        e: Embedding = None,
        angles: Angles = None,
        mask: Mask = None,
        train: bool = False,
    ) -> Float[Array, "b n c"]:
        """Applies the block.

        Args:
            x: features of each position.
            e: conditioning vector, or None for a block without adaLN.
            angles: rotary positions, see `positions.angles`.
            mask: which positions each one sees, see `ops.attention`.
            train: whether dropout is on.

        Returns:
            The new features, in `dtype`.

        Raises:
            UserError: `heads` does not divide the width.
        """
        x = x.astype(self.dtype)
        moves: list[Array | None] = [None] * 2
        gates: list[Array | None] = [None] * 2
        if e is not None:
            move = Dense(6 * x.shape[-1], dtype=self.dtype, kernel_init=zeros, name="modulate")(
                jax.nn.silu(e)
            )
            move = move.astype(jnp.float32).reshape(x.shape[0], 2, 3, x.shape[-1])
            moves, gates = [move[:, i, :2] for i in range(2)], [move[:, i, 2] for i in range(2)]
        h = ada_norm(self.norm, "norm1", x, moves[0])
        x = self._add(x, self._attention(h, angles, mask), gates[0], train)
        h = ada_norm(self.norm, "norm2", x, moves[1])
        return self._add(x, self._perceptron(h), gates[1], train)

    def _dense(self, features: int, name: str, out: bool = False) -> Dense:
        init = nn.initializers.variance_scaling(self.residual, "fan_in", "truncated_normal") if out else lecun
        return Dense(features, self.bias, self.dtype, init, name=name)

    def _add(self, x: Array, h: Array, gate: Array | None, train: bool) -> Array:
        """x + gate * dropout(h); the way back to the gate sums over positions, so it is float32."""
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        return x + (h if gate is None else (h.astype(jnp.float32) * gate[:, None]).astype(h.dtype))

    def _attention(self, h: Array, angles: Angles, mask: Mask) -> Array:
        b, n, c = h.shape
        if c % self.heads:
            raise UserError(f"heads={self.heads} must divide the width {c}")
        qkv = self._dense(3 * c, "qkv")(h).reshape(b, n, 3, self.heads, c // self.heads)
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        if self.qk_norm:
            q, k = Norm("rms", name="q_norm")(q), Norm("rms", name="k_norm")(k)
        if angles is not None:
            q, k = positions.rotate(q, angles), positions.rotate(k, angles)
        h = ops.attention(q, k, v, causal=self.causal, mask=mask).reshape(b, n, c)
        return self._dense(c, "out", out=True)(h)

    def _perceptron(self, h: Array) -> Array:
        c = h.shape[-1]
        if self.mlp == "swiglu":
            gate, h = jnp.split(self._dense(2 * self.hidden, "mlp_in")(h), 2, axis=-1)
            h = jax.nn.silu(gate) * h
        else:
            h = jax.nn.gelu(self._dense(self.hidden, "mlp_in")(h))
        return self._dense(c, "mlp_out", out=True)(h)


class Transformer(nn.Module):
    """What the transformers of this library have in common: the hyperparameters, and the body.

    Attributes:
        width: features of each position.
        depth: number of blocks.
        heads: attention heads; divides the width.
        mlp: form of the perceptrons, see `Block`.
        mlp_ratio: their hidden features, relative to the width (8/3 gives "swiglu" the size of "gelu" with 4).
        norm: which normalisation.
        qk_norm: normalise queries and keys.
        bias: whether the matrices of the blocks have biases.
        position: how places are told apart, see `positions`; "none" makes the body blind to order.
        time_features: number of time features, if the network is given t.
        time_scale: see `blocks.Conditioning.scale`: 1000 for t in [0, 1].
        zero_out: start the output layer at zero.
        dropout: see `Block`.
        remat: what the way back computes again: "none"; all but matrix products ("dots"); each block ("full").
        dtype: in which the blocks compute; parameters, norms, softmax and the output layer are float32.
    """

    width: int = 128
    depth: int = 4
    heads: int = 4
    mlp: Literal["gelu", "swiglu"] = "gelu"
    mlp_ratio: float = 4.0
    norm: Literal["layer", "rms"] = "layer"
    qk_norm: bool = False
    bias: bool = True
    position: positions.Positions = "sinusoidal"
    time_features: int = 256
    time_scale: float = 1000.0
    zero_out: bool = False
    dropout: float = 0.0
    remat: Literal["none", "dots", "full"] = "none"
    dtype: str = "float32"

    def embed(self, t: Float[Array, " b"] | None, cond: Float[Array, "b k"] | None) -> Embedding:
        """The conditioning vector e, float32 [b, width]; None where there is neither time nor cond."""
        return Conditioning(self.time_features, self.width, "sinusoidal", self.time_scale, name="embed")(
            t, cond
        )

    def body(
        self,
        x: Float[Array, "b n c"],
        e: Embedding,
        shape: tuple[int, ...],
        *,
        causal: bool = False,
        mask: Mask = None,
        train: bool = False,
    ) -> Float[Array, "b n c"]:
        """Adds positions and applies the blocks.

        Args:
            x: features of each position.
            e: conditioning vector, or None.
            shape: of the grid on which the n positions lie.
            causal: position i sees positions j <= i only.
            mask: which positions each one sees, see `ops.attention`.
            train: whether dropout is on.

        Returns:
            The features after the last block, in `dtype`.
        """
        places = positions.grid(shape)
        angles = None
        if self.position == "rotary":
            angles = positions.angles(places, self.width // self.heads)
        if self.position == "sinusoidal":
            x = x + positions.sinusoidal(places, self.width)[None].astype(x.dtype)
        if self.position == "learned":
            x = x + self.param("positions", unit, x.shape[1:], jnp.float32)[None].astype(x.dtype)
        block = self.block(causal, gated=e is not None, name="blocks")

        def apply(block: Block, x: Array, e: Embedding, angles: Angles, mask: Mask) -> tuple[Array, None]:
            return block(x, e, angles, mask, train), None

        if self.remat != "none":
            dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            apply = nn.remat(apply, prevent_cse=False, policy=dots if self.remat == "dots" else None)
        scan = nn.scan(
            apply,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": train and self.dropout > 0},
            in_axes=nn.broadcast,
            length=self.depth,
        )
        return scan(block, x.astype(self.dtype), e, angles, mask)[0]

    @nn.nowrap  # so that a network without parameters can be asked for it
    def block(self, causal: bool = False, gated: bool = True, name: str | None = None) -> Block:
        """One of the blocks that `body` scans over; without gates the sum of 2 depth parts keeps its variance."""
        return Block(
            self.heads,
            int(self.mlp_ratio * self.width),
            self.mlp,
            self.norm,
            self.qk_norm,
            causal,
            self.bias,
            residual=1.0 if gated else 0.5 / self.depth,
            dropout=self.dropout,
            dtype=self.dtype,
            name=name,
        )

    def head(self, x: Float[Array, "b n c"], e: Embedding, features: int) -> Float[Array, "b n o"]:
        """Normalises, moved by e if there is one, and maps to `features` in float32."""
        move = None
        if e is not None:
            move = Dense(2 * self.width, kernel_init=zeros, name="out_modulate")(jax.nn.silu(e))
            move = move.reshape(x.shape[0], 2, self.width)
        h = ada_norm(self.norm, "out_norm", x.astype(jnp.float32), move)
        return Dense(features, kernel_init=zeros if self.zero_out else lecun, name="out")(h)
