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

import dataclasses
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.errors import UserError
from genjax.core.sharding_rules import Rule
from genjax.core.types import Array, PyTree
from genjax.networks.layers import ops, positions
from genjax.networks.layers.blocks import Conditioning, Embedding
from genjax.networks.layers.kv_cache import Cache, Turn
from genjax.networks.layers.linen import Dense, lecun, zeros
from genjax.networks.layers.weight_quantization import Packed
from genjax.networks.transformers.attention import Angles, Block, Mask, ada_norm
from genjax.networks.transformers.experts import Form, Mixture, penalised

unit = nn.initializers.normal(0.5**0.5)  # of tokens and of places, so that their sum has variance 1


class Transformer(nn.Module):
    """What the transformers of this library have in common: the hyperparameters, and the body.

    Attributes:
        width: features of each position.
        depth: number of blocks.
        heads: attention heads; divides the width.
        groups: heads of keys and values, see `Block`; 0 for as many as heads.
        mlp: form of the perceptrons, see `Block`.
        experts: a mixture of perceptrons in place of each; whoever trains it adds what `penalised` asks for.
        mlp_ratio: their hidden features, relative to the width (8/3 gives "swiglu" the size of "gelu" with 4).
        norm: which normalisation.
        qk_norm: normalise queries and keys.
        bias: whether the matrices of the blocks have biases.
        position: how places are told apart, see `positions`; "none" makes the body blind to order.
        places: rows of the table of learned positions, of which a shorter sequence takes the first; 0 for as many as
            the grid has places.
        rotary_base: longest wave length of rotary positions over 2 pi.
        time_features: number of time features, if the network is given t.
        time_scale: see `blocks.Conditioning.scale`: 1000 for t in [0, 1].
        zero_out: start the output layer at zero.
        dropout: see `Block`.
        epsilon: added to the variance by the norms.
        init_std: standard deviation of all matrices' initial values (GPT-2's is 0.02); 0 keeps the variance of inputs.
        unroll: how many blocks stand in one turn of the loop over depth: faster on CPUs, and longer to compile.
        remat: what the way back computes again: "none"; all but matrix products ("dots"); each block ("full").
        dtype: in which the blocks compute; parameters, norms, softmax and the output layer are float32.
    """

    width: int = 128
    depth: int = 4
    heads: int = 4
    groups: int = 0
    mlp: Form = "gelu"
    experts: Mixture | None = None
    mlp_ratio: float = 4.0
    norm: Literal["layer", "rms"] = "layer"
    qk_norm: bool = False
    bias: bool = True
    position: positions.Positions = "sinusoidal"
    places: int = 0
    rotary_base: float = 10_000.0
    time_features: int = 256
    time_scale: float = 1000.0
    zero_out: bool = False
    dropout: float = 0.0
    epsilon: float = 1e-6
    init_std: float = 0.0
    unroll: int = 1
    remat: Literal["none", "dots", "full"] = "none"
    dtype: str = "float32"

    layout: ClassVar[tuple[Rule, ...]] = (
        Rule("experts/each/mlp_in/kernel", ("expert", "fsdp", "tensor")),
        Rule("experts/each/mlp_out/kernel", ("expert", "tensor", "fsdp")),
        Rule("blocks/(qkv|mlp_in|modulate)/kernel", ("fsdp", "tensor")),
        Rule("blocks/(qkv|mlp_in|modulate)/bias", ("tensor",)),
        Rule("blocks/(out|mlp_out)/kernel", ("tensor", "fsdp")),
        Rule("params/tokens$", ("tensor", "fsdp")),
        Rule("params/positions$", (None, "fsdp")),
    )

    def embed(self, t: Float[Array, " b"] | None, cond: Float[Array, "b k"] | None) -> Embedding:
        """The conditioning vector e, float32 [b, width]; None where there is neither time nor cond."""
        return Conditioning(self.time_features, self.width, "sinusoidal", self.time_scale, name="embed")(
            t, cond
        )

    @property
    def embedding_init(self) -> nn.initializers.Initializer:
        """Of the tables of tokens and places."""
        return nn.initializers.normal(self.init_std) if self.init_std else unit

    def body(
        self,
        x: Float[Array, "b n c"],
        e: Embedding,
        shape: tuple[int, ...],
        *,
        causal: bool = False,
        window: int = 0,
        mask: Mask = None,
        places: Int[Array, "b n"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b n c"]:
        """Adds positions and applies the blocks.

        Args:
            x: features of each position.
            e: conditioning vector, or None.
            shape: of the grid on which the n positions lie.
            causal: position i sees positions j <= i only.
            window: and j > i - window, unless it is 0.
            mask: which positions each one sees, see `ops.attention`.
            places: where on the grid the positions lie, if not one after the other.
            train: whether dropout is on.

        Returns:
            The features after the last block, in `dtype`.
        """
        x, angles = self._place(x, shape, places)
        block = self.block(causal, window, gated=e is not None, name="blocks")

        def apply(block: Block, x: Array, e: Embedding, angles: Angles, mask: Mask) -> tuple[Array, None]:
            return block(x, e, angles, mask, train), None

        if self.remat != "none":
            dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            apply = nn.remat(apply, prevent_cse=False, policy=dots if self.remat == "dots" else None)
        scan = nn.scan(
            apply,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "dropout": train and self.dropout > 0},
            in_axes=nn.broadcast,
            length=self.depth,
            unroll=min(self.unroll, self.depth),
        )
        return scan(block, x.astype(self.dtype), e, angles, mask)[0]

    def walk(
        self, x: Float[Array, "b k c"], e: Embedding, shape: tuple[int, ...], cache: Cache, turn: Turn
    ) -> tuple[Float[Array, "b k c"], Cache]:
        """What `body` does, causally, at some places only; its parameters are those of `unrolled`.

        Args:
            x: features of the places.
            e: conditioning vector, or None.
            shape: of the grid on which all places lie.
            cache: what is remembered of earlier places, moved on by `cache.advance`.
            turn: the places.

        Returns:
            (the features after the last block, in `dtype`; the cache with these places in all layers).
        """
        x, angles = self._place(x, shape, turn.places)
        x, layers = x.astype(self.dtype), []
        for number, memory in enumerate(cache.layers):
            block = self.block(True, gated=e is not None, name=f"blocks_{number}")
            x, memory = block(x, e, angles, memory=memory, turn=turn)
            layers.append(memory)
        return x, dataclasses.replace(cache, layers=tuple(layers))

    def unrolled(self, params: PyTree) -> PyTree:
        """The parameters with each block's apart: slices of stacked ones would be copied in each step of a loop."""
        rest = {name: value for name, value in params["params"].items() if name != "blocks"}
        blocks = {
            f"blocks_{number}": jax.tree.map(lambda a, number=number: a[number], params["params"]["blocks"])
            for number in range(self.depth)
        }
        return {"params": rest | blocks}

    def _place(
        self, x: Array, shape: tuple[int, ...], places: Int[Array, "b k"] | None = None
    ) -> tuple[Array, Angles]:
        """Adds positions to x, or gives the angles that stand for them; all places of the grid, or some."""
        grid = positions.grid(shape)
        chosen = lambda table: table[None] if places is None else table.at[places].get(mode="clip")
        if self.position == "rotary":
            angles = positions.angles(grid, self.width // self.heads, self.rotary_base)
            return x, angles if places is None else chosen(angles)
        if self.position == "sinusoidal":
            x = x + chosen(positions.sinusoidal(grid, self.width)).astype(x.dtype)
        if self.position == "learned":
            rows = self.places or len(grid)
            if rows < len(grid):
                raise UserError(f"{len(grid)} places are more than the {rows} that this network has learned")
            table = self.param("positions", self.embedding_init, (rows, self.width), jnp.float32)
            x = x + chosen(table[: len(grid)]).astype(x.dtype)
        return x, None

    @nn.nowrap
    def penalised(
        self, params: PyTree, *inputs: Any, **options: Any
    ) -> tuple[Any, Float[Array, ""], dict[str, Array]]:
        """See `objective.Penalised` and `experts.penalised`."""
        return penalised(self, params, *inputs, **options)

    @nn.nowrap  # so that a network without parameters can be asked for it
    def block(
        self, causal: bool = False, window: int = 0, gated: bool = True, name: str | None = None
    ) -> Block:
        """One of the blocks that `body` scans over; without gates the sum of 2 depth parts keeps its variance."""
        return Block(
            self.heads,
            self.groups,
            round(self.mlp_ratio * self.width),
            self.mlp,
            self.experts,
            self.norm,
            self.qk_norm,
            causal,
            window,
            self.bias,
            residual=1.0 if gated else 0.5 / self.depth,
            dropout=self.dropout,
            epsilon=self.epsilon,
            init_std=self.init_std,
            dtype=self.dtype,
            name=name,
        )

    def head(
        self,
        x: Float[Array, "b n c"],
        e: Embedding,
        features: int,
        *,
        table: Float[Array, "features c"] | Packed | None = None,
        bias: bool = True,
    ) -> Float[Array, "b n o"]:
        """Normalises, moved by e if there is one, and maps to `features` in float32.

        Args:
            x: features after the last block.
            e: conditioning vector, or None.
            features: of the output.
            table: rows to multiply by, instead of a matrix with a bias ("tied", Press & Wolf 2017); packed, it
                is their transpose.
            bias: whether the matrix of its own has one.

        Returns:
            The output.
        """
        move = None
        if e is not None:
            move = Dense(2 * self.width, kernel_init=zeros, name="out_modulate")(jax.nn.silu(e))
            move = move.reshape(x.shape[0], 2, self.width)
        h = ada_norm(self.norm, "out_norm", ops.wide(x), move, self.epsilon)
        if table is not None:
            return table.multiply(h) if isinstance(table, Packed) else ops.dense(h, table.T)
        init = zeros if self.zero_out else nn.initializers.normal(self.init_std) if self.init_std else lecun
        return Dense(features, bias, str(h.dtype), init, name="out")(h)
