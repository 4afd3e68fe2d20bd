"""Progressive distillation (Salimans & Ho 2022, arXiv:2202.00512, alg. 2): each stage halves the number of steps.

A student of N steps learns to match two DDIM steps of its teacher by one. For t one of i / N, i = 1 ... N, in units of
[low, high], t' = t - 1 / (2 N) and t'' = t - 1 / N, the end of the teacher's steps x_t -> x_t' -> x_t'' is reached in a
single step with the estimate of x_0 (app. G)

    x~ = (x_t'' - (sigma_t'' / sigma_t) x_t) / (alpha_t'' - (sigma_t'' / sigma_t) alpha_t),

    loss = E [ max(SNR(t), 1) mean over dimensions of (x~ - x_0_hat(x_t, t))^2 ]      (truncated SNR, sec. 4).

A stage takes a fixed number of optimizer steps; then the student becomes the teacher and N is halved. The stage, and
hence N, is a function of the step. The first teacher is a trained diffusion model of any parameterization; the student
needs a parameterization that is well-conditioned at alpha = 0, such as v (sec. 4).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.errors import UserError
from genjax.core.objective import Aux, Conditioner, Context, Player, Sampling
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.diffusion.guidance import ClassifierFree
from genjax.diffusion.prediction import Denoise, Parameterization, V
from genjax.diffusion.process import Process, expand
from genjax.diffusion.threshold import NoThreshold
from genjax.objectives.diffusion.compatibility import check_sampler
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.objectives.diffusion.distillation import Teacher, solve
from genjax.samplers.grids import Uniform
from genjax.samplers.ode import DDIM
from genjax.samplers.scan import sample


def one_step_x0(
    process: Process,
    x: Float[Array, "b ..."],
    t: Float[Array, " b"],
    landed: Float[Array, "b ..."],
    s: Float[Array, " b"],
) -> Float[Array, "b ..."]:
    """x~: the estimate of x_0 for which one DDIM step leads from x at t to `landed` at s < t (app. G).

    Args:
        process: alpha and sigma.
        x: states at t [b, ...].
        t: the start of the step [b].
        landed: states at s, shaped as x.
        s: the end of the step [b].

    Returns:
        x~, shaped as x.
    """
    ratio = process.sigma(s) / process.sigma(t)
    gain = process.alpha(s) - ratio * process.alpha(t)
    return (landed - expand(ratio, x) * x) / expand(gain, x)


@dataclass(frozen=True)
class Progressive:
    """Learns to sample in successively fewer steps.

    Attributes:
        teacher: the first teacher; the student has its network, process and classes.
        predict: the parameterization of the student's output.
        low: time of the samples; 0 where DDIM reaches noise-free data.
        high: time of the prior.
        first: N of the first stage, whose teacher takes 2 N steps.
        last: N of the last stage; `first` / `last` is a power of 2. Sampling takes this many steps.
        every: optimizer steps per stage; the last stage lasts to the end of the run.
    """

    teacher: Teacher
    predict: Parameterization = V()
    low: float = 0.0
    high: float = 1.0
    first: int = 16
    last: int = 1
    every: int = 1000

    @property
    def student(self) -> Diffusion:
        """The trained model: the teacher's, with the student's parameterization."""
        return dataclasses.replace(self.teacher.model, predict=self.predict)

    @property
    def condition(self) -> Conditioner | None:
        """Number of labels; 0 for an unconditional model."""
        return self.teacher.model.condition

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """The student is initialised with the first teacher, extra["teacher"]; extra["before"] is the previous student.

        Raises:
            UserError: the batch does not match the teacher's shape, or `first` / `last` is not a power of 2.
        """
        ratio = self.first // max(self.last, 1)
        if min(self.last, self.every) < 1 or ratio * self.last != self.first or ratio & (ratio - 1):
            raise UserError(
                f"first / last must be a power of 2, and last and every at least 1, got first={self.first}, "
                f"last={self.last}, every={self.every}"
            )
        self._check_steps()
        taught = self.teacher.load(key, batch)
        copy = lambda: jax.tree.map(jnp.copy, dict(taught))
        return copy(), {"teacher": taught, "before": copy()}

    def _check_steps(self) -> None:
        """That the first teacher's steps and the students' are finite, `high` and `low` included."""
        for predict, steps in ((self.teacher.model.predict, 2 * self.first), (self.predict, self.last)):
            sampler = DDIM(steps, Uniform(self.high, self.low))
            check_sampler(self.student.process, predict, sampler, ClassifierFree(), NoThreshold())

    def players(self) -> Mapping[str, Player]:
        """One player, `net`."""
        return {"net": Player(self.loss)}

    def stage(self, step: Int[Array, ""]) -> Int[Array, ""]:
        """Number of halvings so far, int32."""
        return jnp.minimum(step // self.every, (self.first // self.last).bit_length() - 1).astype(jnp.int32)

    def target(
        self, extra: Extra, stage: Array, batch: Batch, x: Float[Array, "b ..."], times: Float[Array, "3 b"]
    ) -> Float[Array, "b ..."]:
        """The regression target x~ from two steps of the current teacher.

        Args:
            extra: "teacher", the first teacher, and "before", the previous stage's student.
            stage: index of the stage, a scalar; in stage 0 the teacher is the first teacher.
            batch: gives the labels.
            x: states at t [b, ...].
            times: (t, t', t'') [3, b].

        Returns:
            x~, shaped as x, with gradients stopped.
        """
        process = self.student.process

        def two_steps(denoise: Denoise) -> Array:
            step = lambda x, ends: (solve(denoise, process, x, *ends), None)
            return jax.lax.scan(step, x, (times[:-1], times[1:]))[0]  # compiled once for both

        first = lambda: two_steps(self.teacher.denoise(extra["teacher"], batch))
        previous = lambda: two_steps(self.student.denoise(extra["before"], batch))
        landed = jax.lax.cond(stage == 0, first, previous)
        return jax.lax.stop_gradient(one_step_x0(process, x, times[0], landed, times[2]))

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """Weighted squared error of x_0 against x~ of the current stage; in evaluation, of the last stage."""
        process, x0 = self.student.process, batch["x"]
        end = jnp.asarray(2**31 - 1, jnp.int32)
        stage = self.stage(ctx.step if ctx.train else end)
        new = (stage > 0) & (ctx.step == stage * self.every)
        latest = lambda now, then: jnp.where(new, jax.lax.stop_gradient(now), then)
        before = jax.tree.map(latest, dict(params), dict(extra["before"]))
        number = self.first // 2**stage
        index = jax.random.randint(named(ctx.key, "times"), (len(x0),), 1, number + 1)
        # Computed from the index, so that rounding gives no time below `low`.
        at = lambda index: self.low + (self.high - self.low) * (index / number).astype(x0.dtype)
        times = jnp.stack([at(index), at(index - 0.5), at(index - 1)])
        x = process.marginal(x0, jax.random.normal(named(ctx.key, "noise"), x0.shape, x0.dtype), times[0])
        target = self.target({**extra, "before": before}, stage, batch, x, times)
        error = (self.student.denoise(params, batch)(x, times[0]).x0 - target) ** 2
        weight = jnp.maximum((process.alpha(times[0]) / process.sigma(times[0])) ** 2, 1.0)
        value = jnp.mean(weight * jnp.mean(error, axis=tuple(range(1, x.ndim))))
        return value, Aux({"steps": number.astype(jnp.float32)}, {"before": before})

    @property
    def sampling(self) -> Sampling:
        """`last` DDIM steps."""
        return Sampling("DDIM", self.last, self.last)

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """`last` DDIM steps."""
        sampler = DDIM(self.last, Uniform(self.high, self.low))
        shape = (num, *self.student.shape)
        return sample(self.student.denoise(params, cond), self.student.process, sampler, key, shape)
