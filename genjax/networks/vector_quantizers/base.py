"""What a quantizer is: features to codes and back, with a gradient for the encoder.

Codes are integers 0 ... values - 1, `stack` of them at each place of the features' grid. Rounding to e has the
straight-through gradient: z + sg[e - z] is e, with the gradient of z (Bengio et al. 2013, arXiv:1308.3432).
"""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.types import Array, Key, PyTree, record

Features = Float[Array, "b *n d"]
Codes = Int[Array, "b *n m"]
Step = Int[Array, ""] | None  # of training; None after it


@record
class Quantized:
    """What becomes of features.

    Attributes:
        z: what the decoder is given, with a gradient for the encoder.
        codes: integers.
        cost: what training adds, mean over the places.
        carried: what is carried on.
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
        """Codes at each place."""
        ...

    @property
    def features(self) -> int:
        """Features that are quantized at each place."""
        ...

    def init(self, key: Key, z: Features) -> tuple[PyTree, PyTree]:
        """(trained parameters, what is carried), {} for none; z are the untrained encoder's features of a batch."""
        ...

    def quantize(self, params: PyTree, carried: PyTree, z: Features, key: Key, step: Step) -> Quantized:
        """Features to codes; with a step, in training."""
        ...

    def lookup(self, params: PyTree, carried: PyTree, codes: Codes) -> Features:
        """What the decoder is given for codes."""
        ...


def straight_through(z: Array, e: Array) -> Array:
    """e, with the gradient of z."""
    return z + jax.lax.stop_gradient(e - z)


def usage(codes: Int[Array, "..."], values: int) -> Float[Array, " v"]:
    """Share of each value among codes."""
    return jnp.mean(jax.nn.one_hot(codes.reshape(-1), values), axis=0)


def perplexity(shares: Float[Array, " v"]) -> Float[Array, ""]:
    """exp of the entropy of shares: the number of codes in use, if they were used alike."""
    return jnp.exp(-jnp.sum(shares * jnp.log(jnp.maximum(shares, 1e-10))))
