"""Implicit score matching: Hyvarinen's loss and its sliced estimates, at one or more noise levels.

The distance of a model s(x) to the unknown score of p is, up to a constant, an expectation over data alone
(Hyvarinen 2005; Song et al. 2019, arXiv:1905.07088, eq. 2; J = ds/dx):

    E |s(x) - grad log p(x)|^2 = E [ 2 tr J(x) + |s(x)|^2 ] + const.

The trace is a sum over dimensions or is estimated with random projections v, E[v v^T] = I:

    exact      2 tr J     + |s|^2
    sliced     2 v^T J v  + (v^T s)^2     (SSM, eq. 8, times 2)
    reduced    2 v^T J v  + |s|^2         (SSM-VR, eq. 9, times 2: the same in expectation with less variance)

J v is one forward-mode derivative of the network, for any number of dimensions.

Data are perturbed, x_t = alpha x_0 + sigma eps, and the loss is averaged over times with weights w(t) (Song & Ermon
2019, arXiv:1907.05600, sec. 3.1-3.2), so that annealed Langevin dynamics and the other samplers apply:

    loss = E_{x_0, eps, t} [ w(t) (2 tr J + |s|^2) / d ] = E [ w(t) |s + eps / sigma|^2 / d ] - E [ w(t) / sigma^2 ].

The right-hand side is `Diffusion`'s loss with the output `Score`: the losses differ by a constant, and this one avoids
the target -eps / sigma, whose variance diverges as sigma -> 0. For unperturbed data choose a `VE` with negligible
sigma_min, `UniformTimes(0, 0)`, `Unit()`, and Langevin dynamics at that level alone, started from N(0, sigma_max^2):
`AnnealedLangevin(steps=1, grid=Uniform())`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.conditioning.labels import training_vector
from genjax.core.arrays import sum_dims
from genjax.core.errors import UserError
from genjax.core.objective import Aux, Context
from genjax.core.tree import tunable
from genjax.core.types import Array, Batch, Extra, Params, named
from genjax.diffusion.coupling import Independent
from genjax.diffusion.ode_likelihood import OdeLikelihood, Probe, basis, draw_probes
from genjax.diffusion.prediction import Eps, Parameterization, Score, score
from genjax.diffusion.process import VE, Process
from genjax.diffusion.times import DiscreteTimes, Times
from genjax.diffusion.weighting import OnEps, Unit, Weighting
from genjax.objectives.diffusion.compatibility import check_training
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.samplers.langevin import AnnealedLangevin
from genjax.samplers.scan import Sampler

Trace = Literal["exact", "sliced", "reduced"]


def hyvarinen(
    function: Callable[[Array], Array],
    x: Float[Array, "b ..."],
    probes: Float[Array, "p _ ..."],
    trace: Trace,
) -> Float[Array, " b"]:
    """2 tr J + |s|^2 of a score model, or its estimate.

    Args:
        function: s, maps each example independently, [b, ...] -> [b, ...].
        x: the point of evaluation [b, ...].
        probes: v [p, b, ...] or, shared by all examples, [p, 1, ...]; for the exact trace the unit vectors.
        trace: see the module; estimates are averaged over probes, the exact trace is their sum.

    Returns:
        One value per example [b], not divided by the number of dimensions.
    """
    value, push = jax.linearize(function, x)

    def project(v: Array) -> tuple[Array, Array]:
        v = jnp.broadcast_to(v, x.shape)
        return sum_dims(push(v) * v), sum_dims(value * v) ** 2

    traces, squares = jax.lax.map(project, probes)
    if trace == "exact":
        return 2.0 * jnp.sum(traces, axis=0) + sum_dims(value**2)
    norm = jnp.mean(squares, axis=0) if trace == "sliced" else sum_dims(value**2)
    return 2.0 * jnp.mean(traces, axis=0) + norm


@dataclass(frozen=True)
class SlicedScoreMatching(Diffusion):
    """Learns the score of perturbed data by implicit score matching; samples as `Diffusion` does.

    Fields inherited from `Diffusion` keep their meaning, except these.

    Attributes:
        weight: w(t), on the squared error of the score for every parameterization; `OnEps` is sigma^2.
        likelihood: disabled by default, since the network is trained at a few noise levels only.
        trace: method for the trace of the Jacobian.
        probes: projections per example; not used by the exact trace.
        probe: distribution of the projections.

    Raises:
        UserError: `probes` is below 1; or the coupling is not `Independent`, or self-conditioning is on.
    """

    process: Process = VE(sigma_min=0.05, sigma_max=5.0)
    predict: Parameterization = Eps()
    times: Times = DiscreteTimes(levels=10, low=0.0)
    weight: Weighting = OnEps()
    sampler: Sampler = tunable(AnnealedLangevin(steps=9))
    likelihood: OdeLikelihood = tunable(OdeLikelihood(steps=0))
    trace: Trace = "reduced"
    probes: int = 1
    probe: Probe = "rademacher"

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise UserError(f"probes={self.probes} must be at least 1; trace='exact' uses no probes")
        if self.self_conditioning or self.coupling != Independent():
            raise UserError(
                "SlicedScoreMatching requires independent noise and no self-conditioning: keep both defaults"
            )

    def _check_training(self) -> None:
        check_training(self.process, Score(), self.weight, self.times)
        check_training(self.process, self.predict, Unit(), self.times, decoded=True)

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """Weighted mean of (2 tr J + |s|^2) / d; negative near the optimum."""
        x0 = batch["x"]
        t = self.times.draw(self.process, named(ctx.key, "times"), len(x0))
        eps = jax.random.normal(named(ctx.key, "noise"), x0.shape, x0.dtype)
        cond = training_vector(self.condition, batch, ctx)
        rngs = {"dropout": named(ctx.key, "dropout")}

        def model(x: Array) -> Array:
            out = self._network(params, x, t, cond, None, train=ctx.train, rngs=rngs)
            return score(self.predict.decode(self.process, out, x, t), self.process, t)

        x = self.process.marginal(x0, eps, t)
        exact = self.trace == "exact"
        probes = basis(x) if exact else draw_probes(ctx.key, self.probe, self.probes, x)
        each = hyvarinen(model, x, probes, self.trace) / x[0].size
        return jnp.mean(self.weight.weight(self.process, Score(), t) * each), Aux()
