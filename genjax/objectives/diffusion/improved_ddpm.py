"""Improved DDPM (Nichol & Dhariwal 2021, arXiv:2102.09672): reverse steps with a learned variance.

T steps of a process, x_i at t_i = i / T. The network gives an estimate of x_0 and an exponent v for each dimension:

    p(x_{i-1} | x_i) = N( c_x0 x0_hat + c_x x_i, beta^v beta_tilde^(1 - v) )            (eq. 15)

with c, beta and beta_tilde as in `diffusion.tables` (beta_tilde of the first step, which is 0, replaced by that of
the second). In nats, with L_T = KL( q(x_T | x_0) || N(0, sigma(1)^2 I) ),

    -log p(x_0) <= L_vlb = L_0 + ... + L_T,      L_0 = -log p(x_0 | x_1),
    L_{i-1} = KL( q(x_{i-1} | x_i, x_0) || p(x_{i-1} | x_i) ),
    L_hybrid = L_simple + weight L_vlb / D       (eq. 16; x0_hat gets no gradient from L_vlb).

Both are estimated at one i for each example. The paper's code measures L_vlb / D in bits. The data are x_0 itself, also
for a process with noise at t = 0.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from genjax.conditioning.labels import condition_vector
from genjax.core.arrays import sum_dims
from genjax.core.errors import UserError
from genjax.core.objective import Aux, Conditioner, Context, Network, Player, Sampling
from genjax.core.tree import tunable
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.diffusion import loss_history
from genjax.diffusion.guidance import ClassifierFree
from genjax.diffusion.prediction import Denoise, Eps, Parameterization, Prediction
from genjax.diffusion.process import Cosine, Process, expand
from genjax.diffusion.tables import discretise
from genjax.diffusion.threshold import NoThreshold, Threshold
from genjax.diffusion.times import DiscreteTimes
from genjax.diffusion.weighting import Unit
from genjax.distributions import gaussian
from genjax.objectives.common import check_shape
from genjax.objectives.diffusion.compatibility import check_sampler, check_training
from genjax.samplers.scan import Sampler, sample, sampling_of
from genjax.samplers.sde import Ancestral

Values = Float[Array, " b"]
State = Float[Array, "b ..."]


@dataclass(frozen=True)
class ImprovedDDPM:
    """Learns a denoiser and the variance of each reverse step.

    Attributes:
        net: called as net(x_t, t, cond, out=(..., 2 channels), train=...), gives the parameterization's output
            and, in the later half of the last axis, 2 v - 1.
        shape: of one example.
        condition: what the model is given beside x, such as `Labels`; None for an unconditional model.
        process: alpha and sigma.
        predict: the parameterization of the first half of the network's output.
        steps: T, at least 2.
        criterion: the loss, "hybrid" or "vlb".
        weight: of L_vlb / D, in nats per dimension, in the hybrid loss.
        importance: importance sampling of times by the history of their losses; the paper uses it with "vlb".
        levels: number of values of discrete data, evenly spaced in [-1, 1]; 0 for continuous data.
        threshold: keeps estimates of x_0 in the range of the data in sampling.
        sampler: the sampler and its time grid; `Ancestral` uses v.
    """

    net: Network
    shape: tuple[int, ...]
    condition: Conditioner | None = None
    process: Process = Cosine()
    predict: Parameterization = Eps()
    steps: int = 1000
    criterion: Literal["hybrid", "vlb"] = "hybrid"
    weight: float = 1e-3
    importance: bool = False
    levels: int = 0
    threshold: Threshold = tunable(NoThreshold())
    sampler: Sampler = tunable(Ancestral())

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """One player, `net`. Raises UserError for an invalid shape, `levels` or `steps`."""
        check_shape(self.shape, batch, self.condition)
        gaussian.check_levels(self.levels)
        if self.steps < 2:
            raise UserError(f"steps={self.steps} must be at least 2")
        times, mend = DiscreteTimes(self.steps, 1.0 / self.steps), "process=Cosine"
        check_training(self.process, self.predict, Unit(), times, decoded=True, mends=(mend, mend))
        self._check_sampler()
        x = batch["x"]
        cond = condition_vector(self.condition, batch, len(x))
        params = {"net": self.net.init(key, x, jnp.zeros(len(x)), cond, out=self._out)}
        return params, {"history": loss_history.empty(self.steps)} if self.importance else {}

    def _check_sampler(self) -> None:
        check_sampler(self.process, self.predict, self.sampler, ClassifierFree(), self.threshold)

    @property
    def _out(self) -> tuple[int, ...]:
        return (*self.shape[:-1], 2 * self.shape[-1])

    def players(self) -> Mapping[str, Player]:
        """One player, `net`."""
        return {"net": Player(self.loss)}

    def predictions(
        self, params: Params, x: State, t: Values, cond: Array | None, **options: Any
    ) -> tuple[State, Prediction]:
        """Evaluates the network.

        Args:
            params: by player.
            x: x_t [b, ...].
            t: times [b].
            cond: conditioning vectors [b, k], or None.
            **options: passed to the network.

        Returns:
            (the first half of the raw output [b, ...], the prediction of x_0, eps and v).
        """
        scaled, time = self.predict.inputs(self.process, x, t)
        both = self.net.apply(params["net"], scaled, time, cond, out=self._out, **options)
        out, v = jnp.split(both, 2, axis=-1)
        prediction = self.predict.decode(self.process, out, x, t)
        return out, dataclasses.replace(prediction, v=0.5 * (v + 1.0))

    def variances(self, dtype: Any) -> tuple[Array, Array, Array]:
        """(log beta_tilde, log beta, c_x0), each [T], computed in float64."""
        with jax.ensure_compile_time_eval():
            tables = discretise(self.process, self.steps, max_beta=1.0)
        small = np.append(tables.variance[1:2], tables.variance[1:])
        rows = (np.log(small), np.log(tables.beta), tables.coefficients[0])
        log_small, log_beta, gain = (jnp.asarray(row, dtype) for row in rows)
        return log_small, log_beta, gain

    def bound(self, prediction: Prediction, x0: State, index: Int[Array, " b"]) -> Values:
        """The term L_i of the bound.

        Args:
            prediction: at x_{i+1}.
            x0: data [b, ...].
            index: i in 0 ... T - 1 [b].

        Returns:
            Nats per example [b].
        """
        log_small, log_beta, gain = (expand(row[index], x0) for row in self.variances(x0.dtype))
        log_variance = prediction.v * log_beta + (1.0 - prediction.v) * log_small
        kl = gaussian.gaussian_kl(gain * (x0 - prediction.x0), log_small, log_variance)
        if self.levels:
            decoded = gaussian.log_cells(x0, prediction.x0, 0.5 * log_variance, self.levels)
        else:
            decoded = gaussian.log_normal(x0, prediction.x0, 0.5 * log_variance)
        first = expand((index == 0).astype(x0.dtype), x0)
        return sum_dims(jnp.where(first > 0, -decoded, kl))

    def terms(
        self,
        params: Params,
        x0: State,
        eps: State,
        index: Int[Array, " b"],
        cond: Array | None = None,
        **options: Any,
    ) -> tuple[Values, Values]:
        """Both losses at x_{i+1} = alpha x_0 + sigma eps.

        Args:
            params: by player.
            x0: data [b, ...].
            eps: N(0, I), shaped as x0.
            index: i in 0 ... T - 1 [b].
            cond: conditioning vectors [b, k], or None.
            **options: passed to the network.

        Returns:
            (mean squared error of the network's output over dimensions [b]; L_i in nats per example [b], whose gradient
            in the hybrid loss reaches v alone).
        """
        t = (index + 1).astype(x0.dtype) / self.steps
        out, prediction = self.predictions(params, self.process.marginal(x0, eps, t), t, cond, **options)
        simple = sum_dims((out - self.predict.target(self.process, x0, eps, t)) ** 2) / prod(self.shape)
        if self.criterion == "hybrid":
            prediction = dataclasses.replace(prediction, x0=jax.lax.stop_gradient(prediction.x0))
        return simple, self.bound(prediction, x0, index)

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """L_hybrid, or L_vlb / D without the constant L_T; mean over the batch."""
        x0 = batch["x"]
        history = extra["history"] if self.importance else loss_history.empty(self.steps)
        p = loss_history.probabilities(history)
        index, share = loss_history.draw(p, named(ctx.key, "times"), len(x0))
        eps = jax.random.normal(named(ctx.key, "noise"), x0.shape, x0.dtype)
        cond = condition_vector(self.condition, batch, len(x0))
        options = {"train": ctx.train, "rngs": {"dropout": named(ctx.key, "dropout")}}
        simple, step = self.terms(params, x0, eps, index, cond, **options)
        vlb = self.steps * step
        each = vlb / prod(self.shape)
        each = simple + self.weight * each if self.criterion == "hybrid" else each
        history = loss_history.update(history, index, jax.lax.stop_gradient(each))
        metrics = {"simple": jnp.mean(share * simple), "vlb": jnp.mean(share * vlb)}
        return jnp.mean(share * each), Aux(metrics, {"history": history} if self.importance else {})

    def denoise(self, params: Params, cond: Batch | None = None) -> Denoise:
        """The learned denoiser with its v, conditional on labels [b], or unconditional."""

        def prediction(x: Array, t: Array) -> Prediction:
            vector = condition_vector(self.condition, cond, len(x))
            return self.predictions(params, x, jnp.broadcast_to(t, (len(x),)), vector)[1]

        return prediction

    @property
    def sampling(self) -> Sampling:
        """The sampler's."""
        return sampling_of(self.sampler)

    def sample(self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None) -> State:
        """Samples from the prior with the sampler."""
        self._check_sampler()
        cond = cond if self.condition else None
        denoise = self.threshold.constrain(self.denoise(params, cond), self.process)
        return sample(denoise, self.process, self.sampler, key, (num, *self.shape))

    @property
    def log_prob_kind(self) -> str:
        """All T terms of the bound, with one noise sample each."""
        return f"lower bound (VLB, {self.steps} steps)"

    def log_prob(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Values:
        """-L_vlb, in nats per example: a log-density in the scale of x (see `distributions.gaussian`)."""
        x0 = batch["x"]
        cond = condition_vector(self.condition, batch, len(x0))

        def add(total: Array, number: Array) -> tuple[Array, None]:
            eps = jax.random.normal(jax.random.fold_in(named(key, "noise"), number), x0.shape, x0.dtype)
            index = jnp.full(len(x0), number)
            return total + self.terms(params, x0, eps, index, cond)[1], None

        prior = self.process.prior_kl(x0, jnp.ones((), x0.dtype))
        bound, _ = jax.lax.scan(add, prior, jnp.arange(self.steps))
        return -bound - gaussian.log_cell_volume(self.levels, prod(self.shape))
