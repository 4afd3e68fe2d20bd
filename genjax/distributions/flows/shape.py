"""Multi-scale bijectors of images, and the map from the unit interval to the real line.

RealNVP (Dinh et al. 2017, arXiv:1605.08803, section 3.6) squeezes 2 x 2 pixels into channels, transforms, factors out
half of the channels, which no later layer changes, and continues with the rest. Here both are wrappers that restore the
shape of their input, so scales nest:

    Squeeze(Chain((steps, Half(Squeeze(Chain((steps, Half(...))))))))

A channel coupling as the last of the steps, which transforms the factored-out half given the other, is Glow's learned
prior of that half: N(mean(h), std(h)) is an affine map of N(0, 1) whose parameters are a network's function of h.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.arrays import sum_dims
from genjax.core.errors import UserError
from genjax.core.types import Array, Key, PyTree
from genjax.distributions.flows.bijector import NOTHING, Bijector, Given, LogDet, State
from genjax.networks.layers.ops import depth_to_space, space_to_depth


@dataclass(frozen=True)
class Squeeze(Bijector):
    """Applies a bijector to the image with blocks of 2 x 2 pixels as channels.

    Attributes:
        inner: of arrays [b, h / 2, w / 2, 4 c].
    """

    inner: Bijector

    def _inside(self, x: State, given: Given) -> tuple[State, Given]:
        if x.ndim != 4 or x.shape[1] % 2 or x.shape[2] % 2:
            raise UserError(
                f"Squeeze needs images of even height and width, but examples have shape {x.shape[1:]}"
            )
        context = None if given.context is None else space_to_depth(given.context)
        return space_to_depth(x), Given(given.cond, context, given.key, given.train)

    def init(self, key: Key, x: State, given: Given = NOTHING) -> PyTree:
        """See `Bijector.init`: the inner parameters.

        Raises:
            UserError: height or width is odd.
        """
        return self.inner.init(key, *self._inside(x, given))

    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """See `Bijector.forward`: squeezes, transforms, unsqueezes."""
        y, log_det = self.inner.forward(params, *self._inside(x, given))
        return depth_to_space(y), log_det

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """See `Bijector.inverse`."""
        return depth_to_space(self.inner.inverse(params, *self._inside(y, given)))

    def inverse_states(self, params: PyTree, y: State, given: Given = NOTHING) -> Float[Array, "n b ..."]:
        """See `Bijector.inverse_states`: those of the inner bijector."""
        return jax.vmap(depth_to_space)(self.inner.inverse_states(params, *self._inside(y, given)))

    @property
    def estimate(self) -> str:
        """See `Bijector.estimate`: that of the inner bijector."""
        return self.inner.estimate


@dataclass(frozen=True)
class Half(Bijector):
    """Applies a bijector to the first half of the channels; the second half is factored out and unchanged.

    Attributes:
        inner: of arrays [b, ..., c / 2].
    """

    inner: Bijector

    def _apart(self, x: State) -> tuple[State, State]:
        if x.shape[-1] % 2:
            raise UserError(f"factoring out half of {x.shape[-1]} channels: the number must be even")
        first, last = jnp.split(x, 2, axis=-1)
        return first, last

    def init(self, key: Key, x: State, given: Given = NOTHING) -> PyTree:
        """See `Bijector.init`: the inner parameters.

        Raises:
            UserError: the number of channels is odd.
        """
        return self.inner.init(key, self._apart(x)[0], given)

    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """See `Bijector.forward`: transforms the first half."""
        first, last = self._apart(x)
        y, log_det = self.inner.forward(params, first, given)
        return jnp.concatenate([y, last], axis=-1), log_det

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """See `Bijector.inverse`: inverts the first half."""
        first, last = self._apart(y)
        return jnp.concatenate([self.inner.inverse(params, first, given), last], axis=-1)

    def inverse_states(self, params: PyTree, y: State, given: Given = NOTHING) -> Float[Array, "n b ..."]:
        """See `Bijector.inverse_states`: those of the inner bijector."""
        first, last = self._apart(y)
        states = self.inner.inverse_states(params, first, given)
        return jnp.concatenate([states, jnp.broadcast_to(last[None], (len(states), *last.shape))], axis=-1)

    @property
    def estimate(self) -> str:
        """See `Bijector.estimate`: that of the inner bijector."""
        return self.inner.estimate


@dataclass(frozen=True)
class Logit(Bijector):
    """y = logit(alpha + (1 - 2 alpha) x), for x in [0, 1] (arXiv:1605.08803, section 4.1).

    Attributes:
        alpha: bounds |y| by logit(1 - alpha).
    """

    alpha: float = 0.05

    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """See `Bijector.forward`: log dy/dx = log(1 - 2 alpha) + softplus(y) + softplus(-y)."""
        v = self.alpha + (1.0 - 2.0 * self.alpha) * x
        y = jnp.log(v) - jnp.log1p(-v)
        return y, sum_dims(math.log(1.0 - 2.0 * self.alpha) + jax.nn.softplus(y) + jax.nn.softplus(-y))

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """See `Bijector.inverse`: (sigmoid(y) - alpha) / (1 - 2 alpha), which may leave [0, 1]."""
        return (jax.nn.sigmoid(y) - self.alpha) / (1.0 - 2.0 * self.alpha)
