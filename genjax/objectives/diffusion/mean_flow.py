"""MeanFlow: learns the average velocity of the flow, for sampling in one step (Geng et al. 2025, arXiv:2505.13447).

With the velocity v(z_t, t) of the probability-flow ODE, the average velocity from t back to r <= t is

    u(z_t, r, t) = 1 / (t - r) int_r^t v(z_s, s) ds        so that        z_r = z_t - (t - r) u(z_t, r, t).

Differentiating (t - r) u by t along the path gives the MeanFlow identity (eq. 6 and 8)

    u(z_t, r, t) = v(z_t, t) - (t - r) (v du/dz + du/dt).

The right-hand side of the regression uses the network's own derivative, a forward-mode product (eq. 9-11):

    loss = E [ w ||u - stopgrad(v_t - (t - r) (v_t du/dz + du/dt))||^2 ],    v_t = alpha' x_0 + sigma' eps,
    w = stopgrad(1 / (||error||^2 + c)^p)                                              (eq. 22).

Guidance is learned rather than applied in sampling (eq. 21, app. B): with u(., t, t) the network's velocity,

    v_t <- omega v_t + kappa u(z_t, t, t | label) + (1 - omega - kappa) u(z_t, t, t).

The effective guidance scale is omega / (1 - kappa). The network's time input is t, and its
conditioning vector is [label, t - r, cos and sin features of t - r].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from genjax.conditioning.labels import condition_vector, draw_kept
from genjax.core.arrays import sum_dims
from genjax.core.errors import UserError
from genjax.core.objective import Aux, Conditioner, Context, Network, Player, Sampling
from genjax.core.row_keys import first_row, keys_of_rows
from genjax.core.tree import tunable
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.diffusion.prediction import Prediction, Velocity, velocity
from genjax.diffusion.process import Process, RectifiedFlow, expand
from genjax.diffusion.times import LogitNormal, Times
from genjax.diffusion.weighting import Unit
from genjax.networks.layers.time_features import sinusoidal
from genjax.objectives.common import check_shape
from genjax.objectives.diffusion.compatibility import check_training

State = Float[Array, "b ..."]
Time = Float[Array, " b"]


@dataclass(frozen=True)
class MeanFlow:
    """Learns the average velocity over intervals [r, t].

    Attributes:
        net: called as net(z, t, cond, out=shape, train=...), gives an array shaped as z; a small `time_scale` of its
            time features keeps du/dt small.
        shape: of one example.
        condition: what the model is given beside x, such as `Labels`; None for an unconditional model.
        process: alpha and sigma.
        times: distribution of each end of the interval; the later end is t.
        apart: probability of r < t; for r = t the loss is that of flow matching.
        power: p of the adaptive weight; 0 is the squared error.
        offset: c of the adaptive weight.
        guidance: omega; 1 (with mix 0) learns the unguided conditional flow.
        mix: kappa, in [0, 1).
        features: number of cos and sin features of t - r, even.
        feature_scale: `time_scale` of these features.
        steps: evaluations per sample, at equal steps in t.
    """

    net: Network
    shape: tuple[int, ...]
    condition: Conditioner | None = None
    process: Process = RectifiedFlow()
    times: Times = LogitNormal(-0.4, 1.0, low=0.0)
    apart: float = 0.25
    power: float = 1.0
    offset: float = 1e-3
    guidance: float = 1.0
    mix: float = 0.0
    features: int = 16
    feature_scale: float = 10.0
    steps: int = tunable(1)

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """One player, `net`.

        Raises:
            UserError: the batch does not match `shape`, or `mix` is not in [0, 1).
        """
        check_shape(self.shape, batch, self.condition)
        if not 0.0 <= self.mix < 1.0:
            raise UserError(f"objective.mix={self.mix} must be in [0, 1)")
        check_training(self.process, Velocity(), Unit(), self.times)
        x = batch["x"]
        t = jnp.zeros(len(x), x.dtype)
        cond = self._conditioning_vector(t, condition_vector(self.condition, batch, len(x)))
        return {"net": self.net.init(key, x, t, cond, out=self.shape)}, {}

    def players(self) -> Mapping[str, Player]:
        """One player, `net`."""
        return {"net": Player(self.loss)}

    def _conditioning_vector(self, gap: Time, cond: Array | None) -> Float[Array, "b k"]:
        """The conditioning vector: label, t - r and the features of t - r."""
        waves = sinusoidal(gap, self.features, self.feature_scale).astype(gap.dtype)
        return jnp.concatenate([*([] if cond is None else [cond]), gap[:, None], waves], axis=-1)

    def average_velocity(
        self, params: Params, z: State, r: Time, t: Time, cond: Array | None = None, **options: Any
    ) -> State:
        """u(z, r, t).

        Args:
            params: by player.
            z: states at time t [b, ...].
            r: the earlier end of the interval [b].
            t: the later end [b].
            cond: conditioning vectors [b, k], or None.
            **options: passed to the network.

        Returns:
            The average velocity, shaped as z.
        """
        return self.net.apply(
            params["net"], z, t, self._conditioning_vector(t - r, cond), out=self.shape, **options
        )

    def draw_interval(self, key: Key, num: int) -> tuple[Time, Time]:
        """Draws (r, t), r <= t, each [num]; in training exactly round(`apart` * num) of them have r < t.

        With a row key (evaluation) an example's interval depends on no other: r < t with probability `apart`.
        """
        draw = lambda name: self.times.draw(self.process, named(key, name), num)
        if first_row(key) is not None:
            one, two = draw("one"), self._each(named(key, "two"), num)
            differ = jax.random.uniform(named(key, "apart"), (num,)) < self.apart
        else:
            # `times` are stratified in a fixed order
            one, two = draw("one"), jax.random.permutation(named(key, "pairs"), draw("two"))
            differ = jax.random.permutation(named(key, "apart"), num) < round(self.apart * num)
        return jnp.where(differ, jnp.minimum(one, two), one), jnp.where(differ, jnp.maximum(one, two), one)

    def _each(self, key: Key, num: int) -> Time:
        """Independent times, not stratified."""
        return jax.vmap(lambda own: self.times.draw(self.process, own, 1)[0])(keys_of_rows(key, num))

    def target(
        self, params: Params, z: State, v: State, r: Time, t: Time, cond: Array | None = None, **options: Any
    ) -> tuple[State, State]:
        """u(z, r, t) and its regression target by the MeanFlow identity.

        Args:
            params: by player.
            z: states at time t [b, ...].
            v: velocities at z, shaped as z.
            r: the earlier end of the interval [b].
            t: the later end [b].
            cond: conditioning vectors [b, k], or None.
            **options: passed to the network.

        Returns:
            (u, v - (t - r) du/dt along the direction (v, 0, 1) with gradients stopped), each shaped as z.
        """
        average = lambda z, r, t: self.average_velocity(params, z, r, t, cond, **options)
        u, rate = jax.jvp(average, (z, r, t), (v, jnp.zeros_like(r), jnp.ones_like(t)))
        return u, jax.lax.stop_gradient(v - expand(t - r, z) * rate)

    def _guided(
        self, params: Params, z: State, v: State, t: Time, cond: Array, kept: Bool[Array, " b"], options: Any
    ) -> State:
        """The guided velocity of eq. 21 where the label is kept; v where it is dropped."""
        velocity_at = lambda given: jax.lax.stop_gradient(
            self.average_velocity(params, z, t, t, given, **options)
        )
        free = 1.0 - self.guidance - self.mix
        mixed = self.guidance * v + free * velocity_at(jnp.zeros_like(cond))
        mixed = mixed + self.mix * velocity_at(cond) if self.mix else mixed
        return jnp.where(kept.reshape(-1, *(1,) * (z.ndim - 1)), mixed, v)

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """Adaptively weighted squared error of the average velocity against its target; metric: the plain error."""
        x0 = batch["x"]
        r, t = self.draw_interval(named(ctx.key, "times"), len(x0))
        eps = jax.random.normal(named(ctx.key, "noise"), x0.shape, x0.dtype)
        z, v = self.process.marginal(x0, eps, t), velocity(Prediction(x0, eps), self.process, t)
        cond = condition_vector(self.condition, batch, len(x0))
        options = {"train": ctx.train, "rngs": {"dropout": named(ctx.key, "dropout")}}
        if self.condition is not None and cond is not None and (self.guidance != 1.0 or self.mix):
            kept = draw_kept(self.condition, ctx, len(x0))
            v = self._guided(params, z, v, t, cond, kept, options)
            cond = cond * kept[:, None]
        u, target = self.target(params, z, v, r, t, cond, **options)
        squared = sum_dims((u - target) ** 2)
        weight = jax.lax.stop_gradient(squared + self.offset) ** -self.power
        return jnp.mean(weight * squared), Aux({"error": jnp.mean(squared)})

    @property
    def sampling(self) -> Sampling:
        """Equal steps of the average velocity."""
        return Sampling("mean flow", self.steps, self.steps)

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """z_r = z_t - (t - r) u(z_t, r, t), from noise at t = 1 to r = 0 in `steps` equal steps."""
        given = condition_vector(self.condition, cond, num)
        times = jnp.linspace(1.0, 0.0, self.steps + 1)
        z = self.process.sigma(times[0]) * jax.random.normal(named(key, "prior"), (num, *self.shape))

        def step(z: Array, now: tuple[Array, Array]) -> tuple[Array, None]:
            t, r = (jnp.full(num, u) for u in now)
            return z - expand(t - r, z) * self.average_velocity(params, z, r, t, given), None

        return jax.lax.scan(step, z, (times[:-1], times[1:]))[0]
