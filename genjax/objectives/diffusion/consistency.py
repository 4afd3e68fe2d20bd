"""Consistency models: one evaluation from noise to data (Song et al. 2023, arXiv:2303.01469).

The consistency function f maps any point x_t of a path of the probability-flow ODE to the end x_low of the path, so
that f(x_t, t) is constant along a path, and f(x, low) = x. Here f is one DDIM step from t to `low` with the network's
prediction,

    f(x_t, t) = alpha_low x_0(x_t, t) + sigma_low eps(x_t, t),

which is x_low at t = low for every network, process and parameterization. With alpha = 1 and
`Preconditioned` that is c_skip x + c_out F with the paper's c_out (app. C), and with

    c_skip = (sigma_data^2 + sigma_low sigma) / (sigma_data^2 + sigma^2).

Training compares adjacent times of a grid of n intervals, low = t_0 < ... < t_n = high, equal in t (for `EDM` these are
Karras's levels, eq. 5 there), with r = sigma / alpha:

    loss = E [ w_i d( f(x_{t_{i+1}}, t_{i+1}), stopgrad f(x_{t_i}, t_i) ) ],   w_i = 1 / (r_{i+1} - r_i),
    d(a, b) = sqrt(||a - b||^2 + c^2) - c.

Consistency training (alg. 3) takes x_{t_i} with the same x_0 and eps as x_{t_{i+1}}; consistency distillation
(alg. 2) steps from x_{t_{i+1}} to t_i along a teacher's ODE. Weight w, distance d (pseudo-Huber), no EMA of parameters
in the target, i from a log-normal noise level, and doubling n follow Song & Dhariwal 2023
(arXiv:2310.14189, table 1): c = 0.00054 sqrt(dimensions), and the probability of interval i is that of
log r in [log r_i, log r_{i+1}] (eq. 10): i is the interval in which a time drawn from `times` falls.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.conditioning.labels import condition_vector
from genjax.core.arrays import sum_dims
from genjax.core.errors import UserError
from genjax.core.objective import Aux, Conditioner, Context, Network, Player, Sampling
from genjax.core.tree import tunable
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.diffusion.prediction import Parameterization, Preconditioned
from genjax.diffusion.process import EDM, Process
from genjax.diffusion.times import DiscreteTimes, LogNormalSigma, Times
from genjax.diffusion.weighting import Unit
from genjax.objectives.common import check_shape
from genjax.objectives.diffusion.compatibility import check_training
from genjax.objectives.diffusion.distillation import Solver, Teacher, check_teacher, ddim_to, solve
from genjax.samplers.consistency import jump_and_renoise


def pseudo_huber(a: Float[Array, "b ..."], b: Float[Array, "b ..."], c: float) -> Float[Array, " b"]:
    """sqrt(||a - b||^2 + c^2) - c of each example: ||a - b||^2 / (2 c) near 0, ||a - b|| - c far from 0.

    Args:
        a: [b, ...].
        b: shaped as a.
        c: above 0.

    Returns:
        Distances [b].
    """
    squared = sum_dims((a - b) ** 2)
    return squared / (jnp.sqrt(squared + c**2) + c)  # the difference, without cancellation


@dataclass(frozen=True)
class Doubling:
    """The number of intervals: n(k) = min(first 2^floor(k / every), last) at step k.

    The paper (eq. 11) has first = 10, last = 1280 and every = floor(K / (log2(last / first) + 1)) for K steps.

    Attributes:
        first: n at step 0.
        last: the maximum of n.
        every: steps between doublings.
    """

    first: int = 10
    last: int = 1280
    every: int = 50_000

    def intervals(self, step: Int[Array, ""]) -> Int[Array, ""]:
        """n(k), int32.

        Raises:
            UserError: a field is below 1, or `last` is below `first`.
        """
        if min(self.first, self.every) < 1 or self.last < self.first:
            raise UserError(
                f"curriculum: 1 <= first <= last and every >= 1, got first={self.first}, last={self.last}, "
                f"every={self.every}"
            )
        doublings = jnp.minimum(step // self.every, math.ceil(math.log2(self.last / self.first)))
        return jnp.minimum(self.first * 2**doublings, self.last).astype(jnp.int32)


@dataclass(frozen=True)
class Consistency:
    """Learns the map from x_t to the end of the probability-flow ODE's path.

    Attributes:
        net: called as net(x_t, t, cond, out=shape, train=...), as `Diffusion` calls it.
        shape: of one example.
        condition: what the model is given beside x, such as `Labels`; None for an unconditional model.
        process: alpha and sigma.
        predict: the parameterization of the network's output.
        low: time of the samples, where sigma > 0.
        high: time of the prior; below 1 where alpha(1) = 0, as for RectifiedFlow.
        times: distribution of times that selects the intervals.
        curriculum: number of intervals; evaluation uses the last.
        huber: c / sqrt(dimensions), above 0.
        teacher: a diffusion model of the same process to distil; None for consistency training.
        solver: solver of the teacher's steps.
        warm: initialise with the teacher's parameters; requires the same network.
        steps: evaluations per sample, at equal steps in t.
    """

    net: Network
    shape: tuple[int, ...]
    condition: Conditioner | None = None
    process: Process = EDM()
    predict: Parameterization = Preconditioned()
    low: float = 0.0
    high: float = 1.0
    times: Times = LogNormalSigma(-1.1, 2.0, low=0.0)
    curriculum: Doubling = Doubling()
    huber: float = 0.00054
    teacher: Teacher | None = None
    solver: Solver = "heun"
    warm: bool = False
    steps: int = tunable(1)

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """One player, `net`; the teacher's parameters are in extra["teacher"].

        Raises:
            UserError: the batch does not match `shape`, or the teacher has another process or network.
        """
        check_shape(self.shape, batch, self.condition)
        self._check_parts()
        x, cond = batch["x"], condition_vector(self.condition, batch, len(batch["x"]))
        params = {"net": self.net.init(key, x, jnp.zeros(len(x)), cond, out=self.shape)}
        if self.teacher is None:
            return params, {}
        check_teacher(self.teacher, self.process, self.net if self.warm else None)
        trained = self.teacher.load(key, batch)
        return (dict(jax.tree.map(jnp.copy, trained)) if self.warm else params), {"teacher": trained}

    def _check_parts(self) -> None:
        times = DiscreteTimes(self.curriculum.last + 1, self.low, self.high)
        check_training(
            self.process, self.predict, Unit(), times, decoded=True, mends=("low=0.001", "high=0.999")
        )
        with jax.ensure_compile_time_eval():
            if not jnp.isfinite(self.process.log_snr(jnp.asarray(self.high))):
                raise UserError(
                    f"{type(self.process).__name__} has alpha=0 at objective.high={self.high:g}, where the weight of "
                    "the consistency loss is 0: set high=0.999"
                )

    def players(self) -> Mapping[str, Player]:
        """One player, `net`."""
        return {"net": Player(self.loss)}

    def jump(
        self,
        params: Params,
        x: Float[Array, "b ..."],
        t: Float[Array, " b"],
        cond: Array | None,
        **options: Any,
    ) -> Float[Array, "b ..."]:
        """f(x_t, t), the estimate of x_low.

        Args:
            params: of the network.
            x: x_t [b, ...].
            t: times [b].
            cond: conditioning vectors [b, k], or None.
            **options: passed to the network.

        Returns:
            The estimate, shaped as x.
        """
        scaled, time = self.predict.inputs(self.process, x, t)
        out = self.net.apply(params["net"], scaled, time, cond, out=self.shape, **options)
        return ddim_to(self.predict.decode(self.process, out, x, t), self.process, jnp.full_like(t, self.low))

    def adjacent_times(self, key: Key, num: int, intervals: Int[Array, ""]) -> tuple[Array, Array]:
        """Adjacent times (t_i, t_{i+1}): the ends of the intervals that contain times drawn from `times`.

        Args:
            key: typed PRNG key.
            num: number of intervals drawn.
            intervals: n, the number of intervals of the grid.

        Returns:
            (t_i [num], t_{i+1} [num]).
        """
        drawn = (self.times.draw(self.process, key, num) - self.low) / (self.high - self.low)
        index = jnp.clip(jnp.floor(drawn * intervals), 0, intervals - 1)
        end = lambda i: self.low + (self.high - self.low) * i / intervals
        return end(index), end(index + 1)

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """Weighted distance between f at adjacent times; metrics: n, and the unweighted distance."""
        x0 = batch["x"]
        last = jnp.asarray(self.curriculum.last, jnp.int32)
        intervals = self.curriculum.intervals(ctx.step) if ctx.train else last
        s, t = self.adjacent_times(named(ctx.key, "times"), len(x0), intervals)
        eps = jax.random.normal(named(ctx.key, "noise"), x0.shape, x0.dtype)
        noisy = self.process.marginal(x0, eps, t)
        if self.teacher is None:
            cleaner = self.process.marginal(x0, eps, s)
        else:
            denoise = self.teacher.denoise(extra["teacher"], batch)
            cleaner = solve(denoise, self.process, noisy, t, s, self.solver)
        cond = condition_vector(self.condition, batch, len(x0))
        options = {"train": ctx.train, "rngs": {"dropout": named(ctx.key, "dropout")}}
        here = self.jump(params, noisy, t, cond, **options)
        there = jax.lax.stop_gradient(self.jump(params, cleaner, s, cond, **options))
        ratio = lambda u: jnp.exp(-0.5 * self.process.log_snr(u))
        distance = pseudo_huber(here, there, self.huber * math.sqrt(math.prod(self.shape)))
        metrics = {"intervals": intervals.astype(jnp.float32), "distance": jnp.mean(distance)}
        return jnp.mean(distance / (ratio(t) - ratio(s))), Aux(metrics)

    @property
    def sampling(self) -> Sampling:
        """Multistep consistency sampling (Song et al. 2023, alg. 1)."""
        return Sampling("consistency", self.steps, self.steps)

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """`steps` evaluations of f, the first from the prior, with new noise between them."""
        given = condition_vector(self.condition, cond, num)
        times = jnp.linspace(self.high, self.low, self.steps + 1)[:-1]
        jump = lambda x, t: self.jump(params, x, jnp.broadcast_to(t, (num,)), given)
        return jump_and_renoise(jump, self.process, times, self.low, key, (num, *self.shape))
