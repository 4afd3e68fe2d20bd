"""Normalizing flows: the data density is the pushforward of a base density by an invertible map.

    log p(x | c) = log p_0(f(x; c)) + log |det df/dx|,     loss = -log p(x | c) / D   (nats per dimension).

Bijectors, bases and dequantization are in `genjax.distributions.flows`. Integers 0 ... L - 1 become y = (x + u) / L in
[0, 1], u uniform or itself from a flow, and the reported number is a lower bound on log P(x); with k draws of u the
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

from genjax.conditioning.labels import condition_vector
from genjax.core.errors import UserError
from genjax.core.objective import Aux, Conditioner, Context, Player, Sampling
from genjax.core.tree import tunable
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.distributions.flows.base import Base, Normal
from genjax.distributions.flows.bijector import Bijector, Given
from genjax.distributions.flows.dequantize import Dequantization, UniformNoise
from genjax.objectives.common import check_shape


@dataclass(frozen=True)
class Flow:
    """A density trained by maximum likelihood and sampled by the inverse map.

    Attributes:
        bijector: f, from data (with `levels`, from the unit cube) to the base.
        shape: of one example.
        base: p_0.
        condition: what the model is given beside x, such as `Labels`; None for an unconditional model.
        levels: L, for integer data without transforms; 0 for continuous data.
        dequantize: distribution of u, with `levels`.
        draws: of u per example in `log_prob`.
        temperature: of the base when sampling.
    """

    bijector: Bijector
    shape: tuple[int, ...]
    base: Base = Normal()
    condition: Conditioner | None = None
    levels: int = 0
    dequantize: Dequantization = UniformNoise()
    draws: int = tunable(1)
    temperature: float = tunable(1.0)

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise UserError(f"draws={self.draws} must be at least 1")

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Initialises the player `flow`; data-dependent parameters (ActNorm) from this batch.

        Raises:
            UserError: the batch's shape is not `shape`, or it is integer without `levels` or float with `levels`.
        """
        check_shape(self.shape, batch, self.condition)
        x, cond = batch["x"], condition_vector(self.condition, batch, len(batch["x"]))
        discrete = jnp.issubdtype(x.dtype, jnp.integer)
        if discrete and not self.levels:
            raise UserError(
                "the data are integers: set config.objective.levels, or dequantize and scale them"
            )
        if self.levels and not discrete:
            raise UserError(
                f"levels={self.levels} needs integer data: leave out transforms such as Scale, or set levels=0"
            )
        noise = self.dequantize.init(named(key, "dequantize"), x, self.levels, cond) if discrete else {}
        params = {"bijector": {}, "dequantize": noise}
        given = Given(cond, key=named(key, "given"))
        y, _ = self._continuous(params, x, given)
        params["bijector"] = self.bijector.init(named(key, "bijector"), y, given)
        return {"flow": params}, {}

    def players(self) -> Mapping[str, Player]:
        """One player, `flow`."""
        return {"flow": Player(self.loss)}

    def _continuous(self, params: Mapping, x: Array, given: Given) -> tuple[Array, Float[Array, " b"]]:
        """The bijector's input, and the log-density correction of dequantization and scaling."""
        if not self.levels:
            return x, jnp.zeros(len(x), x.dtype)
        noise = Given(given.cond, key=named(given.key, "dequantize"), train=given.train)
        u, log_q = self.dequantize.draw(params["dequantize"], x, self.levels, noise)
        return (x + u) / self.levels, -log_q - math.prod(self.shape) * math.log(self.levels)

    def _log_prob(self, params: Params, x: Array, given: Given) -> Float[Array, " b"]:
        """Log-density in nats, with one draw of dequantization noise and probes."""
        y, rest = self._continuous(params["flow"], x, given)
        z, log_det = self.bijector.forward(params["flow"]["bijector"], y, given)
        return self.base.log_prob(z) + log_det + rest

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """Mean negative log-density in nats per dimension; the metric "nats" is per example.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape]; and what `condition` is made from.
            ctx: PRNG key, step, and whether this is training.

        Returns:
            (scalar loss, metrics).
        """
        x = batch["x"]
        given = Given(
            condition_vector(self.condition, batch, len(x)), key=named(ctx.key, "given"), train=ctx.train
        )
        nats = -jnp.mean(self._log_prob(params, x, given))
        return nats / math.prod(self.shape), Aux({"nats": nats})

    @property
    def dequantization(self) -> str:
        """Name of the distribution of u; empty for continuous data."""
        return self.dequantize.name if self.levels else ""

    @property
    def log_prob_kind(self) -> str:
        """ "exact", a lower bound through dequantization, an ODE estimate, or both of the latter."""
        parts = [self.bijector.estimate] if self.bijector.estimate else []
        if self.levels:
            draws = f", {self.draws} draws" if self.draws > 1 else ""
            parts.append(f"lower bound ({self.dequantization} dequantization{draws})")
        return "; ".join(parts) or "exact"

    def log_prob(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Float[Array, " b"]:
        """Log-density of each example given its label; with `levels` a lower bound on the log-probability.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape]; and what `condition` is made from.
            key: typed PRNG key.

        Returns:
            Nats [b].
        """
        cond = condition_vector(self.condition, batch, len(batch["x"]))
        draws = self.draws if self.levels else 1

        def once(index: Array) -> Float[Array, " b"]:
            return self._log_prob(params, batch["x"], Given(cond, key=jax.random.fold_in(key, index)))

        return jax.nn.logsumexp(jax.lax.map(once, jnp.arange(draws)), axis=0) - math.log(draws)

    sampling = Sampling("direct")

    def sample(self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None) -> Array:
        """Maps draws from the base to data.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            key: typed PRNG key.
            num: number of samples.
            cond: `"label"` int32 [num], or None to sample unconditionally.

        Returns:
            [num, *shape], float32, or int32 with `levels`.
        """
        return self._data(self.bijector.inverse(params["flow"]["bijector"], *self._draw_base(key, num, cond)))

    @property
    def window(self) -> tuple[float, float]:
        """The base's `window`."""
        return self.base.window

    def path(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> tuple[Float[Array, " n"], Array]:
        """Draws from the base and their states after each layer of the inverse.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            key: typed PRNG key.
            num: number of samples.
            cond: `"label"` int32 [num], or None to sample unconditionally.

        Returns:
            (layer numbers [n] float32, states [n, num, *shape]).
        """
        z, given = self._draw_base(key, num, cond)
        return self._with_times(self._inverse_states(params, z, given))

    def warp(
        self, params: Params, extra: Extra, z: Float[Array, "b ..."]
    ) -> tuple[Float[Array, " n"], Float[Array, "n b ..."]]:
        """Given points of the base and their states after each layer of the inverse, unconditionally.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            z: points [b, *shape].

        Returns:
            (layer numbers [n] float32, states [n, b, *shape]).
        """
        return self._with_times(
            self._inverse_states(params, z, Given(condition_vector(self.condition, None, len(z))))
        )

    def _draw_base(self, key: Key, num: int, cond: Batch | None) -> tuple[Array, Given]:
        z = self.base.sample(named(key, "base"), (num, *self.shape), self.temperature)
        return z, Given(condition_vector(self.condition, cond, num))

    def _inverse_states(self, params: Params, z: Array, given: Given) -> Array:
        return jnp.concatenate([z[None], self.bijector.inverse_states(params["flow"]["bijector"], z, given)])

    def _with_times(self, states: Array) -> tuple[Array, Array]:
        return jnp.arange(len(states), dtype=jnp.float32), self._data(states)

    def _data(self, y: Array) -> Array:
        """Maps the bijector's data side to data."""
        if not self.levels:
            return y
        return jnp.clip(jnp.floor(y * self.levels), 0, self.levels - 1).astype(jnp.int32)
