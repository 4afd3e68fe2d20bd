"""Reflow: rectified flow along a teacher's own paths (Liu et al. 2022, arXiv:2209.03003, alg. 1).

A teacher's probability-flow ODE maps noise z to data x(z). Rectified flow on these pairs instead of independent ones,

    loss = E_{z, t} [ mean over dimensions of (v(x_t, t) - (z - x(z)))^2 ],     x_t = (1 - t) x(z) + t z,

has the same law at t = 0 and paths that cross less (theorem 3.5): straighter, so that few Euler steps do. Once they
are nearly straight, distillation takes t = 1 alone, v = z - x(z) (sec. 2.2, "distillation").

The pairs are made as they are needed, by a few steps of the teacher's sampler within the train step; no data are
used but their labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.objective import Aux, Context, Network, Player
from genjax.core.tree import tunable
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.diffusion.prediction import Velocity, velocity
from genjax.diffusion.process import RectifiedFlow
from genjax.diffusion.times import Times, UniformTimes
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.objectives.diffusion.distillation import Teacher
from genjax.samplers.dpm import DPMSolverPP
from genjax.samplers.grids import Uniform
from genjax.samplers.ode import Euler
from genjax.samplers.scan import Sampler, sample

FLOW = RectifiedFlow()


@dataclass(frozen=True)
class Reflow:
    """Learns straight paths between a teacher's noise and its data.

    Attributes:
        net: called as `Diffusion` calls it, gives the velocity.
        teacher: gives the pairs; its prior N(0, sigma^2) is scaled to N(0, I).
        solver: a deterministic sampler, for the pairs.
        times: distribution of training times.
        distil: train t = 1 only, for samples of one step.
        steps: Euler steps for a sample.
    """

    net: Network
    teacher: Teacher
    solver: Sampler = DPMSolverPP(steps=8)
    times: Times = UniformTimes(low=0.0)
    distil: bool = False
    steps: int = tunable(1)

    @property
    def flow(self) -> Diffusion:
        """The model that is trained."""
        model = self.teacher.model
        sampler = Euler(self.steps, Uniform(1.0, 0.0))
        return Diffusion(self.net, model.shape, model.classes, FLOW, Velocity(), sampler=sampler)

    @property
    def classes(self) -> int:
        """Number of labels; 0 for an unconditional model."""
        return self.teacher.model.classes

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """One player, `net`; the teacher's parameters are carried in extra["teacher"]."""
        return self.flow.init(key, batch)[0], {"teacher": self.teacher.load(key, batch)}

    def players(self) -> Mapping[str, Player]:
        """One."""
        return {"net": Player(self.loss)}

    def pairs(self, extra: Extra, batch: Batch, key: Key) -> tuple[Array, Array]:
        """Noise z ~ N(0, I), and where the teacher's ODE takes it; each as batch["x"]."""
        process = self.teacher.model.process
        z = jax.random.normal(named(key, "noise"), batch["x"].shape, batch["x"].dtype)
        start = process.sigma(self.solver.times(process)[0]).astype(z.dtype) * z
        denoise = self.teacher.denoise(extra["teacher"], batch)
        x = sample(denoise, process, self.solver, named(key, "pairs"), z.shape, start=start)
        return z, jax.lax.stop_gradient(x)

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """Mean squared error of the velocity; at its least it measures how far from straight the paths are."""
        z, x0 = self.pairs(extra, batch, ctx.key)
        t = self.times.draw(FLOW, named(ctx.key, "times"), len(z))
        t = jnp.ones_like(t) if self.distil else t
        denoise = self.flow.denoise(params, batch.get("label"))
        out = velocity(denoise(FLOW.marginal(x0, z, t), t), FLOW, t)
        return jnp.mean((out - (z - x0)) ** 2), Aux()

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """Euler steps from t = 1 to 0."""
        return self.flow.sample(params, extra, key, num, cond)
