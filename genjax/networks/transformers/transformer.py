"""The body of all transformers: pre-norm blocks (Xiong et al. 2020), scanned over depth.

With norm a layer or root-mean-square normalisation, each block is

    x <- x + g1 attention(norm(x) (1 + s1) + m1),
    x <- x + g2 mlp(norm(x) (1 + s2) + m2).

Where there is a conditioning vector e, (m1, s1, g1, m2, s2, g2) = W silu(e) + b are zero at first and the norms have no
parameters: "adaLN-zero" (Peebles & Xie 2022, arXiv:2212.09748, section 3.2), so each block starts as the identity.
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
from genjax.networks.layers.kv_cache import Cache, CacheUpdate
from genjax.networks.layers.linen import Dense, lecun, zeros
from genjax.networks.layers.weight_quantization import Packed
from genjax.networks.transformers.attention import Angles, Block, Mask, ada_norm
from genjax.networks.transformers.experts import Form, Mixture, penalised

unit = nn.initializers.normal(
    0.5**0.5
)  # embeddings of tokens and positions, so that their sum has variance 1


class Transformer(nn.Module):
    """Base of all transformers: the hyperparameters, and the body.

    Attributes:
        width: features of each position.
        depth: number of blocks.
        heads: number of attention heads; divides the width.
        groups: number of heads of keys and values, see `Block`; 0 for as many as heads.
        mlp: form of the perceptrons, see `Block`.
        experts: a mixture of experts instead of each perceptron; objectives must add the penalty of `penalised`.
        mlp_ratio: hidden features of the perceptrons over the width (8/3 gives "swiglu" the size of "gelu" with 4).
        norm: which normalisation.
        qk_norm: normalise queries and keys.
        bias: whether the matrices of the blocks have biases.
        position: position encoding, see `positions`; "none" makes the body permutation-equivariant.
        places: rows of the table of learned positions, of which shorter sequences use the first; 0 for as many as
            the grid has places.
        rotary_base: longest wavelength of rotary positions over 2 pi.
        time_features: number of time features, if the network is given t.
        time_scale: see `blocks.Conditioning.scale`: 1000 for t in [0, 1].
        zero_out: initialise the output layer to zero.
        dropout: see `Block`.
        epsilon: added to the variance by the norms.
        init_std: standard deviation of all matrices' initial values (GPT-2's is 0.02); 0 for variance-preserving ones.
        unroll: number of blocks per iteration of the loop over depth; more are faster on CPUs, and slower to compile.
        remat: recomputed in the backward pass: "none"; all but matrix products ("dots"); each block ("full").
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
        """Initialiser of the tables of tokens and positions."""
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
            shape: shape of the grid of the n positions.
            causal: position i sees positions j <= i only.
            window: and j > i - window, unless it is 0.
            mask: visible positions, see `ops.attention`.
            places: index on the grid of each position; None for 0 ... n - 1.
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

    def body_step(
        self,
        x: Float[Array, "b k c"],
        e: Embedding,
        shape: tuple[int, ...],
        cache: Cache,
        update: CacheUpdate,
    ) -> tuple[Float[Array, "b k c"], Cache]:
        """`body` with a causal mask at new places only; the parameters must be those of `unrolled`.

        Args:
            x: features of the new places.
            e: conditioning vector, or None.
            shape: shape of the grid of all places.
            cache: earlier places, already updated by `kv_cache.advance`.
            update: slots and mask of the new places, from `kv_cache.advance`.

        Returns:
            (the features after the last block, in `dtype`; the cache with the new places in all layers).
        """
        x, angles = self._place(x, shape, update.places)
        x, layers = x.astype(self.dtype), []
        for number, memory in enumerate(cache.layers):
            block = self.block(True, gated=e is not None, name=f"blocks_{number}")
            x, memory = block(x, e, angles, memory=memory, update=update)
            layers.append(memory)
        return x, dataclasses.replace(cache, layers=tuple(layers))

    def unrolled(self, params: PyTree) -> PyTree:
        """Parameters with separate blocks: slices of stacked ones would be copied in each step of a loop."""
        rest = {name: value for name, value in params["params"].items() if name != "blocks"}
        blocks = {
            f"blocks_{number}": jax.tree.map(lambda a, number=number: a[number], params["params"]["blocks"])
            for number in range(self.depth)
        }
        return {"params": rest | blocks}

    def _place(
        self, x: Array, shape: tuple[int, ...], places: Int[Array, "b k"] | None = None
    ) -> tuple[Array, Angles]:
        """(x with position encodings added, rotary angles or None), for all places of the grid or for `places`."""
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
                raise UserError(f"{len(grid)} places exceed the {rows} learned positions of this network")
            table = self.param("positions", self.embedding_init, (rows, self.width), jnp.float32)
            x = x + chosen(table[: len(grid)]).astype(x.dtype)
        return x, None

    @nn.nowrap
    def penalised(
        self, params: PyTree, *inputs: Any, **options: Any
    ) -> tuple[Any, Float[Array, ""], dict[str, Array]]:
        """See `objective.Penalised` and `experts.penalised`."""
        return penalised(self, params, *inputs, **options)

    @nn.nowrap  # callable without bound parameters
    def block(
        self, causal: bool = False, window: int = 0, gated: bool = True, name: str | None = None
    ) -> Block:
        """The block that `body` scans over.

        Args:
            causal: see `Block`.
            window: see `Block`.
            gated: whether adaLN gates it; without gates the 2 depth residual terms are initialised to total variance 1.
            name: name of the submodule.

        Returns:
            The block.
        """
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
        """Normalises, modulated by e if it is given, and maps to `features` in float32.

        Args:
            x: features after the last block.
            e: conditioning vector, or None.
            features: output size.
            table: tied embeddings to multiply by (Press & Wolf 2017) instead of an own matrix; if `Packed`, their
                transpose.
            bias: whether the own matrix has a bias.

        Returns:
            The output.
        """
        modulation = None
        if e is not None:
            modulation = Dense(2 * self.width, kernel_init=zeros, name="out_modulate")(jax.nn.silu(e))
            modulation = modulation.reshape(x.shape[0], 2, self.width)
        h = ada_norm(self.norm, "out_norm", ops.wide(x), modulation, self.epsilon)
        if table is not None:
            return table.multiply(h) if isinstance(table, Packed) else ops.dense(h, table.T)
        init = zeros if self.zero_out else nn.initializers.normal(self.init_std) if self.init_std else lecun
        return Dense(features, bias, str(h.dtype), init, name="out")(h)
