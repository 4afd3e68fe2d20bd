"""DPM-Solver++: exponential multistep solvers in half the log-SNR (Lu et al. 2022, arXiv:2211.01095).

With lambda = log(alpha / sigma) and h = lambda_s - lambda_t the probability-flow ODE is solved by (eq. 8)

    x_s = (sigma_s / sigma_t) x_t + alpha_s int_0^h e^(u - h) x_0(lambda_t + u) du,

where x_0 is the denoiser's estimate along the path. Holding it constant is DDIM. 2M (alg. 2) uses
x_0 + h / (2 h_1) (x_0 - x_1), with x_1 the estimate one step of length h_1 earlier. 3M integrates the
parabola through three estimates exactly: with f[0,1] = (x_0 - x_1) / h_1, f[1,2] = (x_1 - x_2) / h_2,
f[0,1,2] = (f[0,1] - f[1,2]) / (h_1 + h_2) and I_k = int_0^h e^(u - h) u^k du,

    x_s = DDIM + alpha_s (I_1 f[0,1] + (I_2 + h_1 I_1) f[0,1,2]),    I_0 = 1 - e^-h, I_k = h^k - k I_(k-1).

(The authors' code and its descendants weight f[0,1,2]'s I_2 by one half, which loses the third order.)

The SDE's version (eq. 19 and app. B) adds noise and doubles the decay rate of x_t's share:

    x_s = alpha_s x_0 + sigma_s (e^-h eps + sqrt(1 - e^(-2h)) z) + alpha_s (1 - e^(-2h)) h / (2 h_1) (x_0 - x_1).

The first steps have lower orders. A single step of order 1 has error O(h^2): 2M keeps its order of
convergence, 3M reaches order 3 up to that first error, which is small while x_0 hardly changes.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array, Key, PyTree, named, record
from genjax.diffusion.prediction import Denoise
from genjax.diffusion.process import Process
from genjax.samplers.ode import SingleStep
from genjax.samplers.scan import SamplerState


@record
class History:
    """Memory of a multistep method, the newest first.

    Attributes:
        estimates: earlier estimates of x_0 (DEIS: of eps), each [b, ...].
        gaps: step sizes in lambda (DEIS: in t) between the estimates, scalars; infinite where there is none yet.
        left: number of remaining steps, this one included.
    """

    estimates: PyTree
    gaps: PyTree
    left: PyTree

    def after(self, estimate: Array, gap: Array) -> "History":
        """Replaces the oldest estimate by the newest."""
        length = len(self.estimates)
        return History((estimate, *self.estimates)[:length], (gap, *self.gaps)[:length], self.left - 1)


def lambda_gap(process: Process, t: Array, s: Array) -> Float[Array, ""]:
    """The step size h = lambda_s - lambda_t.

    Args:
        process: its log-SNR.
        t: current time.
        s: next time.

    Returns:
        h, infinite if sigma_s = 0 or alpha_t = 0.
    """
    return 0.5 * (process.log_snr(s) - process.log_snr(t))


@dataclass(frozen=True)
class Multistep(SingleStep):
    """Base of multistep methods: the history, and the order of each step.

    Attributes:
        order: order of the method; 1 is DDIM.
        lower_order_final: the last steps have orders ..., 2, 1, which is more stable with few steps.
    """

    steps: int = 20
    order: int = 2
    lower_order_final: bool = True

    def init(self, x: Float[Array, "b ..."]) -> SamplerState:
        """The initial state, with an empty history."""
        length = self.order - 1
        gap = jnp.asarray(jnp.inf, x.dtype)
        left = jnp.asarray(self.steps, jnp.int32)
        return SamplerState(x=x, memory=History((jnp.zeros_like(x),) * length, (gap,) * length, left))

    def order_now(self, memory: History, h: Array) -> Array:
        """The order of this step, int32: limited by the history, and 1 where h is infinite."""
        known = sum((jnp.isfinite(gap).astype(jnp.int32) for gap in memory.gaps), jnp.int32(1))
        order = jnp.minimum(known, memory.left) if self.lower_order_final else known
        return jnp.where(jnp.isfinite(h), order, 1)


@dataclass(frozen=True)
class DPMSolverPP(Multistep):
    """DPM-Solver++ of order 1 (DDIM), 2 (2M) or 3 (3M), deterministic."""

    order: Literal[1, 2, 3] = 2

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """One evaluation; see `Sampler.step`."""
        prediction, memory = denoise(state.x, t), state.memory
        h = lambda_gap(process, t, s)
        x = process.alpha(s) * prediction.x0 + process.sigma(s) * prediction.eps
        estimates = (prediction.x0, *memory.estimates)
        for weight, new, old in zip(self._weights(memory, h), estimates, estimates[1:], strict=False):
            x = x + process.alpha(s) * weight * (new - old)
        return SamplerState(x=x, memory=memory.after(prediction.x0, h))

    def _weights(self, memory: History, h: Array) -> list[Array]:
        """Weights of x_0 - x_1 and x_1 - x_2, scalars; 0 beyond the order of this step."""
        if self.order == 1:
            return []
        now, h_1 = self.order_now(memory, h), memory.gaps[0]
        i_0 = -jnp.expm1(-h)
        second = jnp.where(now >= 2, i_0 * h / (2.0 * h_1), 0.0)
        if self.order == 2:
            return [second]
        h_2, i_1 = memory.gaps[1], h - i_0
        bend = (h**2 - 2.0 * i_1 + h_1 * i_1) / (h_1 + h_2)
        return [
            jnp.where(now >= 3, (i_1 + bend) / h_1, second),
            jnp.where(now >= 3, -bend / h_2, 0.0),
        ]


@dataclass(frozen=True)
class SDEDPMSolverPP(Multistep):
    """SDE-DPM-Solver++ of order 1 (DDPM's ancestral step) or 2 (2M)."""

    order: Literal[1, 2] = 2

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """One evaluation; see `Sampler.step`."""
        prediction, memory = denoise(state.x, t), state.memory
        alpha, sigma, h = process.alpha(s), process.sigma(s), lambda_gap(process, t, s)
        decayed = -jnp.expm1(-2.0 * h)
        noise = jax.random.normal(named(key, "noise"), state.x.shape, state.x.dtype)
        x = alpha * prediction.x0 + sigma * (jnp.exp(-h) * prediction.eps + jnp.sqrt(decayed) * noise)
        if self.order == 2:
            weight = decayed * h / (2.0 * memory.gaps[0])
            weight = jnp.where(self.order_now(memory, h) >= 2, weight, 0.0)
            x = x + alpha * weight * (prediction.x0 - memory.estimates[0])
        return SamplerState(x=x, memory=memory.after(prediction.x0, h))
