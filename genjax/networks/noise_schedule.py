"""Learned noise schedules gamma(t) = -log SNR(t) (Kingma et al. 2021, arXiv:2107.00630, app. H).

    gamma(t) = start + (end - start) (h(t) - h(0)) / (h(1) - h(0)),
    h(t)     = w_0 t + sum_k w_k sigmoid(u_k (2 t - 1) + b_k),          w, u > 0.

`start` and `end` are the schedule's ends and h its interior. The paper trains the two with different losses, so a
schedule is called with the part to train; the other gets no gradient.
"""

from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array

Part = Literal["ends", "interior"]
Moves = Literal["all", "ends", "interior"]


def _held(value: Array, part: Part, moves: Moves) -> Array:
    """The value, with its gradient stopped if another part is trained."""
    return value if moves in ("all", part) else jax.lax.stop_gradient(value)


class FixedLinear(nn.Module):
    """start + (end - start) t, without parameters.

    Attributes:
        start: gamma(0); the paper's value for 8-bit images.
        end: gamma(1).
    """

    learns: ClassVar[tuple[Part, ...]] = ()

    start: float = -13.3
    end: float = 5.0

    @nn.compact
    def __call__(self, t: Float[Array, "*s"], moves: Moves = "all") -> Float[Array, "*s"]:
        """gamma(t), elementwise, in the dtype of t."""
        return self.start + (self.end - self.start) * t


def _ends(module: nn.Module, start: float, end: float, moves: Moves, dtype: jnp.dtype) -> tuple[Array, Array]:
    """The two ends, as parameters of the calling module."""
    values = {"start": start, "end": end}
    first, last = (
        _held(module.param(name, nn.initializers.constant(value), (), jnp.float32), "ends", moves)
        for name, value in values.items()
    )
    return first.astype(dtype), last.astype(dtype)


class LearnedLinear(nn.Module):
    """start + (end - start) t, both ends trained, initialised to the given values."""

    learns: ClassVar[tuple[Part, ...]] = ("ends",)

    start: float = -13.3
    end: float = 5.0

    @nn.compact
    def __call__(self, t: Float[Array, "*s"], moves: Moves = "all") -> Float[Array, "*s"]:
        """gamma(t), elementwise, in the dtype of t."""
        start, end = _ends(self, self.start, self.end, moves, t.dtype)
        return start + (end - start) * t


class Monotone(nn.Module):
    """The monotone network: increasing if start < end, initially linear up to a few percent.

    Positive weights are exponentials of the parameters, so that updates cannot make them negative.

    Attributes:
        start: initial gamma(0).
        end: initial gamma(1).
        width: number of sigmoids.
    """

    learns: ClassVar[tuple[Part, ...]] = ("ends", "interior")

    start: float = -13.3
    end: float = 5.0
    width: int = 1024

    @nn.compact
    def __call__(self, t: Float[Array, "*s"], moves: Moves = "all") -> Float[Array, "*s"]:
        """gamma(t), elementwise, in the dtype of t."""
        start, end = _ends(self, self.start, self.end, moves, t.dtype)

        def inner(name: str, mean: float, std: float, shape: tuple[int, ...]) -> Array:
            draw = lambda key, shape, dtype: mean + std * jax.random.normal(key, shape, dtype)
            return _held(self.param(name, draw, shape, jnp.float32), "interior", moves).astype(t.dtype)

        line = inner("log_line", 0.0, 0.0, ())
        slope = inner("log_slope", 1.0, 1.0, (self.width,))
        shift = inner("shift", 0.0, 3.0, (self.width,))
        height = inner("log_height", -1.0, 0.5, (self.width,))

        def h(t: Array) -> Array:
            waves = jax.nn.sigmoid((2.0 * t[..., None] - 1.0) * _row(jnp.exp(slope), t) + _row(shift, t))
            return jnp.exp(line) * t + jnp.mean(waves * _row(jnp.exp(height), t), axis=-1)

        zero, one = h(jnp.zeros((), t.dtype)), h(jnp.ones((), t.dtype))
        return start + (end - start) * (h(t) - zero) / (one - zero)


def _row(weights: Array, t: Array) -> Array:
    """Weights [k] reshaped to broadcast against t[..., None]."""
    return weights.reshape((1,) * t.ndim + (-1,))
