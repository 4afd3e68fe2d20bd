"""Variational diffusion models (Kingma et al. 2021, arXiv:2107.00630): a likelihood and a learned noise schedule.

With gamma(t) = -log SNR(t) learned, z_t = alpha x + sigma eps and a network eps_hat(z_t; gamma(t)),

    -log p(x) <= prior + reconstruction + diffusion                                     (eq. 11, nats)
    prior          = KL( q(z_1 | x) || N(0, sigma_1^2 I) ) = SNR(1) ||x||^2 / 2
    reconstruction = E[ -log p(x | z_0) ]
    diffusion      = T/2 E_{eps, i} [ (e^(gamma(t) - gamma(s)) - 1) ||eps - eps_hat||^2 ],
                     i uniform on 1 ... T, s = (i - 1) / T, t = i / T                   (eq. 14)
                  -> 1/2 E_{eps, t} [ gamma'(t) ||eps - eps_hat||^2 ],  t uniform       (eq. 16-17)

p(x | z_0) is, for discrete data, proportional to N(z_0; alpha_0 x, sigma_0^2) over the values; for continuous data
it is N(z_0 / alpha_0, sigma_0^2 / alpha_0^2), with the term D (1 + log(2 pi) + gamma(0)) / 2. The prior is that of the
samplers; the paper's N(0, I) differs by O(alpha_1^4).

In continuous time the bound depends on gamma through its end points alone (sec. 5.1), since the network's input is
gamma, not t. So the end points minimise the bound, and the interior minimises the variance of its estimate (app. H):
that of the diffusion term L, by minimising E[L^2], since its mean is constant.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.conditioning.labels import condition_vector
from genjax.core.arrays import sum_dims
from genjax.core.errors import UserError
from genjax.core.objective import Aux, Conditioner, Context, Mean, Network, Player, Sampling
from genjax.core.tree import tunable
from genjax.core.types import Array, Batch, Extra, Key, Params, PyTree, named
from genjax.diffusion.learned import LearnedProcess
from genjax.diffusion.prediction import Denoise, Prediction, from_eps
from genjax.diffusion.process import derivative
from genjax.diffusion.threshold import NoThreshold, Threshold
from genjax.diffusion.times import stratified
from genjax.distributions import gaussian
from genjax.networks.noise_schedule import Monotone, Moves, Part
from genjax.objectives.common import check_shape
from genjax.samplers.scan import Sampler, sample, sampling_of
from genjax.samplers.sde import Ancestral

Values = Float[Array, " b"]
State = Float[Array, "b ..."]


def variance(moments: Float[Array, " 2"]) -> Mapping[str, Array]:
    """Variance of the bound's estimate over times, from its first two moments; see `core.objective.Mean.report`."""
    return {"variance": moments[1] - moments[0] ** 2}


@runtime_checkable
class Schedule(Protocol):
    """gamma(t) with parameters: `apply(parameters, t, moves=...)`, elementwise and increasing.

    Attributes:
        learns: the parts that have parameters.
        start: gamma(0) at initialisation.
        end: gamma(1) at initialisation.
    """

    learns: ClassVar[tuple[Part, ...]]
    start: float
    end: float

    @property
    def init(self) -> Callable[..., PyTree]:
        """(key, t) -> parameters."""
        ...

    @property
    def apply(self) -> Callable[..., Any]:
        """(parameters, t, moves) -> gamma(t); parts not in `moves` get no gradient."""
        ...


@dataclass(frozen=True)
class VDM:
    """Learns a denoiser and a noise schedule by the variational bound.

    Attributes:
        net: called as net(z_t, (gamma(t) - start) / (end - start), cond, out=shape, train=...), gives eps_hat;
            `networks.FourierFeatures` around it adds high-frequency features.
        shape: of one example.
        condition: what the model is given beside x, such as `Labels`; None for an unconditional model.
        schedule: gamma; a second player if it has parameters.
        levels: number of values of discrete data, evenly spaced in [-1, 1]; 0 for continuous data.
        steps: T of the discrete-time loss; 0 for continuous time.
        times: number of times per example in `log_prob`; with `steps` it sums all T terms instead.
        threshold: keeps estimates of x_0 in the range of the data in sampling.
        sampler: the sampler and its time grid.
    """

    net: Network
    shape: tuple[int, ...]
    condition: Conditioner | None = None
    schedule: Schedule = Monotone()
    levels: int = 0
    steps: int = 0
    times: int = tunable(32)
    threshold: Threshold = tunable(NoThreshold())
    sampler: Sampler = tunable(Ancestral(variance=0.0))

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Players `net` and, if it has parameters, `schedule`. Raises UserError for invalid shape, levels or steps."""
        check_shape(self.shape, batch, self.condition)
        gaussian.check_levels(self.levels)
        if self.steps < 0:
            raise UserError(f"steps={self.steps} must be 0 for continuous time, or the number of steps")
        x, t = batch["x"], jnp.zeros(len(batch["x"]))
        cond = condition_vector(self.condition, batch, len(x))
        params = {"net": self.net.init(named(key, "net"), x, t, cond, out=self.shape)}
        if self.schedule.learns:
            params["schedule"] = self.schedule.init(named(key, "schedule"), t)
        return params, {}

    def players(self) -> Mapping[str, Player]:
        """The network, and the schedule."""
        players = {"net": Player(self.loss), "schedule": Player(self.schedule_loss)}
        return players if self.schedule.learns else {"net": players["net"]}

    def process(self, params: Params, moves: Moves = "all") -> LearnedProcess:
        """The schedule as a process; only the part `moves` passes gradients to the parameters."""
        schedule = params.get("schedule", {})
        return LearnedProcess(lambda t: self.schedule.apply(schedule, t, moves=moves))

    def eps(
        self, params: Params, process: LearnedProcess, z: State, t: Values, cond: Array | None, **options: Any
    ) -> State:
        """The network's estimate of the noise in z_t.

        Args:
            params: by player.
            process: gives gamma.
            z: z_t [b, ...].
            t: times [b].
            cond: conditioning vectors [b, k], or None.
            **options: passed to the network.

        Returns:
            eps_hat, shaped as z.
        """
        start, end = self.schedule.start, self.schedule.end
        time = (process.gamma(t) - start) / (end - start)
        return self.net.apply(params["net"], z, time, cond, out=self.shape, **options)

    def prior(self, process: LearnedProcess, x: State) -> Values:
        """The bound's prior term, nats per example."""
        return process.prior_kl(x, jnp.ones((), x.dtype))

    def reconstruction(self, process: LearnedProcess, x: State, eps: State) -> Values:
        """The bound's reconstruction term at z_0 = alpha_0 x + sigma_0 eps.

        Args:
            process: gives gamma.
            x: data [b, ...].
            eps: N(0, I), shaped as x.

        Returns:
            Nats per example [b].
        """
        first = process.gamma(jnp.zeros((), x.dtype))
        if self.levels:
            return -sum_dims(gaussian.log_softmax(x, x + jnp.exp(0.5 * first) * eps, first, self.levels))
        each = 0.5 * prod(self.shape) * (1.0 + gaussian.LOG_TAU + first)
        return jnp.broadcast_to(each, (len(x),))

    def diffusion(
        self,
        params: Params,
        process: LearnedProcess,
        x: State,
        eps: State,
        t: Values,
        cond: Array | None = None,
        **options: Any,
    ) -> Values:
        """The bound's diffusion term, estimated at one time.

        Args:
            params: by player.
            process: gives gamma.
            x: data [b, ...].
            eps: N(0, I), shaped as x.
            t: times [b], uniform on [0, 1]; with `steps` uniform on 1 / T ... 1.
            cond: conditioning vectors [b, k], or None.
            **options: passed to the network.

        Returns:
            Nats per example [b].
        """
        guess = self.eps(params, process, process.marginal(x, eps, t), t, cond, **options)
        gamma, rate = derivative(process.gamma, t)
        if self.steps:
            before = process.gamma(jnp.maximum(t - 1.0 / self.steps, 0.0))
            rate = self.steps * jnp.expm1(gamma - before)
        return 0.5 * rate * sum_dims((eps - guess) ** 2)

    def terms(self, params: Params, batch: Batch, ctx: Context, moves: Moves = "all") -> dict[str, Values]:
        """One-sample estimates of the bound's terms.

        Args:
            params: by player.
            batch: data and labels.
            ctx: of the loss.
            moves: the part of the schedule that gets gradients.

        Returns:
            "prior", "reconstruction" and "diffusion", nats per example [b].
        """
        x, process = batch["x"], self.process(params, moves)
        cond = condition_vector(self.condition, batch, len(x))
        t = stratified(named(ctx.key, "times"), len(x))
        t = (jnp.floor(t * self.steps) + 1.0) / self.steps if self.steps else t
        noise = lambda name: jax.random.normal(named(ctx.key, name), x.shape, x.dtype)
        options = {"train": ctx.train, "rngs": {"dropout": named(ctx.key, "dropout")}}
        return {
            "prior": self.prior(process, x),
            "reconstruction": self.reconstruction(process, x, noise("reconstruction")),
            "diffusion": self.diffusion(params, process, x, noise("noise"), t, cond, **options),
        }

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """The bound on -log p(x), mean over the batch, nats."""
        means = jax.tree.map(jnp.mean, self.terms(params, batch, ctx))
        return sum(means.values(), jnp.zeros(())), Aux(means)

    def schedule_loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """The bound for the end points, plus E[L^2] for the interior; in discrete time the bound for both."""
        means = jax.tree.map(jnp.mean, self.terms(params, batch, ctx, "all" if self.steps else "ends"))
        bound = sum(means.values(), jnp.zeros(()))
        if self.steps or "interior" not in self.schedule.learns:
            return bound, Aux()
        estimate = self.terms(params, batch, ctx, "interior")["diffusion"]
        moments = jnp.stack([jnp.mean(estimate), jnp.mean(estimate**2)])
        return bound + moments[1], Aux({"estimate": Mean(moments, float(len(estimate)), variance)})

    def denoise(self, params: Params, cond: Batch | None = None) -> Denoise:
        """The learned denoiser, conditional on labels [b], or unconditional."""
        process = self.process(params)

        def prediction(x: Array, t: Array) -> Prediction:
            vector = condition_vector(self.condition, cond, len(x))
            eps = self.eps(params, process, x, jnp.broadcast_to(t, (len(x),)), vector)
            return from_eps(process, eps, x, t)

        return prediction

    @property
    def sampling(self) -> Sampling:
        """The sampler's."""
        return sampling_of(self.sampler)

    def sample(self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None) -> State:
        """Samples from the prior with the sampler; returns z_0 / alpha_0, the mean of p(x | z_0)."""
        cond = cond if self.condition else None
        process = self.process(params)
        denoise = self.threshold.constrain(self.denoise(params, cond), process)
        z = sample(denoise, process, self.sampler, key, (num, *self.shape))
        return z / process.alpha(self.sampler.times(process)[-1])

    @property
    def log_prob_kind(self) -> str:
        """The bound and the number of times of its estimate."""
        return f"lower bound (VLB, {f'{self.steps} steps' if self.steps else f'{self.times} times'})"

    def log_prob(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Values:
        """The bound on log p(x), in nats per example: a log-density in the scale of x (see `distributions.gaussian`).

        Noise is independent for each term and example; times are stratified over the draws of an example and the batch.
        """
        x, process = batch["x"], self.process(params)
        cond = condition_vector(self.condition, batch, len(x))
        number = self.steps or self.times
        if self.steps:
            times = jnp.broadcast_to((jnp.arange(number)[:, None] + 1.0) / number, (number, len(x)))
        else:
            times = (jnp.arange(number)[:, None] + stratified(named(key, "times"), len(x))[None]) / number

        def at(now: tuple[Array, Array]) -> Array:
            t, index = now
            eps = jax.random.normal(jax.random.fold_in(named(key, "noise"), index), x.shape, x.dtype)
            return self.diffusion(params, process, x, eps, t, cond)

        diffusion = jnp.mean(jax.lax.map(at, (times, jnp.arange(number))), axis=0)
        eps = jax.random.normal(named(key, "reconstruction"), x.shape, x.dtype)
        bound = self.prior(process, x) + self.reconstruction(process, x, eps) + diffusion
        return -bound - gaussian.log_cell_volume(self.levels, prod(self.shape))
