"""A transformer over tokens, for masked diffusion and language models: integers in, logits out.

    h = E[token] + position,   h <- blocks(h, e),   logits = W norm(h) + b   (tied: E norm(h)),

see `transformer`. Bidirectional unless `causal`. With `causal`, GPT-2's form (Radford et al. 2019) is
`gpt2(...)` and Llama's (Touvron et al. 2023, arXiv:2302.13971) `llama(...)`.
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
from genjax.networks.layers.incremental import Walker, pick_last
from genjax.networks.layers.kv_cache import Cache
from genjax.networks.layers.weight_quantization import pack, pack_kernels
from genjax.networks.transformers.transformer import Transformer


class TokenTransformer(Transformer):
    """Transformer from tokens to logits, conditioned on time and on a vector, or on neither.

    The number of tokens that are predicted is the objective's, `out`; those that are read are `extra` more.

    Attributes:
        causal: the logits at position i depend on tokens at positions j <= i only.
        window: and on j > i - depth (window - 1) only, as each block sees no further back than that; 0 for no limit.
        extra: tokens that are read but never predicted, numbered from `out` on: a mask, a start.
        tied: the rows of E are also those of W, and there is no b.
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
            cond: conditioning vector, or None; zeros are the same as none where t is given.
            out: number of tokens to choose from, or the shape (*n, number).
            train: whether dropout is on.
            segment: tokens that follow one another and have one number are a sequence by itself: they see no others,
                and their positions count from its first.

        Returns:
            Logits.

        Raises:
            UserError: `out` has another shape than x, or x weighs another number of tokens.
        """
        weights = jnp.issubdtype(x.dtype, jnp.floating)
        shape = x.shape[1:-1] if weights else x.shape[1:]
        if isinstance(out, tuple) and out[:-1] != shape:
            raise UserError(
                f"this network keeps the shape {shape}, so out={out} should be {(*shape, out[-1])}"
            )
        number = out if isinstance(out, int) else out[-1]
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
        """From tokens [b, n], or their weights, to logits [b, n, number], and what else the blocks give."""
        shape = (number + self.extra, self.width)
        table, e = self.param("tokens", self.embedding_init, shape, jnp.float32), self.embed(t, cond)
        rows = constrain(table, "tensor", None)  # gathered before the look-up, not what it finds
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
        """Logits at the places after those in memory; see `walker`. Its parameters are those of `unrolled`."""
        turn, memory = caches.advance(memory, x.shape[1], count, math.prod(grid), self.window)

        def blocks(h: Array, e: Array | None) -> tuple[Array, Cache]:
            h, after = self.walk(h, e, grid, memory, turn)
            return pick_last(h, count) if last else h, after

        return self._logits(x, None, cond, number, blocks)

    @nn.nowrap
    def ready(self, params: PyTree, number: int, weights: caches.Kind = "float32") -> PyTree:
        """The parameters as walking reads them: to be made once where a walk is cut into several calls.

        Args:
            params: as `init` makes them; or ready, which leaves them as they are.
            number: of tokens to choose from.
            weights: how matrices are kept; fewer bytes are read sooner, and change the logits a little.

        Returns:
            Each block's parameters apart, and matrices as they are kept.
        """
        if "blocks" not in params["params"]:
            return params
        apart = self.unrolled(pack_kernels(params, weights))
        if self.tied and weights != "float32":
            apart["params"]["head"] = pack(params["params"]["tokens"][:number].T, weights)
        return apart

    @nn.nowrap
    def walker(
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
    ) -> Walker:
        """The network place by place; see `walker.Walker`.

        Args:
            params: as `init` or `ready` makes them.
            grid: on which the places lie, as x in a call; at most so many places are walked.
            cond: conditioning vector of each row, or None.
            out: as in a call.
            kind: how keys and values are kept; "int8" changes the logits a little.
            weights: how matrices are kept, see `ready`.
            slack: how many places can be forgotten again.
            channels: inputs at each place: 1.

        Returns:
            A walker with inputs [b, k, 1] and outputs [b, k, 1, number].

        Raises:
            UserError: the network is not causal.
        """
        if not self.causal:
            raise UserError("only a causal network walks place by place: set causal=True")
        number, places = out if isinstance(out, int) else out[-1], math.prod(grid)
        apart, groups = self.ready(params, number, weights), self.groups or self.heads
        slots = min(self.window + slack if self.window else places, places)

        def begin(num: int) -> Cache:
            return caches.empty(kind, num, slots, groups, self.width // self.heads, self.depth)

        def walk(memory: Cache, x: Array, count: Array, last: bool) -> tuple[Array, Cache]:
            given = (x[..., 0], cond, count, memory, grid, number, last)
            both: Any = self.apply(apart, *given, method="step")
            return both[0][:, :, None], both[1]

        return Walker(begin, walk, caches.rewind)


def gpt2(depth: int = 12, width: int = 768, heads: int = 12, **options: object) -> TokenTransformer:
    """GPT-2 (Radford et al. 2019): learned positions, pre-norm, tanh-GELU, biases, tied; 124M as it stands.

    Args:
        depth: number of blocks.
        width: features of each position.
        heads: attention heads.
        **options: of `TokenTransformer`.

    Returns:
        The network, without a token for a start of its own.
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
        heads: attention heads.
        groups: heads of keys and values.
        **options: of `TokenTransformer`.

    Returns:
        The network, without a token for a start of its own.
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
