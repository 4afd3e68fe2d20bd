"""The interface of quantizers: features to codes and back, with a gradient for the encoder.

Codes are integers 0 ... values - 1, `stack` of them at each position of the features' grid. Rounding to e has the
straight-through gradient: z + sg[e - z] equals e and has the gradient of z (Bengio et al. 2013, arXiv:1308.3432).
"""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.types import Array, Key, PyTree, record

Features = Float[Array, "b *n d"]
Codes = Int[Array, "b *n m"]
Step = Int[Array, ""] | None  # training step; None in evaluation


@record
class Quantized:
    """Quantized features.

    Attributes:
        z: the decoder's input, with a gradient for the encoder.
        codes: integers.
        cost: a term of the training loss, mean over positions.
        carried: the updated carried state.
    """

    z: Features
    codes: Codes
    cost: Float[Array, ""]
    carried: PyTree


@runtime_checkable
class Quantizer(Protocol):
    """Implemented by frozen dataclasses."""

    @property
    def values(self) -> int:
        """Number of values of a code."""
        ...

    @property
    def stack(self) -> int:
        """Number of codes at each position."""
        ...

    @property
    def features(self) -> int:
        """Number of features at each position."""
        ...

    def init(self, key: Key, z: Features) -> tuple[PyTree, PyTree]:
        """(trained parameters, carried state), {} for none; z are the untrained encoder's features of a batch."""
        ...

    def quantize(self, params: PyTree, carried: PyTree, z: Features, key: Key, step: Step) -> Quantized:
        """Quantizes features.

        Args:
            params: the quantizer's.
            carried: the quantizer's carried state.
            z: features [b, *n, features].
            key: typed PRNG key.
            step: training step, int32 scalar; None in evaluation.

        Returns:
            See `Quantized`.
        """
        ...

    def lookup(self, params: PyTree, carried: PyTree, codes: Codes) -> Features:
        """The decoder's input for given codes.

        Args:
            params: the quantizer's.
            carried: the quantizer's carried state.
            codes: int32 [b, *n, stack].

        Returns:
            float32 [b, *n, d].
        """
        ...


def straight_through(z: Array, e: Array) -> Array:
    """e, with the gradient of z."""
    return z + jax.lax.stop_gradient(e - z)


def usage(codes: Int[Array, "..."], values: int) -> Float[Array, " v"]:
    """Share of each value among the codes."""
    return jnp.mean(jax.nn.one_hot(codes.reshape(-1), values), axis=0)


def code_statistics(shares: Float[Array, " v"]) -> dict[str, Array]:
    """`perplexity`, and "used", the share of values that occur; see `core.objective.Mean.report`."""
    return {"perplexity": perplexity(shares), "used": jnp.mean(shares > 0)}


def perplexity(shares: Float[Array, " v"]) -> Float[Array, ""]:
    """exp of the entropy of the shares: the number of codes in use, if used equally often."""
    return jnp.exp(-jnp.sum(shares * jnp.log(jnp.maximum(shares, 1e-10))))
