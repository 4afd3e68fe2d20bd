"""What a bijector is, and how bijectors are put together.

A bijector f maps data x to y = f(x), and says how it changes volumes; with a base law p_0 (Rezende & Mohamed 2015,
arXiv:1505.05770; Dinh et al. 2017, arXiv:1605.08803, eq. 2-3)

    log p(x) = log p_0(f(x)) + log |det df/dx|,        x = f^{-1}(z),  z ~ p_0.

It is a frozen dataclass of hyperparameters with one method to write, `forward`, which gives y and log |det dy/dx|, and
`inverse` where there is one. Every bijector keeps the shape of x: squeezing and factoring out are wrappers around what
happens inside (`shape`), so that the base is a law of arrays of the data's own shape. Chains follow:

    f = f_n o ... o f_1:    log |det| = sum_i log |det f_i|,    f^{-1} = f_1^{-1} o ... o f_n^{-1}.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.objective import Network
from genjax.core.types import Array, Key, PyTree, record

State = Float[Array, "b ..."]
LogDet = Float[Array, " b"]


@record
class Given:
    """What a bijector may know beside x.

    Attributes:
        cond: conditioning vectors [b, k], or None.
        context: arrays [b, ...] that conditioner networks see beside x, along the last axis; or None.
        key: of dropout and of Hutchinson's probes; None where nothing is random.
        train: whether dropout is on; a Python bool.
    """

    cond: PyTree = None
    context: PyTree = None
    key: PyTree = None
    train: bool = field(default=False, metadata={"static": True})

    def part(self, index: int | Array) -> "Given":
        """The same for part `index` of a composition: with a key of its own."""
        key = None if self.key is None else jax.random.fold_in(self.key, index)
        return Given(self.cond, self.context, key, self.train)


NOTHING = Given()


@dataclass(frozen=True)
class Bijector(abc.ABC):
    """An invertible map of arrays [b, *shape] to arrays of the same shape, each example by itself."""

    def init(self, key: Key, x: State, given: Given = NOTHING) -> PyTree:
        """Makes the parameters, float32; those that depend on data are made for the batch x. None by default."""
        return {}

    @abc.abstractmethod
    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """Maps x (from the data's side).

        Args:
            params: as `init` makes them.
            x: float32 or float64 [b, *shape].
            given: what there is beside x.

        Returns:
            (y [b, *shape], log |det dy/dx| in nats [b]).
        """

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """The x with forward(x) = y.

        Raises:
            UserError: this bijector has no inverse that can be computed.
        """
        raise UserError(f"{type(self).__name__} has no explicit inverse: it gives densities, but no samples")

    def way(self, params: PyTree, y: State, given: Given = NOTHING) -> Float[Array, "n b ..."]:
        """The states after each of the inverse's layers, the last of which is x."""
        return self.inverse(params, y, given)[None]

    @property
    def estimate(self) -> str:
        """Why the log-determinant is not exact, in words; empty where it is."""
        return ""


def start_net(net: Network, key: Key, x: State, given: Given, out: tuple[int, ...]) -> PyTree:
    """Parameters of a conditioner network for one example's output of shape `out`."""
    return net.init(key, _seen(x, given), None, given.cond, out=out)


def run_net(net: Network, params: PyTree, x: State, given: Given, out: tuple[int, ...]) -> State:
    """A conditioner network's output [b, *out] at x and what is given, in the dtype of x."""
    options: dict[str, Any] = {}
    if given.train and given.key is not None:
        options = {"train": True, "rngs": {"dropout": given.key}}
    return net.apply(params, _seen(x, given), None, given.cond, out=out, **options).astype(x.dtype)


def _seen(x: State, given: Given) -> State:
    return x if given.context is None else jnp.concatenate([x, given.context.astype(x.dtype)], axis=-1)


@dataclass(frozen=True)
class Chain(Bijector):
    """Bijectors one after the other, the first nearest to the data.

    Attributes:
        parts: of any kinds; none make the identity.
    """

    parts: tuple[Bijector, ...] = ()

    def init(self, key: Key, x: State, given: Given = NOTHING) -> PyTree:
        """Each part sees what the ones before it make of x."""
        params = {}
        for index, part in enumerate(self.parts):
            here = given.part(index)
            params[str(index)] = part.init(jax.random.fold_in(key, index), x, here)
            if index + 1 < len(self.parts):
                x, _ = part.forward(params[str(index)], x, here)
        return params

    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """First to last."""
        total = jnp.zeros(len(x), x.dtype)
        for index, part in enumerate(self.parts):
            x, log_det = part.forward(params[str(index)], x, given.part(index))
            total = total + log_det
        return x, total

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """Last to first."""
        for index, part in reversed(tuple(enumerate(self.parts))):
            y = part.inverse(params[str(index)], y, given.part(index))
        return y

    def way(self, params: PyTree, y: State, given: Given = NOTHING) -> Float[Array, "n b ..."]:
        """The layers of all parts."""
        states = []
        for index, part in reversed(tuple(enumerate(self.parts))):
            states.append(part.way(params[str(index)], y, given.part(index)))
            y = states[-1][-1]
        return jnp.concatenate(states) if states else y[None]

    @property
    def estimate(self) -> str:
        """What the parts say."""
        return ", ".join(part.estimate for part in self.parts if part.estimate)


@dataclass(frozen=True)
class Repeat(Bijector):
    """The same bijector `count` times with parameters of its own each time: one compiled layer, scanned.

    Attributes:
        inner: one layer, or the few that alternate as a `Chain`.
        count: how often.
        remat: compute the layers again on the way back instead of keeping what they made: less memory, a third
            more time.
    """

    inner: Bijector
    count: int
    remat: bool = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"count={self.count} layers must be at least 1")

    def init(self, key: Key, x: State, given: Given = NOTHING) -> PyTree:
        """Parameters stacked along a new first axis; each layer sees what the ones before it make of x."""

        def step(x: State, index: Array) -> tuple[State, PyTree]:
            here = given.part(index)
            params = self.inner.init(jax.random.fold_in(key, index), x, here)
            return self.inner.forward(params, x, here)[0], params

        return jax.lax.scan(step, x, jnp.arange(self.count))[1]

    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """By one scan."""

        def step(carry: tuple[State, LogDet], layer: tuple[PyTree, Array]) -> tuple[Any, None]:
            y, log_det = self.inner.forward(layer[0], carry[0], given.part(layer[1]))
            return (y, carry[1] + log_det), None

        body: Callable[..., Any] = jax.checkpoint(step) if self.remat else step
        layers = (params, jnp.arange(self.count))
        return jax.lax.scan(body, (x, jnp.zeros(len(x), x.dtype)), layers)[0]

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """By one scan from the last layer to the first."""

        def step(y: State, layer: tuple[PyTree, Array]) -> tuple[State, None]:
            return self.inner.inverse(layer[0], y, given.part(layer[1])), None

        return jax.lax.scan(step, y, (params, jnp.arange(self.count)), reverse=True)[0]

    def way(self, params: PyTree, y: State, given: Given = NOTHING) -> Float[Array, "n b ..."]:
        """The state after each layer."""

        def step(y: State, layer: tuple[PyTree, Array]) -> tuple[State, State]:
            x = self.inner.inverse(layer[0], y, given.part(layer[1]))
            return x, x

        return jax.lax.scan(step, y, (params, jnp.arange(self.count)), reverse=True)[1][::-1]

    @property
    def estimate(self) -> str:
        """What the layer says."""
        return self.inner.estimate


@dataclass(frozen=True)
class Inverse(Bijector):
    """A bijector the other way round, f^{-1} with log |det df^{-1}/dx| = -log |det df/dy| at y = f^{-1}(x).

    Around an autoregressive bijector it is an inverse autoregressive flow: fast samples, slow densities.

    Attributes:
        inner: one that has an inverse.
    """

    inner: Bijector

    def init(self, key: Key, x: State, given: Given = NOTHING) -> PyTree:
        """Those of the inner one; x, which is on its other side, serves for the shape (and for statistics)."""
        return self.inner.init(key, x, given)

    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """The inner inverse, then the inner one for its log-determinant."""
        y = self.inner.inverse(params, x, given)
        return y, -self.inner.forward(params, y, given)[1]

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """The inner one."""
        return self.inner.forward(params, y, given)[0]

    @property
    def estimate(self) -> str:
        """What the inner one says."""
        return self.inner.estimate
