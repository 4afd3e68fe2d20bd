"""Langevin dynamics: Markov chains that leave a density stationary and need its score alone.

    x <- x + e score(x) + sqrt(2 e) z,    z ~ N(0, I),

has the density as its stationary distribution as e -> 0. On N(m, v) it is an autoregressive process with coefficient
1 - e / v, stationary mean m and (biased) stationary variance v / (1 - e / (2 v)).

- Annealed Langevin dynamics (Song & Ermon 2019, arXiv:1907.05600, alg. 1, with alpha_i = 2 e there) runs it at
  one noise level after another, with steps proportional to sigma^2. The paper has alpha = 1; otherwise x / alpha
  replaces x: x is scaled by alpha_s / alpha_t between two levels (not where alpha_t = 0).
- As a corrector (Song et al. 2021, arXiv:2011.13456, alg. 4-5) it corrects the marginal
  after a predictor's step, with e = 2 (r |z| / |score|)^2 for a signal-to-noise ratio r.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array, Key, named
from genjax.diffusion.prediction import Denoise, score
from genjax.diffusion.process import Process
from genjax.samplers.grids import Grid, LogSNR
from genjax.samplers.ode import SingleStep
from genjax.samplers.scan import Sampler, SamplerState
from genjax.samplers.sde import ReverseDiffusion

Score = Callable[[Array], Array]  # x [b, ...] -> grad log p(x) [b, ...]
StepSize = Callable[[Array, Array], Array]  # (score, z) -> scalar e


def _langevin(
    gradient: Score, start: Array, key: Key, size: StepSize, steps: int, trace: bool = False
) -> tuple[Array, Array | None]:
    """The final state [b, ...] and, with `trace`, the states after every step [steps, b, ...]."""

    def step(x: Array, index: Array) -> tuple[Array, Array | None]:
        noise = jax.random.normal(jax.random.fold_in(key, index), x.shape, x.dtype)
        slope = gradient(x)
        length = size(slope, noise)
        x = x + length * slope + jnp.sqrt(2.0 * length) * noise
        return x, x if trace else None

    return jax.lax.scan(step, start, jnp.arange(steps))


def langevin(
    gradient: Score,
    start: Float[Array, "b ..."],
    key: Key,
    *,
    steps: int,
    step_size: float,
    trace: bool = False,
) -> Float[Array, "..."]:
    """Unadjusted Langevin dynamics in a fixed density.

    Args:
        gradient: the score, grad log p, x [b, ...] -> [b, ...].
        start: initial state, in the data's units.
        key: typed PRNG key; step i uses `fold_in(named(key, "langevin"), i)`.
        steps: number of steps, each one evaluation of the score.
        step_size: e, in squared units of x.
        trace: return the whole path [steps + 1, b, ...] instead of its end [b, ...].

    Returns:
        The final state, or the path with the start first.
    """
    size = lambda slope, noise: jnp.asarray(step_size, start.dtype)
    end, path = _langevin(gradient, start, named(key, "langevin"), size, steps, trace)
    return jnp.concatenate([start[None], path]) if path is not None else end


@dataclass(frozen=True)
class AnnealedLangevin(SingleStep):
    """Langevin dynamics at one noise level after another; the step from t to s runs at level s.

    Attributes:
        steps: number of noise levels after the first.
        grid: of the noise levels; log-SNR makes them geometric as in the paper, and sigma > 0 at its end.
        inner: T, number of Langevin steps at a level.
        step_size: e / sigma^2; in the paper's symbols epsilon / (2 sigma_L^2).
    """

    steps: int = 10
    grid: Grid = LogSNR()
    inner: int = 100
    step_size: float = 0.1

    @property
    def evaluations(self) -> int:
        """T per level."""
        return self.steps * self.inner

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """`inner` evaluations; see `Sampler.step`."""
        gradient = lambda x: score(denoise(x, s), process, s)
        size = lambda slope, noise: self.step_size * process.sigma(s) ** 2
        alpha_t = process.alpha(t)
        scale = jnp.where(alpha_t > 0, process.alpha(s) / alpha_t, 1.0)
        end, _ = _langevin(gradient, scale * state.x, named(key, "langevin"), size, self.inner)
        return SamplerState(x=end)


@dataclass(frozen=True)
class LangevinCorrector:
    """Langevin steps at one noise level with a length set by the signal-to-noise ratio.

    The norms are means over the batch, as in the authors' code: a single example's score may vanish. The
    paper's factor alpha_i = 1 - beta_i, which tends to 1 with finer grids, is omitted.

    Attributes:
        steps: M, number of steps.
        signal_to_noise: r, about 0.16 for images.
    """

    steps: int = 1
    signal_to_noise: float = 0.16

    def correct(self, denoise: Denoise, process: Process, x: Array, t: Array, key: Key) -> Array:
        """Applies `steps` Langevin steps at time t.

        Args:
            denoise: (x, t) -> Prediction.
            process: alpha and sigma.
            x: state [b, ...].
            t: time, scalar, with sigma(t) > 0.
            key: typed PRNG key.

        Returns:
            The corrected state [b, ...].
        """
        norm = lambda y: jnp.mean(jnp.sqrt(jnp.sum(y**2, axis=tuple(range(1, y.ndim)))))
        size = lambda slope, noise: 2.0 * (self.signal_to_noise * norm(noise) / norm(slope)) ** 2
        gradient = lambda x: score(denoise(x, t), process, t)
        return _langevin(gradient, x, named(key, "corrector"), size, self.steps)[0]


@dataclass(frozen=True)
class PredictorCorrector:
    """A predictor's step, then a corrector at the time reached (Song et al. 2021, alg. 1).

    Attributes:
        predictor: any sampler.
        corrector: leaves the marginal invariant; skipped where sigma = 0.
    """

    predictor: Sampler = ReverseDiffusion()
    corrector: LangevinCorrector = LangevinCorrector()

    @property
    def steps(self) -> int:
        """The predictor's."""
        return self.predictor.steps

    @property
    def evaluations(self) -> int:
        """Of predictor and corrector, if the last time has sigma > 0."""
        return self.predictor.evaluations + self.predictor.steps * self.corrector.steps

    def times(self, process: Process) -> Float[Array, " n"]:
        """The predictor's grid."""
        return self.predictor.times(process)

    def init(self, x: Float[Array, "b ..."]) -> SamplerState:
        """The predictor's initial state."""
        return self.predictor.init(x)

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """Evaluates as often as predictor and corrector together; see `Sampler.step`."""
        state = self.predictor.step(denoise, process, state, t, s, key)
        correct = lambda x: self.corrector.correct(denoise, process, x, s, key)
        return SamplerState(
            x=jax.lax.cond(process.sigma(s) > 0, correct, lambda x: x, state.x), memory=state.memory
        )
