"""Stochastic interpolants of data and a base distribution (Albergo, Boffi & Vanden-Eijnden 2023, arXiv:2303.08797).

    x_t = alpha(t) x_0 + beta(t) x_1 + gamma(t) z,      z ~ N(0, I),
    loss = E_{x_0, x_1, z, t} mean over dimensions of [ (v(x_t, t) - I')^2 + (eta(x_t, t) - z)^2 ],

with I' = alpha' x_0 + beta' x_1. The minimisers are E[I' | x_t] and E[z | x_t], see `diffusion.interpolants`; one
network gives both, concatenated in its last axis. The regression target is not the full velocity I' + gamma' z, since
gamma' is infinite at both ends. Without latent noise there is v alone: with a normal base and the linear path this is
rectified flow, and with a coupling its optimal-transport variant.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.conditioning.labels import condition_vector
from genjax.core.objective import Aux, Conditioner, Context, Network, Player, Sampling
from genjax.core.tree import tunable
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.diffusion import interpolants
from genjax.diffusion.coupling import Coupling, Independent
from genjax.diffusion.interpolants import (
    ODE,
    Base,
    Bridge,
    Estimate,
    Estimator,
    Gamma,
    Normal,
    Solver,
    time_change,
)
from genjax.diffusion.ode_likelihood import OdeLikelihood
from genjax.diffusion.prediction import Prediction, velocity
from genjax.diffusion.process import Process, RectifiedFlow, expand
from genjax.diffusion.times import Times, UniformTimes
from genjax.objectives.common import check_shape


@dataclass(frozen=True)
class Interpolant:
    """Learns the velocity and the latent noise of x_t; samples by integrating from the base to the data.

    Attributes:
        net: called as net(x_t, t, cond, out=shape, train=...), with the last axis of `shape` doubled if there
            is latent noise.
        shape: of one example.
        condition: what the model is given beside x, such as `Labels`; None for an unconditional model.
        path: alpha and, as its sigma, beta; sigma(1) = 1 and alpha(1) = sigma(0) = 0.
        gamma: the scale of the latent noise.
        base: the distribution of x_1.
        coupling: pairing of x_1 and x_0 in a batch.
        times: distribution of training times.
        sampler: probability flow or SDE.
        likelihood: solver of `log_prob` over u, t = sin^2(pi u / 2); with 0 steps there is no likelihood.
    """

    net: Network
    shape: tuple[int, ...]
    condition: Conditioner | None = None
    path: Process = RectifiedFlow()
    gamma: Gamma = Bridge()
    base: Base = Normal()
    coupling: Coupling = Independent()
    times: Times = UniformTimes()
    sampler: Solver = tunable(ODE())
    likelihood: OdeLikelihood = tunable(OdeLikelihood(low=1e-3, high=1.0 - 1e-3, power=1.0))

    @property
    def _out(self) -> tuple[int, ...]:
        return (*self.shape[:-1], self.shape[-1] * (2 if self.gamma.noisy else 1))

    def _split(self, out: Array) -> Estimate:
        v, eta = out[..., : self.shape[-1]], out[..., self.shape[-1] :]
        return Estimate(v=v, eta=eta if self.gamma.noisy else jnp.zeros_like(v))

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """One player, `net`. Raises UserError unless the batch matches `shape`."""
        check_shape(self.shape, batch, self.condition)
        x = batch["x"]
        cond = condition_vector(self.condition, batch, len(x))
        return {"net": self.net.init(key, x, jnp.zeros(len(x)), cond, out=self._out)}, {}

    def players(self) -> Mapping[str, Player]:
        """One player, `net`, with both regressions."""
        return {"net": Player(self.loss)}

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """The sum of the mean squared errors of v and of eta; metrics: both."""
        x0 = batch["x"]
        cond = condition_vector(self.condition, batch, len(x0))
        t = self.times.draw(self.path, named(ctx.key, "times"), len(x0))
        x1 = self.base.draw(named(ctx.key, "noise"), x0.shape).astype(x0.dtype)
        x1 = self.coupling.pair(named(ctx.key, "coupling"), x0, x1, cond)
        z = jax.random.normal(named(ctx.key, "latent"), x0.shape, x0.dtype)
        x = self.path.marginal(x0, x1, t) + expand(self.gamma.gamma(t), x0) * z
        rngs = {"dropout": named(ctx.key, "dropout")}
        out = self._split(
            self.net.apply(params["net"], x, t, cond, out=self._out, train=ctx.train, rngs=rngs)
        )
        errors = {"v": jnp.mean((out.v - velocity(Prediction(x0=x0, eps=x1), self.path, t)) ** 2)}
        if self.gamma.noisy:
            errors["eta"] = jnp.mean((out.eta - z) ** 2)
        return sum(errors.values(), jnp.zeros(())), Aux(metrics=errors)

    def estimate(self, params: Params, cond: Batch | None = None) -> Estimator:
        """The estimator of v and eta, conditional on labels [b], or unconditional."""

        def at(x: Array, t: Array) -> Estimate:
            vector = condition_vector(self.condition, cond, len(x))
            time = jnp.broadcast_to(t, (len(x),))
            return self._split(self.net.apply(params["net"], x, time, vector, out=self._out))

        return at

    @property
    def sampling(self) -> Sampling:
        """The solver's."""
        return Sampling(type(self.sampler).__name__, self.sampler.steps, self.sampler.evaluations)

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """Samples from the base with the sampler."""
        cond = cond if self.condition else None
        x1 = self.base.draw(named(key, "base"), (num, *self.shape))
        t = time_change(jnp.asarray(1.0 - self.sampler.margin))
        start = self.path.sigma(t) * x1 + self.gamma.gamma(t) * jax.random.normal(
            named(key, "latent"), x1.shape
        )
        return self.sampler.solve(self.estimate(params, cond), self.gamma, start, key)

    @property
    def log_prob_kind(self) -> str:
        """Solver, steps and trace estimator; empty if `likelihood` is disabled."""
        return self.likelihood.kind

    def log_prob(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Float[Array, " b"]:
        """log p(x), or log p(x | label) of a model with classes, in nats per example."""
        estimate = self.estimate(params, batch)
        key = named(key, "likelihood")
        return interpolants.log_prob(estimate, self.gamma, self.base, self.likelihood, batch["x"], key)
