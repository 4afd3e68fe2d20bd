"""The interface of bijectors, and their composition.

A bijector f maps data x to y = f(x) with a tractable log-determinant; with a base density p_0 (Rezende & Mohamed 2015,
arXiv:1505.05770; Dinh et al. 2017, arXiv:1605.08803, eq. 2-3)

    log p(x) = log p_0(f(x)) + log |det df/dx|,        x = f^{-1}(z),  z ~ p_0.

It is a frozen dataclass of hyperparameters with one required method, `forward`, which returns y and log |det dy/dx|,
and `inverse` where it exists. Every bijector keeps the shape of x: squeezing and factoring out are wrappers around
inner bijectors (`shape`), so the base distribution has the data's own shape. Chains follow:

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
    """Inputs of a bijector beside x.

    Attributes:
        cond: conditioning vectors [b, k], or None.
        context: arrays [b, ...] concatenated to the conditioner networks' input along the last axis; or None.
        key: PRNG key of dropout and of Hutchinson's probes; None where nothing is random.
        train: whether dropout is on; a Python bool.
    """

    cond: PyTree = None
    context: PyTree = None
    key: PyTree = None
    train: bool = field(default=False, metadata={"static": True})

    def part(self, index: int | Array) -> "Given":
        """The same for part `index` of a composition, with its own key."""
        key = None if self.key is None else jax.random.fold_in(self.key, index)
        return Given(self.cond, self.context, key, self.train)


NOTHING = Given()


@dataclass(frozen=True)
class Bijector(abc.ABC):
    """An invertible map of arrays [b, *shape] to arrays of the same shape, applied to each example independently."""

    def init(self, key: Key, x: State, given: Given = NOTHING) -> PyTree:
        """Initialises the float32 parameters; data-dependent ones from the batch x. {} by default.

        Args:
            key: typed PRNG key.
            x: a batch [b, *shape].
            given: conditioning, PRNG key and train flag.

        Returns:
            Parameters.
        """
        return {}

    @abc.abstractmethod
    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """Maps x towards the base.

        Args:
            params: as `init` returns them.
            x: float32 or float64 [b, *shape].
            given: conditioning, PRNG key and train flag.

        Returns:
            (y [b, *shape], log |det dy/dx| in nats [b]).
        """

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """Solves forward(x) = y for x.

        Args:
            params: as `init` returns them.
            y: [b, *shape].
            given: conditioning, PRNG key and train flag.

        Returns:
            x [b, *shape].

        Raises:
            UserError: the bijector has no computable inverse.
        """
        raise UserError(f"{type(self).__name__} has no explicit inverse: it gives densities, but no samples")

    def inverse_states(self, params: PyTree, y: State, given: Given = NOTHING) -> Float[Array, "n b ..."]:
        """The intermediate states of `inverse`.

        Args:
            params: as `init` returns them.
            y: [b, *shape].
            given: conditioning, PRNG key and train flag.

        Returns:
            States after each layer of the inverse [n, b, *shape]; the last is x.
        """
        return self.inverse(params, y, given)[None]

    @property
    def estimate(self) -> str:
        """How the log-determinant is estimated; empty if it is exact."""
        return ""


def init_net(net: Network, key: Key, x: State, given: Given, out: tuple[int, ...]) -> PyTree:
    """Initialises a conditioner network.

    Args:
        net: called as net(x, None, cond, out=...).
        key: typed PRNG key.
        x: its input [b, ...].
        given: conditioning, PRNG key and train flag.
        out: shape of the output of one example.

    Returns:
        Its parameters.
    """
    return net.init(key, _net_input(x, given), None, given.cond, out=out)


def apply_net(net: Network, params: PyTree, x: State, given: Given, out: tuple[int, ...]) -> State:
    """Applies a conditioner network, with dropout if `given` says so.

    Args:
        net: as in `init_net`.
        params: its parameters.
        x: its input [b, ...].
        given: conditioning, PRNG key and train flag.
        out: shape of the output of one example.

    Returns:
        Output [b, *out] in the dtype of x.
    """
    options: dict[str, Any] = {}
    if given.train and given.key is not None:
        options = {"train": True, "rngs": {"dropout": given.key}}
    return net.apply(params, _net_input(x, given), None, given.cond, out=out, **options).astype(x.dtype)


def _net_input(x: State, given: Given) -> State:
    return x if given.context is None else jnp.concatenate([x, given.context.astype(x.dtype)], axis=-1)


@dataclass(frozen=True)
class Chain(Bijector):
    """Composition of bijectors, the first nearest to the data.

    Attributes:
        parts: of any kinds; an empty tuple is the identity.
    """

    parts: tuple[Bijector, ...] = ()

    def init(self, key: Key, x: State, given: Given = NOTHING) -> PyTree:
        """See `Bijector.init`: each part is initialised with the output of the parts before it."""
        params = {}
        for index, part in enumerate(self.parts):
            here = given.part(index)
            params[str(index)] = part.init(jax.random.fold_in(key, index), x, here)
            if index + 1 < len(self.parts):
                x, _ = part.forward(params[str(index)], x, here)
        return params

    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """See `Bijector.forward`: first to last."""
        total = jnp.zeros(len(x), x.dtype)
        for index, part in enumerate(self.parts):
            x, log_det = part.forward(params[str(index)], x, given.part(index))
            total = total + log_det
        return x, total

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """See `Bijector.inverse`: last to first."""
        for index, part in reversed(tuple(enumerate(self.parts))):
            y = part.inverse(params[str(index)], y, given.part(index))
        return y

    def inverse_states(self, params: PyTree, y: State, given: Given = NOTHING) -> Float[Array, "n b ..."]:
        """See `Bijector.inverse_states`: the states of all parts."""
        states = []
        for index, part in reversed(tuple(enumerate(self.parts))):
            states.append(part.inverse_states(params[str(index)], y, given.part(index)))
            y = states[-1][-1]
        return jnp.concatenate(states) if states else y[None]

    @property
    def estimate(self) -> str:
        """See `Bijector.estimate`: those of the parts."""
        return ", ".join(part.estimate for part in self.parts if part.estimate)


@dataclass(frozen=True)
class Repeat(Bijector):
    """`count` layers of the same bijector, each with its own parameters: one compiled layer, scanned.

    Attributes:
        inner: one layer, or several that alternate as a `Chain`.
        count: number of layers.
        remat: recompute the layers in the backward pass instead of storing activations: less memory, a third
            more time.
    """

    inner: Bijector
    count: int
    remat: bool = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"count={self.count} layers must be at least 1")

    def init(self, key: Key, x: State, given: Given = NOTHING) -> PyTree:
        """See `Bijector.init`: parameters stacked along a new first axis, each layer initialised with its own input."""

        def step(x: State, index: Array) -> tuple[State, PyTree]:
            here = given.part(index)
            params = self.inner.init(jax.random.fold_in(key, index), x, here)
            return self.inner.forward(params, x, here)[0], params

        return jax.lax.scan(step, x, jnp.arange(self.count))[1]

    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """See `Bijector.forward`: one scan."""

        def step(carry: tuple[State, LogDet], layer: tuple[PyTree, Array]) -> tuple[Any, None]:
            y, log_det = self.inner.forward(layer[0], carry[0], given.part(layer[1]))
            return (y, carry[1] + log_det), None

        body: Callable[..., Any] = jax.checkpoint(step) if self.remat else step
        layers = (params, jnp.arange(self.count))
        return jax.lax.scan(body, (x, jnp.zeros(len(x), x.dtype)), layers)[0]

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """See `Bijector.inverse`: one scan from the last layer to the first."""

        def step(y: State, layer: tuple[PyTree, Array]) -> tuple[State, None]:
            return self.inner.inverse(layer[0], y, given.part(layer[1])), None

        return jax.lax.scan(step, y, (params, jnp.arange(self.count)), reverse=True)[0]

    def inverse_states(self, params: PyTree, y: State, given: Given = NOTHING) -> Float[Array, "n b ..."]:
        """See `Bijector.inverse_states`: the state after each layer."""

        def step(y: State, layer: tuple[PyTree, Array]) -> tuple[State, State]:
            x = self.inner.inverse(layer[0], y, given.part(layer[1]))
            return x, x

        return jax.lax.scan(step, y, (params, jnp.arange(self.count)), reverse=True)[1][::-1]

    @property
    def estimate(self) -> str:
        """See `Bijector.estimate`: that of the layer."""
        return self.inner.estimate


@dataclass(frozen=True)
class Inverse(Bijector):
    """The inverse bijector f^{-1}, with log |det df^{-1}/dx| = -log |det df/dy| at y = f^{-1}(x).

    Around an autoregressive bijector it is an inverse autoregressive flow: fast samples, slow densities.

    Attributes:
        inner: f, which must have an inverse.
    """

    inner: Bijector

    def init(self, key: Key, x: State, given: Given = NOTHING) -> PyTree:
        """See `Bijector.init`: the inner parameters; x is used for its shape and statistics."""
        return self.inner.init(key, x, given)

    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """See `Bijector.forward`: the inner inverse, then the inner forward for the log-determinant."""
        y = self.inner.inverse(params, x, given)
        return y, -self.inner.forward(params, y, given)[1]

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """See `Bijector.inverse`: the inner forward."""
        return self.inner.forward(params, y, given)[0]

    @property
    def estimate(self) -> str:
        """See `Bijector.estimate`: that of the inner bijector."""
        return self.inner.estimate
