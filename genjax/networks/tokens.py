"""A transformer over tokens, for masked diffusion and language models: integers in, logits out.

    h = E[token] + position,   h <- blocks(h, e),   logits = W norm(h) + b,

see `transformer`. Bidirectional unless `causal`.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.errors import UserError
from genjax.networks.transformer import Transformer, unit
from genjax.types import Array


class TokenTransformer(Transformer):
    """Transformer from tokens to logits, conditioned on time and on a vector, or on neither.

    The number of tokens that are predicted is the objective's, `out`; those that are read are `extra` more.

    Attributes:
        causal: the logits at position i depend on tokens at positions j <= i only.
        extra: tokens that are read but never predicted, numbered from `out` on: a mask, a start.
    """

    causal: bool = False
    extra: int = 1

    @nn.compact
    def __call__(
        self,
        x: Int[Array, "b *n"] | Float[Array, "b *n v"],
        t: Float[Array, " b"] | None = None,
        cond: Float[Array, "b k"] | None = None,
        *,
        out: int | tuple[int, ...],
        train: bool = False,
    ) -> Float[Array, "b *n o"]:
        """Maps tokens [b, *n] in 0 ... out + extra - 1 to float32 logits [b, *n, out].

        Args:
            x: tokens on a grid of any number of axes, in the order of its flattening; or weights [b, *n, out + extra]
                of the tokens' embeddings (one-hot rows are the same as tokens).
            t: times, or None.
            cond: conditioning vector, or None; zeros are the same as none where t is given.
            out: number of tokens to choose from, or the shape (*n, number).
            train: whether dropout is on.

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
        table = self.param("tokens", unit, (number + self.extra, self.width), jnp.float32)
        h = x @ table if weights else table[x]
        e = self.embed(t, cond)
        h = h.reshape(x.shape[0], math.prod(shape), self.width)
        h = self.body(h, e, shape, causal=self.causal, train=train)
        return self.head(h, e, number).reshape(x.shape[0], *shape, number)
