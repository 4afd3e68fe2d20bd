"""Dequantization: integers to the unit interval, y = (x + u) / L for values 0 ... L - 1, u in [0, 1].

For any distribution q(u | x) (Theis et al. 2016, arXiv:1511.01844, section 3.1; Flow++, Ho et al. 2019,
arXiv:1902.00275, section 3.1)

    log P(x) = log E_q[ p(x + u) / q(u | x) ]  >=  E_q[ log p(x + u) - log q(u | x) ],     p(x + u) = p_Y(y) / L^D.

q is uniform, or a flow: u = sigmoid(v), v = f(eps; x), eps ~ N(0, I),

    log q(u | x) = log N(eps; 0, I) - log |det dv/deps| - sum log u (1 - u).
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.arrays import sum_dims
from genjax.core.types import Array, Key, PyTree, named
from genjax.distributions.flows.base import Normal
from genjax.distributions.flows.bijector import Bijector, Given

Integers = Int[Array, "b ..."]


@runtime_checkable
class Dequantization(Protocol):
    """The distribution q(u | x)."""

    @property
    def name(self) -> str:
        """One word, for reports."""
        ...

    def init(self, key: Key, x: Integers, levels: int, cond: Float[Array, "b k"] | None) -> PyTree:
        """Initialises its parameters.

        Args:
            key: typed PRNG key.
            x: integers [b, ...].
            levels: L.
            cond: conditioning vectors [b, k], or None.

        Returns:
            Parameters; {} for none.
        """
        ...

    def draw(
        self, params: PyTree, x: Integers, levels: int, given: Given
    ) -> tuple[Float[Array, "b ..."], Float[Array, " b"]]:
        """Draws u from q(u | x).

        Args:
            params: as `init` returns them.
            x: integers [b, ...].
            levels: L.
            given: conditioning and train flag; its `key` must be set.

        Returns:
            (u in [0, 1], float32 [b, ...], log q(u | x) in nats [b]).
        """
        ...


@dataclass(frozen=True)
class UniformNoise:
    """Uniform u: log q = 0."""

    @property
    def name(self) -> str:
        """See `Dequantization.name`."""
        return "uniform"

    def init(self, key: Key, x: Integers, levels: int, cond: Float[Array, "b k"] | None) -> PyTree:
        """See `Dequantization.init`: no parameters."""
        return {}

    def draw(
        self, params: PyTree, x: Integers, levels: int, given: Given
    ) -> tuple[Float[Array, "b ..."], Float[Array, " b"]]:
        """See `Dequantization.draw`: independent of x."""
        return jax.random.uniform(given.key, x.shape), jnp.zeros(len(x))


@dataclass(frozen=True)
class Variational:
    """u from a conditional flow given x.

    Attributes:
        bijector: f, whose conditioner networks get x, scaled to [-1, 1], concatenated to their input.
    """

    bijector: Bijector

    @property
    def name(self) -> str:
        """See `Dequantization.name`."""
        return "variational"

    def _given(self, x: Integers, levels: int, given: Given) -> Given:
        scaled = 2.0 * x.astype(jnp.float32) / (levels - 1.0) - 1.0
        return Given(given.cond, scaled, given.key, given.train)

    def init(self, key: Key, x: Integers, levels: int, cond: Float[Array, "b k"] | None) -> PyTree:
        """See `Dequantization.init`: the flow's parameters."""
        eps = Normal().sample(named(key, "noise"), x.shape)
        return self.bijector.init(named(key, "bijector"), eps, self._given(x, levels, Given(cond)))

    def draw(
        self, params: PyTree, x: Integers, levels: int, given: Given
    ) -> tuple[Float[Array, "b ..."], Float[Array, " b"]]:
        """See `Dequantization.draw`: one pass of the flow."""
        eps = Normal().sample(named(given.key, "noise"), x.shape)
        v, log_det = self.bijector.forward(params, eps, self._given(x, levels, given))
        log_slope = -sum_dims(jax.nn.softplus(v) + jax.nn.softplus(-v))
        return jax.nn.sigmoid(v), Normal().log_prob(eps) - log_det - log_slope
