"""The contract of networks; that of objectives is `genjax.core.objective`."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float

from genjax.core.types import Array, PyTree


@runtime_checkable
class Network(Protocol):
    """A function with parameters. Flax Linen modules satisfy this protocol.

    The objective determines the output width and passes it to both methods as `out=` (an int: features of the last
    axis; a tuple: the shape of one output); the config determines depth and hidden width. Networks of this library
    are called as `(x, t=None, cond=None, *, out, train=False)`: input, times [b], conditioning vector [b, k].
    """

    @property
    def init(self) -> Callable[..., PyTree]:
        """(key, *inputs, **options) -> parameters."""

    @property
    def apply(self) -> Callable[..., Any]:
        """(parameters, *inputs, **options) -> output."""


@runtime_checkable
class Penalised(Protocol):
    """A network with an auxiliary loss, such as the load-balancing loss of a mixture of experts."""

    def penalised(
        self, params: PyTree, *inputs: Any, **options: Any
    ) -> tuple[Any, Float[Array, ""], Mapping[str, Array]]:
        """As `apply`; returns (output, weighted auxiliary loss or 0, metrics to log)."""


@runtime_checkable
class TakesStyles(Protocol):
    """A generator that takes one style vector per layer."""

    @property
    def styles(self) -> int:
        """Number of styles."""
