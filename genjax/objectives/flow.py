"""Normalizing flows: an invertible map from data to a simple law, with its exact density.

    log p(x | c) = log p_0(f(x; c)) + log |det df/dx|,     loss = -log p(x | c) / D   (nats per dimension).

Bijectors, bases and dequantization are in `genjax.distributions.flows`. Data of integers 0 ... L - 1 become y = (x + u) / L in
[0, 1], u uniform or itself from a flow, and what is reported is a lower bound on log P(x); with k draws of u the
tighter

    log P(x) >= E[ log (1 / k) sum_i p(x + u_i) / q(u_i | x) ]      (Burda et al. 2016, arXiv:1509.00519, eq. 8).

Continuous data have an exact density, or that of a discretised ODE if a bijector is one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.objective import Aux, Context, Player
from genjax.core.tree import tunable
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.distributions.flows.base import Base, Normal
from genjax.distributions.flows.bijector import Bijector, Given
from genjax.distributions.flows.dequantize import Dequantization, UniformNoise
from genjax.objectives.common import check_shape, condition


@dataclass(frozen=True)
class Flow:
    """Learns a density by maximum likelihood, and samples by the inverse.

    Attributes:
        bijector: f, from data (or, with `levels`, from the unit cube) to the base.
        shape: of one example.
        base: p_0.
        classes: number of labels that all conditioner networks are given; 0 for none.
        levels: L, for integer data without transforms; 0 for continuous data.
        dequantize: law of u, with `levels`.
        draws: of u for each example when its log-probability is asked for.
        temperature: of the base when sampling.
    """

    bijector: Bijector
    shape: tuple[int, ...]
    base: Base = Normal()
    classes: int = 0
    levels: int = 0
    dequantize: Dequantization = UniformNoise()
    draws: int = tunable(1)
    temperature: float = tunable(1.0)

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise UserError(f"draws={self.draws} must be at least 1")

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """One player, `flow`; what depends on data (ActNorm) is made for this batch.

        Raises:
            UserError: the batch has another shape than `shape`, or integers where there are no levels, or no
                integers where there are.
        """
        check_shape(self.shape, batch, self.classes)
        x, cond = batch["x"], condition(batch, len(batch["x"]), self.classes)
        discrete = jnp.issubdtype(x.dtype, jnp.integer)
        if discrete and not self.levels:
            raise UserError(
                "the data are integers: set --config.objective.levels, or dequantize and scale them"
            )
        if self.levels and not discrete:
            raise UserError(
                f"levels={self.levels} is for integer data: leave out transforms such as Scale, or set levels=0"
            )
        noise = self.dequantize.init(named(key, "dequantize"), x, self.levels, cond) if discrete else {}
        params = {"bijector": {}, "dequantize": noise}
        given = Given(cond, key=named(key, "given"))
        y, _ = self._continuous(params, x, given)
        params["bijector"] = self.bijector.init(named(key, "bijector"), y, given)
        return {"flow": params}, {}

    def players(self) -> Mapping[str, Player]:
        """One."""
        return {"flow": Player(self.loss)}

    def _continuous(self, params: Mapping, x: Array, given: Given) -> tuple[Array, Float[Array, " b"]]:
        """What the bijector sees, and the log-density to add to its density for that of x."""
        if not self.levels:
            return x, jnp.zeros(len(x), x.dtype)
        noise = Given(given.cond, key=named(given.key, "dequantize"), train=given.train)
        u, log_q = self.dequantize.draw(params["dequantize"], x, self.levels, noise)
        return (x + u) / self.levels, -log_q - math.prod(self.shape) * math.log(self.levels)

    def _log_prob(self, params: Params, x: Array, given: Given) -> Float[Array, " b"]:
        """With one draw of what is random, nats."""
        y, rest = self._continuous(params["flow"], x, given)
        z, log_det = self.bijector.forward(params["flow"]["bijector"], y, given)
        return self.base.log_prob(z) + log_det + rest

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """Mean nats per dimension; the metric "nats" is per example."""
        x = batch["x"]
        given = Given(condition(batch, len(x), self.classes), key=named(ctx.key, "given"), train=ctx.train)
        nats = -jnp.mean(self._log_prob(params, x, given))
        return nats / math.prod(self.shape), Aux({"nats": nats})

    @property
    def log_prob_kind(self) -> str:
        """Exact, a bound through dequantization, or an ODE's estimate; or both of these."""
        parts = [self.bijector.estimate] if self.bijector.estimate else []
        if self.levels:
            draws = f", {self.draws} draws" if self.draws > 1 else ""
            parts.append(f"lower bound ({self.dequantize.name} dequantization{draws})")
        return "; ".join(parts) or "exact"

    def log_prob(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Float[Array, " b"]:
        """Log-density (with `levels` a bound on the log-probability) of each example in nats; given its label."""
        cond = condition(batch, len(batch["x"]), self.classes)
        draws = self.draws if self.levels else 1

        def once(index: Array) -> Float[Array, " b"]:
            return self._log_prob(params, batch["x"], Given(cond, key=jax.random.fold_in(key, index)))

        return jax.nn.logsumexp(jax.lax.map(once, jnp.arange(draws)), axis=0) - math.log(draws)

    def sample(self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None) -> Array:
        """Maps draws from the base back to data: float32, or int32 with `levels`."""
        return self._data(self.bijector.inverse(params["flow"]["bijector"], *self._start(key, num, cond)))

    @property
    def window(self) -> tuple[float, float]:
        """The base's."""
        return self.base.window

    def path(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> tuple[Float[Array, " n"], Array]:
        """The base's draws and what each layer of the inverse makes of them; times count layers."""
        z, given = self._start(key, num, cond)
        return self._counted(self._way(params, z, given))

    def warp(
        self, params: Params, extra: Extra, z: Float[Array, "b ..."]
    ) -> tuple[Float[Array, " n"], Float[Array, "n b ..."]]:
        """Points of the base and where each layer of the inverse takes them, for no label in particular."""
        return self._counted(self._way(params, z, Given(condition(None, len(z), self.classes))))

    def _start(self, key: Key, num: int, cond: Batch | None) -> tuple[Array, Given]:
        z = self.base.sample(named(key, "base"), (num, *self.shape), self.temperature)
        return z, Given(condition(cond, num, self.classes))

    def _way(self, params: Params, z: Array, given: Given) -> Array:
        return jnp.concatenate([z[None], self.bijector.way(params["flow"]["bijector"], z, given)])

    def _counted(self, states: Array) -> tuple[Array, Array]:
        return jnp.arange(len(states), dtype=jnp.float32), self._data(states)

    def _data(self, y: Array) -> Array:
        """From the bijector's side of the data to the data."""
        if not self.levels:
            return y
        return jnp.clip(jnp.floor(y * self.levels), 0, self.levels - 1).astype(jnp.int32)
