"""What causal networks have in common: how they are called, and how their incremental decoder is requested."""

import math
from abc import abstractmethod
from typing import Any

import flax.linen as nn
from jaxtyping import Float, Int

from genjax.core.types import Array, PyTree
from genjax.networks.layers.incremental import IncrementalDecoder
from genjax.networks.layers.network import kept


class CausalNetwork(nn.Module):
    """A network whose output at a place depends on inputs at that place and earlier ones only."""

    def __call__(
        self,
        x: Int[Array, "b *n"] | Float[Array, "b *n"],
        t: None = None,
        cond: Float[Array, "b k"] | None = None,
        *,
        out: int | tuple[int, ...],
        train: bool = False,
    ) -> Float[Array, "b *m"]:
        """The outputs at all places of a grid, whose order is that of its flattening.

        Args:
            x: integer inputs, tokens or pixels; see the subclass for their number of values.
            t: None; there is no time.
            cond: conditioning vector, or None.
            out: number of outputs of a place, or the shape of the outputs of one example.
            train: whether dropout is on.

        Returns:
            float32 outputs of each place.

        Raises:
            UserError: `out` or x has a shape that the network does not fit.
        """
        return self.whole(x, cond, out, train)

    @nn.nowrap
    def incremental(
        self,
        params: PyTree,
        grid: tuple[int, ...],
        cond: Float[Array, "b c"] | None = None,
        *,
        out: int | tuple[int, ...],
        channels: int = 1,
        **options: Any,
    ) -> IncrementalDecoder:
        """Incremental evaluation, see `layers.incremental`; without rewind.

        Args:
            params: as `init` makes them.
            grid: shape of the places.
            cond: conditioning vector of each row, or None.
            out: as in a call.
            channels: number of inputs at each place.
            **options: ignored.

        Returns:
            A decoder with inputs [b, k, channels] and outputs [b, k, *m].
        """
        each = (out,) if isinstance(out, int) else out[len(grid) :]
        return self.decoder(params, grid, cond, each, channels)

    @abstractmethod
    def whole(self, x: Array, cond: Array | None, out: int | tuple[int, ...], train: bool) -> Array:
        """As `__call__`."""

    @abstractmethod
    def decoder(
        self, params: PyTree, grid: tuple[int, ...], cond: Array | None, out: tuple[int, ...], channels: int
    ) -> IncrementalDecoder:
        """As `incremental`, for the shape of the outputs of one place."""


def flatten(x: Int[Array, "b *n"], out: int | tuple[int, ...]) -> tuple[Int[Array, "b m"], int]:
    """Tokens in the order of their places, and the number of tokens to choose from.

    Raises:
        UserError: `out` has another shape than x.
    """
    return x.reshape(len(x), math.prod(x.shape[1:])), kept(x.shape[1:], out)
