"""A transformer over tokens, for masked diffusion and language models: integers in, logits out.

    h = E[token] + position,   h <- blocks(h, e),   logits = W norm(h) + b   (tied: E norm(h)),

see `transformer`. Bidirectional unless `causal`. Causal forms: `gpt2(...)` (Radford et al. 2019) and
`llama(...)` (Touvron et al. 2023, arXiv:2302.13971).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.errors import UserError
from genjax.core.sharding_rules import constrain
from genjax.core.types import Array, PyTree
from genjax.networks.layers import kv_cache as caches
from genjax.networks.layers import segments
from genjax.networks.layers.incremental import IncrementalDecoder, pick_last
from genjax.networks.layers.kv_cache import Cache
from genjax.networks.layers.network import kept
from genjax.networks.layers.weight_quantization import pack, pack_kernels
from genjax.networks.transformers.transformer import Transformer


class TokenTransformer(Transformer):
    """Transformer from tokens to logits, optionally conditioned on time and on a vector.

    The objective chooses the number of predicted tokens, `out`; the input vocabulary has `extra` more.

    Attributes:
        causal: the logits at position i depend on tokens at positions j <= i only.
        window: number of positions, its own included, that a block sees: the receptive field is 1 + depth (window - 1);
            0 for no limit.
        extra: number of input tokens that are never predicted, numbered from `out` on: mask, start symbol.
        tied: W = E, without b.
    """

    causal: bool = False
    window: int = 0
    extra: int = 1
    tied: bool = False

    def __call__(
        self,
        x: Int[Array, "b *n"] | Float[Array, "b *n v"],
        t: Float[Array, " b"] | None = None,
        cond: Float[Array, "b k"] | None = None,
        *,
        out: int | tuple[int, ...],
        train: bool = False,
        segment: Int[Array, "b *n"] | None = None,
    ) -> Float[Array, "b *n o"]:
        """Maps tokens [b, *n] in 0 ... out + extra - 1 to float32 logits [b, *n, out].

        Args:
            x: tokens on a grid of any number of axes, in the order of its flattening; or weights [b, *n, out + extra]
                of the tokens' embeddings (one-hot rows are the same as tokens).
            t: times, or None.
            cond: conditioning vector, or None; zeros are the same as None if t is given.
            out: number of tokens to choose from, or the shape (*n, number).
            train: whether dropout is on.
            segment: runs of equal integers are separate sequences: their tokens see no others,
                and positions count from their first token.

        Returns:
            Logits.

        Raises:
            UserError: `out` has another shape than x, or the weights are of another number of tokens.
        """
        weights = jnp.issubdtype(x.dtype, jnp.floating)
        shape = x.shape[1:-1] if weights else x.shape[1:]
        number = kept(shape, out)
        if weights and x.shape[-1] != number + self.extra:
            raise UserError(
                f"weights of {x.shape[-1]} tokens do not fit {number} predicted and extra={self.extra} others"
            )
        flat = x.reshape(x.shape[0], math.prod(shape), *x.shape[1 + len(shape) :])
        body = functools.partial(self.body, shape=shape, causal=self.causal, window=self.window, train=train)
        if segment is not None:
            row = segment.reshape(flat.shape[:2])
            body = functools.partial(body, mask=segments.together(row), places=segments.places(row))
        return self._logits(flat, t, cond, number, body)[0].reshape(x.shape[0], *shape, number)

    @nn.compact
    def _logits(
        self, x: Array, t: Array | None, cond: Array | None, number: int, blocks: Callable[..., Any]
    ) -> tuple[Array, Any]:
        """Maps tokens [b, n], or their weights, to (logits [b, n, number], second output of `blocks` or None)."""
        shape = (number + self.extra, self.width)
        table, e = self.param("tokens", self.embedding_init, shape, jnp.float32), self.embed(t, cond)
        rows = constrain(table, "tensor", None)  # gathers the table before the look-up, not the result
        h, more = blocks(rows[x] if x.ndim == 2 else x @ rows, e), None
        if isinstance(h, tuple):
            h, more = h
        head = self.get_variable("params", "head", table[:number]) if self.tied else None
        return self.head(h, e, number, table=head, bias=self.bias), more

    def step(
        self,
        x: Int[Array, "b k"],
        cond: Float[Array, "b c"] | None,
        count: Int[Array, " b"],
        memory: Cache,
        grid: tuple[int, ...],
        number: int,
        last: bool,
    ) -> tuple[Float[Array, "b m o"], Cache]:
        """Logits at the places after those in memory; the parameters must be those of `ready`.

        Args:
            x: tokens.
            cond: conditioning vector of each row, or None.
            count: number of tokens of each row, 0 ... k.
            memory: the cache.
            grid: shape of all places.
            number: number of tokens to choose from.
            last: return the logits at the last token of each row only.

        Returns:
            (logits, the new cache).
        """
        update, memory = caches.advance(memory, x.shape[1], count, math.prod(grid), self.window)

        def blocks(h: Array, e: Array | None) -> tuple[Array, Cache]:
            h, after = self.body_step(h, e, grid, memory, update)
            return pick_last(h, count) if last else h, after

        return self._logits(x, None, cond, number, blocks)

    @nn.nowrap
    def ready(self, params: PyTree, number: int, weights: caches.Kind = "float32") -> PyTree:
        """Converts parameters for incremental decoding; call it once before several calls.

        Args:
            params: as `init` makes them, or already converted (then returned unchanged).
            number: number of tokens to choose from.
            weights: storage dtype of matrices; fewer bytes are read faster, and change the logits slightly.

        Returns:
            Parameters with separate blocks and quantised matrices.
        """
        if "blocks" not in params["params"]:
            return params
        apart = self.unrolled(pack_kernels(params, weights))
        if self.tied and weights != "float32":
            apart["params"]["head"] = pack(params["params"]["tokens"][:number].T, weights)
        return apart

    @nn.nowrap
    def incremental(
        self,
        params: PyTree,
        grid: tuple[int, ...],
        cond: Float[Array, "b c"] | None = None,
        *,
        out: int | tuple[int, ...],
        kind: caches.Kind = "float32",
        weights: caches.Kind = "float32",
        slack: int = 0,
        channels: int = 1,
    ) -> IncrementalDecoder:
        """Incremental evaluation, see `layers.incremental`.

        Args:
            params: as `init` or `ready` makes them.
            grid: shape of the places, as x in a call; their number is the maximum length.
            cond: conditioning vector of each row, or None.
            out: as in a call.
            kind: storage dtype of keys and values; "int8" changes the logits slightly.
            weights: storage dtype of matrices, see `ready`.
            slack: number of places that can be rewound.
            channels: number of inputs at each place: 1.

        Returns:
            A decoder with inputs [b, k, 1] and outputs [b, k, 1, number].

        Raises:
            UserError: the network is not causal.
        """
        if not self.causal:
            raise UserError("incremental decoding needs a causal network: set causal=True")
        number, places = out if isinstance(out, int) else out[-1], math.prod(grid)
        apart, groups = self.ready(params, number, weights), self.groups or self.heads
        slots = min(self.window + slack if self.window else places, places)

        def init(num: int) -> Cache:
            return caches.empty(kind, num, slots, groups, self.width // self.heads, self.depth)

        def extend(memory: Cache, x: Array, count: Array, last: bool) -> tuple[Array, Cache]:
            given = (x[..., 0], cond, count, memory, grid, number, last)
            both: Any = self.apply(apart, *given, method="step")
            return both[0][:, :, None], both[1]

        return IncrementalDecoder(init, extend, caches.rewind)


def gpt2(depth: int = 12, width: int = 768, heads: int = 12, **options: object) -> TokenTransformer:
    """GPT-2 (Radford et al. 2019): learned positions, pre-norm, tanh-GELU, biases, tied; 124M by default.

    Args:
        depth: number of blocks.
        width: features of each position.
        heads: number of attention heads.
        **options: fields of `TokenTransformer`.

    Returns:
        The network, without an extra start token.
    """
    form = {
        "position": "learned",
        "epsilon": 1e-5,
        "init_std": 0.02,
        "tied": True,
        "causal": True,
        "extra": 0,
    }
    return TokenTransformer(**{"depth": depth, "width": width, "heads": heads, **form, **options})  # type: ignore[arg-type]


def llama(
    depth: int = 16, width: int = 2048, heads: int = 32, groups: int = 8, **options: object
) -> TokenTransformer:
    """Llama (Touvron et al. 2023, arXiv:2302.13971): rotary positions, RMS norms, SwiGLU, no biases, GQA.

    Args:
        depth: number of blocks.
        width: features of each position.
        heads: number of attention heads.
        groups: number of heads of keys and values.
        **options: fields of `TokenTransformer`.

    Returns:
        The network, without an extra start token.
    """
    form = {
        "position": "rotary",
        "norm": "rms",
        "mlp": "swiglu",
        "bias": False,
        "epsilon": 1e-5,
        "init_std": 0.02,
    }
    form |= {"mlp_ratio": 8 / 3, "causal": True, "extra": 0}
    sizes = {"depth": depth, "width": width, "heads": heads, "groups": groups}
    return TokenTransformer(**{**sizes, **form, **options})  # type: ignore[arg-type]
