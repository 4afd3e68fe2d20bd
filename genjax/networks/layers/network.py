"""How networks are called: (x, t, cond, *, out, train), so that any of them fits wherever a `Network` is asked for."""

from abc import abstractmethod

import flax.linen as nn
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array

Times = Float[Array, " b"] | None
Vector = Float[Array, "b k"] | None
Outputs = int | tuple[int, ...]


def kept(shape: tuple[int, ...], out: Outputs) -> int:
    """The features that `out` asks for, of a network whose outputs have the places of its inputs.

    Raises:
        UserError: `out` is a shape of other places.
    """
    if isinstance(out, int):
        return out
    if out[:-1] != shape:
        raise UserError(f"this network keeps the shape {shape}, so out={out} should be {(*shape, out[-1])}")
    return out[-1]


class ConditionalNetwork(nn.Module):
    """A network of an input, of times and of a conditioning vector; a subclass defines `forward`."""

    @nn.compact
    def __call__(
        self, x: Array, t: Times = None, cond: Vector = None, *, out: Outputs, train: bool = False
    ) -> Array:
        """Applies the network.

        Args:
            x: inputs [b, ...].
            t: times [b], or None.
            cond: conditioning vectors [b, k], or None.
            out: features of the last axis, or the output shape of one example; see `forward`.
            train: whether dropout is on.

        Returns:
            Outputs [b, ...], float32.
        """
        return self.forward(x, t, cond, out, train)

    @abstractmethod
    def forward(self, x: Array, t: Times, cond: Vector, out: Outputs, train: bool) -> Array:
        """The layers, made within `__call__`; arguments as there."""
