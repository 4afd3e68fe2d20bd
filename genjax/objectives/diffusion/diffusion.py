"""Diffusion models: score matching, DDPM, flow matching, by choice of process and parameterization.

    x_t = alpha(t) x_0 + sigma(t) eps,
    loss = E_{x_0, eps, t} [ w(t) mean over dimensions of (out(x_t, t, c) - target)^2 ].

With `VP`, `Eps` and w = 1 this is denoising score matching of the variance-preserving SDE (Song et al. 2021,
arXiv:2011.13456, eq. 7, with lambda(t) = sigma(t)^2): the network's output is -sigma(t) times the score.
For classifier-free guidance the label is randomly dropped in training (Ho & Salimans 2022,
arXiv:2207.12598, alg. 1); a zero vector encodes "no label".

With self-conditioning (Chen et al. 2022, arXiv:2208.04202, alg. 1-2) the network's input is [x_t, x0_hat], where x0_hat
is its previous estimate: in training, with some probability, the estimate at the same x_t, else zeros; in sampling, the
estimate of the previous step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.conditioning.labels import condition_vector, training_vector
from genjax.core.objective import Aux, Conditioner, Context, Network, Player, Sampling
from genjax.core.tree import tunable
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.diffusion.coupling import Coupling, Independent
from genjax.diffusion.guidance import ClassifierFree, Guidance
from genjax.diffusion.ode_likelihood import OdeLikelihood
from genjax.diffusion.prediction import Denoise, Eps, Parameterization, Prediction, velocity
from genjax.diffusion.process import VP, Process, expand
from genjax.diffusion.threshold import NoThreshold, Threshold
from genjax.diffusion.times import Times, UniformTimes
from genjax.diffusion.weighting import Unit, Weighting
from genjax.objectives.common import check_shape
from genjax.objectives.diffusion.compatibility import check_likelihood, check_sampler, check_training
from genjax.samplers.ode import DDIM
from genjax.samplers.scan import Sampler, Stepper, sample, sampling_of
from genjax.samplers.self_conditioned import SelfConditioned


@dataclass(frozen=True)
class Diffusion:
    """Learns a denoiser; samples by integrating from noise to data.

    Attributes:
        net: called as net(x_t, t, cond, out=shape, train=...), gives an array shaped as x_t; the
            parameterization may scale (x_t, t) first.
        shape: of one example.
        condition: what the model is given beside x, such as `Labels`; None for an unconditional model.
        process: alpha and sigma.
        predict: the parameterization of the network's output.
        times: distribution of training times.
        weight: w(t), on the squared error of the network's output.
        coupling: pairing of noise and examples in a batch.
        self_conditioning: probability in training of passing the network its own estimate of x_0; with 0 the network
            has no such input.
        guidance: combines the conditional and the unconditional denoiser in sampling; scale 1 is unguided.
        threshold: keeps estimates of x_0 within the range of the data in sampling.
        sampler: the sampler and its time grid.
        likelihood: solver of `log_prob`; with 0 steps there is no likelihood.
    """

    net: Network
    shape: tuple[int, ...]
    condition: Conditioner | None = None
    process: Process = VP()
    predict: Parameterization = Eps()
    times: Times = UniformTimes()
    weight: Weighting = Unit()
    coupling: Coupling = Independent()
    self_conditioning: float = 0.0
    guidance: Guidance = tunable(ClassifierFree())
    threshold: Threshold = tunable(NoThreshold())
    sampler: Sampler = tunable(DDIM())
    likelihood: OdeLikelihood = tunable(OdeLikelihood())

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """One player, `net`. Raises UserError unless the batch matches `shape`, and the parts each other."""
        check_shape(self.shape, batch, self.condition)
        self._check_training()
        self._check_sampler()
        check_likelihood(self.process, self.predict, self.likelihood)
        x = batch["x"]
        cond = condition_vector(self.condition, batch, len(x))
        given = self._network_input(x, None)
        return {"net": self.net.init(key, given, jnp.zeros(len(x)), cond, out=self.shape)}, {}

    def _check_training(self) -> None:
        decoded = self.self_conditioning > 0.0
        check_training(self.process, self.predict, self.weight, self.times, decoded=decoded)

    def _check_sampler(self) -> None:
        check_sampler(self.process, self.predict, self.sampler, self.guidance, self.threshold)

    def players(self) -> Mapping[str, Player]:
        """One player, `net`."""
        return {"net": Player(self.loss)}

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """Weighted mean squared error of the network's output against its target."""
        x0 = batch["x"]
        t = self.times.draw(self.process, named(ctx.key, "times"), len(x0))
        eps = jax.random.normal(named(ctx.key, "noise"), x0.shape, x0.dtype)
        labels = condition_vector(self.condition, batch, len(x0))
        eps = self.coupling.pair(named(ctx.key, "coupling"), x0, eps, labels)
        cond = training_vector(self.condition, batch, ctx)
        x = self.process.marginal(x0, eps, t)
        previous = self._self_estimate(params, x, t, cond, ctx)
        rngs = {"dropout": named(ctx.key, "dropout")}
        out = self._network(params, x, t, cond, previous, train=ctx.train, rngs=rngs)
        error = (out - self.predict.target(self.process, x0, eps, t)) ** 2
        each = jnp.mean(error, axis=tuple(range(1, error.ndim)))
        return jnp.mean(self.weight.weight(self.process, self.predict, t) * each), Aux()

    def denoise(
        self, params: Params, cond: Batch | None = None, previous: Float[Array, "b ..."] | None = None
    ) -> Denoise:
        """The learned denoiser.

        Args:
            params: by player.
            cond: what `condition` is made from, or None for the unconditional model.
            previous: the previous estimate of x_0 [b, ...] for self-conditioning, or None.

        Returns:
            (x_t, t) -> Prediction.
        """

        def prediction(x: Array, t: Array) -> Prediction:
            vector = condition_vector(self.condition, cond, len(x))
            out = self._network(params, x, jnp.broadcast_to(t, (len(x),)), vector, previous)
            return self.predict.decode(self.process, out, x, t)

        return prediction

    def guided(
        self, params: Params, cond: Batch | None = None, previous: Float[Array, "b ..."] | None = None
    ) -> Denoise:
        """The denoiser for sampling: guided if there is a label, with thresholded x_0; arguments as in `denoise`."""
        denoise = self.denoise(params, cond, previous)
        if cond is not None:
            denoise = self.guidance.apply(denoise, self.denoise(params, None, previous), self.process)
        return self.threshold.constrain(denoise, self.process)

    @property
    def sampling(self) -> Sampling:
        """The sampler's."""
        return sampling_of(self.sampler)

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """Samples from the prior with the sampler, guided if a label is given."""
        return self._run_sampler(params, key, num, cond, trace=False)

    def path(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> tuple[Float[Array, " n"], Float[Array, "n b ..."]]:
        """The time grid [n], and the states of `sample` as x_t / sqrt(alpha^2 + sigma^2): in the scale of the data."""
        states, times = (
            self._run_sampler(params, key, num, cond, trace=True),
            self.sampler.times(self.process),
        )
        scale = jnp.hypot(self.process.alpha(times), self.process.sigma(times))
        return times, states / expand(scale, states)

    def velocity(
        self, params: Params, extra: Extra, x: Float[Array, "b ..."], t: Float[Array, ""]
    ) -> Float[Array, "b ..."]:
        """dx/dt of the probability-flow ODE, unconditionally.

        Args:
            params: by player.
            extra: unused.
            x: states [b, ...].
            t: time, a scalar.

        Returns:
            The velocity, shaped as x.
        """
        return velocity(self.denoise(params)(x, t), self.process, t)

    def _run_sampler(self, params: Params, key: Key, num: int, cond: Batch | None, trace: bool) -> Array:
        self._check_sampler()  # tunable: it may have changed since `init`
        cond = cond if self.condition else None
        sampler: Stepper = self.sampler
        if self.self_conditioning:
            sampler = SelfConditioned(self.sampler, lambda previous: self.guided(params, cond, previous))
        shape = (num, *self.shape)
        return sample(self.guided(params, cond), self.process, sampler, key, shape, trace=trace)

    def _network_input(self, x: Array, previous: Array | None) -> Array:
        """The network's input: x, concatenated with the previous estimate of x_0 under self-conditioning."""
        if not self.self_conditioning:
            return x
        return jnp.concatenate([x, jnp.zeros_like(x) if previous is None else previous], axis=-1)

    def _network(
        self, params: Params, x: Array, t: Array, cond: Array | None, previous: Array | None, **options: Any
    ) -> Array:
        """The network's output [b, *shape] at states x and times t [b]."""
        scaled, time = self.predict.inputs(self.process, x, t)
        given = self._network_input(scaled, previous)
        return self.net.apply(params["net"], given, time, cond, out=self.shape, **options)

    def _self_estimate(
        self, params: Params, x: Array, t: Array, cond: Array | None, ctx: Context
    ) -> Array | None:
        """The network's estimate of x_0 with probability `self_conditioning` (per step), else zeros."""
        if not self.self_conditioning:
            return None

        def estimate() -> Array:
            out = self._network(params, x, t, cond, None)
            return jax.lax.stop_gradient(self.predict.decode(self.process, out, x, t).x0)

        shown = jax.random.bernoulli(named(ctx.key, "self-conditioning"), self.self_conditioning)
        return jax.lax.cond(shown, estimate, lambda: jnp.zeros_like(x))

    @property
    def log_prob_kind(self) -> str:
        """Solver, steps and trace estimator; empty if `likelihood` is disabled."""
        return self.likelihood.kind

    def log_prob(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Float[Array, " b"]:
        """log p(x), or log p(x | label) of a model with classes, in nats per example.

        Without guidance, thresholding or self-conditioning.
        """
        check_likelihood(self.process, self.predict, self.likelihood)
        denoise = self.denoise(params, batch)
        return self.likelihood.log_prob(denoise, self.process, batch["x"], named(key, "likelihood"))
