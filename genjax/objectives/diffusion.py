"""Diffusion models: score matching, DDPM, flow matching, by choice of process and parameterization.

    x_t = alpha(t) x_0 + sigma(t) eps,
    loss = E_{x_0, eps, t} [ w(t) mean over dimensions of (out(x_t, t, c) - target)^2 ].

With `VP`, `Eps` and w = 1 this is denoising score matching of the variance-preserving SDE (Song et al. 2021,
arXiv:2011.13456, eq. 7, with lambda(t) = sigma(t)^2): the network's output is -sigma(t) times the score.
For classifier-free guidance the label is dropped at random while training (Ho & Salimans 2022,
arXiv:2207.12598, alg. 1); a zero vector stands for "no label".
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.diffusion.guidance import classifier_free, clipped
from genjax.diffusion.likelihood import OdeLikelihood
from genjax.diffusion.prediction import Denoise, Eps, Parameterization, Prediction
from genjax.diffusion.process import VP, Process
from genjax.diffusion.times import Times, UniformTimes
from genjax.diffusion.weighting import Unit, Weighting
from genjax.objective import Aux, Context, Network, Player
from genjax.objectives.common import check_shape, condition
from genjax.samplers.ode import DDIM
from genjax.samplers.scan import Sampler, sample
from genjax.tree import tunable
from genjax.types import Array, Batch, Extra, Key, Params, named


@dataclass(frozen=True)
class Diffusion:
    """Learns to denoise; samples by walking from noise to data.

    Attributes:
        net: called as net(x_t, t, cond, out=shape, train=...), gives an array shaped as x_t; (x_t, t) are scaled
            first if the parameterization says so.
        shape: of one example.
        classes: number of labels; 0 for an unconditional model.
        process: alpha and sigma.
        predict: what the network's output means.
        times: distribution of training times.
        weight: w(t), on the squared error of the network's output.
        label_dropout: probability of hiding the label, so that one network serves both sides of guidance.
        guidance: scale of classifier-free guidance when sampling; 1 is the plain conditional model.
        clip: samples' estimates of x_0 stay within [-clip, clip]; 0 turns it off.
        sampler: the method and its grid.
        likelihood: solver behind `log_prob`; with 0 steps there is no likelihood.
    """

    net: Network
    shape: tuple[int, ...]
    classes: int = 0
    process: Process = VP()
    predict: Parameterization = Eps()
    times: Times = UniformTimes()
    weight: Weighting = Unit()
    label_dropout: float = 0.1
    guidance: float = tunable(1.0)
    clip: float = tunable(0.0)
    sampler: Sampler = tunable(DDIM())
    likelihood: OdeLikelihood = tunable(OdeLikelihood())

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """One player, `net`. Raises UserError where the batch has another shape than `shape`."""
        check_shape(self.shape, batch, self.classes)
        x = batch["x"]
        cond = condition(batch, len(x), self.classes)
        return {"net": self.net.init(key, x, jnp.zeros(len(x)), cond, out=self.shape)}, {}

    def players(self) -> Mapping[str, Player]:
        """One: likelihood-free regression has nobody to play against."""
        return {"net": Player(self.loss)}

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """Weighted mean squared error of the network's output against its target."""
        x0 = batch["x"]
        t = self.times.draw(self.process, named(ctx.key, "times"), len(x0))
        eps = jax.random.normal(named(ctx.key, "noise"), x0.shape, x0.dtype)
        cond = condition(batch, len(x0), self.classes)
        if cond is not None:
            kept = jax.random.bernoulli(named(ctx.key, "labels"), 1.0 - self.label_dropout, (len(x0), 1))
            cond = cond * kept
        rngs = {"dropout": named(ctx.key, "dropout")}
        x, time = self.predict.inputs(self.process, self.process.marginal(x0, eps, t), t)
        out = self.net.apply(params["net"], x, time, cond, out=self.shape, train=ctx.train, rngs=rngs)
        error = (out - self.predict.target(self.process, x0, eps, t)) ** 2
        each = jnp.mean(error, axis=tuple(range(1, error.ndim)))
        return jnp.mean(self.weight.weight(self.process, self.predict, t) * each), Aux()

    def denoise(self, params: Params, label: Array | None = None) -> Denoise:
        """The learned denoiser, given labels [b] or for nobody in particular."""

        def prediction(x: Array, t: Array) -> Prediction:
            cond = condition(None if label is None else {"label": label}, len(x), self.classes)
            scaled, time = self.predict.inputs(self.process, x, jnp.broadcast_to(t, (len(x),)))
            out = self.net.apply(params["net"], scaled, time, cond, out=self.shape)
            return self.predict.decode(self.process, out, x, t)

        return prediction

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """Walks from the prior with the sampler, guided if a label is given."""
        label = None if cond is None or not self.classes else cond["label"]
        denoise = self.denoise(params, label)
        if label is not None:
            denoise = classifier_free(denoise, self.denoise(params), self.guidance)
        if self.clip:
            denoise = clipped(denoise, self.process, -self.clip, self.clip)
        return sample(denoise, self.process, self.sampler, key, (num, *self.shape))

    @property
    def log_prob_kind(self) -> str:
        """Solver, steps and trace; empty if `likelihood` is off."""
        return self.likelihood.kind

    def log_prob(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Float[Array, " b"]:
        """log p(x), or log p(x | label) of a model with classes, in nats per example, neither guided nor clipped."""
        denoise = self.denoise(params, batch.get("label"))
        return self.likelihood.log_prob(denoise, self.process, batch["x"], named(key, "likelihood"))
