"""Bijectors that apply functions of one variable: couplings, autoregressive and elementwise ones.

A coupling (Dinh et al. 2014, arXiv:1410.8516, section 3.2; 2017, arXiv:1605.08803, eq. 4-9) keeps a part x_a and
transforms the other elementwise,

    y_a = x_a,    y_b = g(x_b; theta(x_a)),            log |det| = sum_b log g'(x_b).

An autoregressive bijector (MAF, Papamakarios et al. 2017, arXiv:1705.07057, eq. 3-5) transforms each dimension given
the preceding ones. `forward` is one pass of the network, `inverse` one per dimension:

    y_i = g(x_i; theta_i(x_1, ..., x_{i-1})),          log |det| = sum_i log g'(x_i).

`Inverse(Autoregressive(...))` is IAF (Kingma et al. 2016, arXiv:1606.04934) with samples in one pass. A network whose
output layer is initialised to zero makes each of them start as the identity.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.arrays import sum_dims
from genjax.core.errors import UserError
from genjax.core.objective import Network
from genjax.core.types import Array, Key, PyTree
from genjax.distributions.flows.bijector import NOTHING, Bijector, Given, LogDet, State, apply_net, init_net
from genjax.distributions.flows.scalar import Affine, Scalar


class Split(NamedTuple):
    """x split by a mask: the network's input, elements that may move, and an indicator (1 or 0) of those that do."""

    kept: State
    moved: State
    moves: Float[Array, "_ ..."]


@runtime_checkable
class Mask(Protocol):
    """Which part of x a coupling keeps."""

    def split(self, x: State) -> Split:
        """Splits x; `moves` has the rank of x."""
        ...

    def join(self, split: Split, moved: State) -> State:
        """Reassembles x with new values of the moved elements."""
        ...


@dataclass(frozen=True)
class Channels:
    """Keeps the first half of the last axis and transforms the second.

    Attributes:
        odd: keep the second half and transform the first.
    """

    odd: bool = False

    def split(self, x: State) -> Split:
        """Two arrays of about half the channels each.

        Raises:
            UserError: x has only one channel.
        """
        if x.shape[-1] < 2:
            raise UserError(
                f"a coupling of channels needs at least two channels, but examples have shape {x.shape[1:]}: "
                "squeeze, or use Checkerboard()"
            )
        first, last = jnp.split(x, [x.shape[-1] - x.shape[-1] // 2], axis=-1)
        kept, moved = (last, first) if self.odd else (first, last)
        return Split(kept, moved, jnp.ones((1,) * x.ndim, x.dtype))

    def join(self, split: Split, moved: State) -> State:
        """Concatenates the two halves."""
        return jnp.concatenate([moved, split.kept] if self.odd else [split.kept, moved], axis=-1)


@dataclass(frozen=True)
class Checkerboard:
    """Keeps the pixels (i, j) with even i + j and transforms the others (arXiv:1605.08803, figure 3).

    Attributes:
        odd: keep odd i + j and transform the others.
    """

    odd: bool = False

    def split(self, x: State) -> Split:
        """The kept pixels with zeros elsewhere; all pixels; the indicator of transformed pixels.

        Raises:
            UserError: unless x is [b, h, w, c].
        """
        if x.ndim != 4:
            raise UserError(f"Checkerboard needs images [b, h, w, c], but examples have shape {x.shape[1:]}")
        i, j = jnp.arange(x.shape[1]), jnp.arange(x.shape[2])
        moves = ((i[:, None] + j[None, :] + self.odd) % 2)[None, :, :, None].astype(x.dtype)
        return Split(x * (1.0 - moves), x, moves)

    def join(self, split: Split, moved: State) -> State:
        """Adds the kept and the transformed pixels."""
        return split.kept + split.moves * moved


@dataclass(frozen=True)
class Coupling(Bijector):
    """Transforms one part of x given the other.

    Attributes:
        net: called as net(kept, None, cond, out=moved's shape with `scalar.count` times as many channels).
        scalar: the function applied to each element.
        mask: which part is transformed.
    """

    net: Network
    scalar: Scalar = Affine()
    mask: Mask = Channels()

    def _out(self, moved: State) -> tuple[int, ...]:
        return (*moved.shape[1:-1], moved.shape[-1] * self.scalar.count)

    def _theta(self, params: PyTree, split: Split, given: Given) -> Array:
        out = apply_net(self.net, params, split.kept, given, self._out(split.moved))
        return out.reshape(*split.moved.shape, self.scalar.count)

    def init(self, key: Key, x: State, given: Given = NOTHING) -> PyTree:
        """See `Bijector.init`: the network's parameters."""
        split = self.mask.split(x)
        return init_net(self.net, key, split.kept, given, self._out(split.moved))

    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """See `Bijector.forward`: one pass of the network."""
        split = self.mask.split(x)
        y, log_slope = self.scalar.forward(split.moved, self._theta(params, split, given))
        return self.mask.join(split, y), sum_dims(split.moves * log_slope)

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """See `Bijector.inverse`: one pass of the network, whose input, the kept part, is the same in x and y."""
        split = self.mask.split(y)
        return self.mask.join(split, self.scalar.inverse(split.moved, self._theta(params, split, given)))


@dataclass(frozen=True)
class Autoregressive(Bijector):
    """Transforms each dimension given the preceding ones.

    Attributes:
        net: called as net(x [b, d], None, cond, out=(d, scalar.count)); output i must depend on inputs before i alone
            (`MADE`).
        scalar: the function applied to each dimension.
    """

    net: Network
    scalar: Scalar = Affine()

    def _out(self, x: State) -> tuple[int, int]:
        return math.prod(x.shape[1:]), self.scalar.count

    def init(self, key: Key, x: State, given: Given = NOTHING) -> PyTree:
        """See `Bijector.init`: the network's parameters."""
        return init_net(self.net, key, x.reshape(len(x), -1), given, self._out(x))

    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """See `Bijector.forward`: one pass of the network."""
        flat = x.reshape(len(x), -1)
        y, log_slope = self.scalar.forward(flat, apply_net(self.net, params, flat, given, self._out(x)))
        return y.reshape(x.shape), sum_dims(log_slope)

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """See `Bijector.inverse`: one pass of the network per dimension, the remaining dimensions set to zero."""
        flat = y.reshape(len(y), -1)
        places = jnp.arange(flat.shape[1])

        def step(x: Array, place: Array) -> tuple[Array, None]:
            found = self.scalar.inverse(flat, apply_net(self.net, params, x, given, self._out(y)))
            return jnp.where(places[None] == place, found, x), None

        return jax.lax.scan(step, jnp.zeros_like(flat), places)[0].reshape(y.shape)


@dataclass(frozen=True)
class Elementwise(Bijector):
    """Applies a learned function to each element, with unconditional parameters; starts as the identity.

    Attributes:
        scalar: the kind of function.
    """

    scalar: Scalar = Affine()

    def init(self, key: Key, x: State, given: Given = NOTHING) -> PyTree:
        """See `Bijector.init`: theta = 0 for each element."""
        return {"theta": jnp.zeros((*x.shape[1:], self.scalar.count), jnp.float32)}

    def _theta(self, params: PyTree, x: State) -> Array:
        theta = params["theta"].astype(x.dtype)
        return jnp.broadcast_to(theta[None], (*x.shape, self.scalar.count))

    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """See `Bijector.forward`."""
        y, log_slope = self.scalar.forward(x, self._theta(params, x))
        return y, sum_dims(log_slope)

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """See `Bijector.inverse`."""
        return self.scalar.inverse(y, self._theta(params, y))
