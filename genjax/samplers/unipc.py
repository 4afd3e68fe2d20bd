"""UniPC with B_2(h) = e^h - 1: a multistep predictor, and a corrector without extra evaluations.

Zhao et al. 2023, arXiv:2302.04867, alg. 1-2 and 5-8, data prediction. In lambda = log(alpha / sigma) both
integrate a polynomial through estimates of x_0 (see `dpm`); solving the paper's systems R rho = b gives
exactly this polynomial's weights. The predictor UniP-p is DPM-Solver++'s formula of order p. Once x_0 has been
evaluated at the predicted x_t, the corrector UniC-p repeats that step with this estimate as one more node:

    u = 0: x_0,   u = -h_1: x_1,   u = -h_1 - h_2: x_2   and   u = h: x_0's estimate at the predicted state,

of order p + 1; p = 1 has the weight (1 - e^-h) / 2 instead of the line's. The next predictor starts from the
corrected state, and the estimate is kept: one evaluation per step.
"""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array, Key, PyTree, record
from genjax.diffusion.prediction import Denoise, from_x0
from genjax.diffusion.process import Process
from genjax.samplers.dpm import DPMSolverPP, History, lambda_gap
from genjax.samplers.scan import SamplerState


@record
class Corrected:
    """Memory of UniPC.

    Attributes:
        history: estimates of x_0 at t_0, t_1, ..., the newest first, with the gaps after each.
        x: corrected state at t_0, [b, ...].
        time: t_0, scalar.
        order: order of the last step's predictor, int32; 0 before the first step.
    """

    history: PyTree
    x: PyTree
    time: PyTree
    order: PyTree


def corrector_weights(order: Array, gaps: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    """Weights of x_s - x_0, x_0 - x_1 and x_1 - x_2 in UniC of order 1, 2 or 3, scalars.

    Args:
        order: p, int32.
        gaps: h, h_1 and h_2 in lambda; infinite beyond the order.

    Returns:
        The three weights; 0 beyond the order.
    """
    h, h_1, h_2 = gaps
    i_0 = -jnp.expm1(-h)
    i_1 = h - i_0
    i_2 = h**2 - 2.0 * i_1
    i_3 = h**3 - 3.0 * i_2
    bend = (i_2 - h * i_1) / (h + h_1)  # of f[s,0] - f[0,1]
    twist = (i_3 + (h_1 - h) * i_2 - h * h_1 * i_1) / (h + h_1 + h_2)  # of f[s,0,1] - f[0,1,2]
    third = (
        (i_1 + bend + twist / (h + h_1)) / h,
        -(bend + twist / (h + h_1) + twist / (h_1 + h_2)) / h_1,
        twist / (h_1 + h_2) / h_2,
    )
    second = (i_1 + bend) / h, -bend / h_1, jnp.zeros_like(h)
    first = 0.5 * i_0, jnp.zeros_like(h), jnp.zeros_like(h)
    one, two, three = (
        jnp.where(order >= 3, c, jnp.where(order == 2, b, a))
        for a, b, c in zip(first, second, third, strict=True)
    )
    return one, two, three


@dataclass(frozen=True)
class UniPC(DPMSolverPP):
    """UniPC of order 2 or 3: DPM-Solver++ with the corrector UniC of the same order."""

    order: Literal[1, 2, 3] = 2

    def init(self, x: Float[Array, "b ..."]) -> SamplerState:
        """The initial state, with an empty history."""
        zeros, gap = jnp.zeros_like(x), jnp.asarray(jnp.inf, x.dtype)
        history = History((zeros,) * 3, (gap,) * 3, jnp.asarray(self.steps, jnp.int32))
        return SamplerState(x=x, memory=Corrected(history, x, jnp.ones((), x.dtype), jnp.int32(0)))

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """One evaluation; see `Sampler.step`."""
        memory, x0 = state.memory, denoise(state.x, t).x0
        x = self._correct(process, memory, x0, state.x, t)
        known = memory.history
        recent = History(known.estimates[: self.order - 1], known.gaps[: self.order - 1], known.left)
        # x0 stays the estimate at the uncorrected state
        held = lambda x_u, u: from_x0(process, x0, x_u, u)
        ahead = super().step(held, process, SamplerState(x, recent), t, s, key)
        gap = lambda_gap(process, t, s)
        order = self.order_now(recent, gap)
        return SamplerState(x=ahead.x, memory=Corrected(known.after(x0, gap), x, t, order))

    def _correct(self, process: Process, memory: Corrected, x0: Array, x: Array, t: Array) -> Array:
        """UniC: the state at t, recomputed with the estimate x0 made there; x itself in the first step."""
        history, before = memory.history, memory.time
        ratio = process.sigma(t) / process.sigma(before)
        base = ratio * memory.x + (process.alpha(t) - process.alpha(before) * ratio) * history.estimates[0]
        estimates = (x0, *history.estimates)
        weights = corrector_weights(memory.order, history.gaps)
        for weight, new, old in zip(weights, estimates, estimates[1:], strict=False):
            base = base + process.alpha(t) * weight * (new - old)
        usable = (memory.order > 0) & jnp.isfinite(history.gaps[0])
        return jnp.where(usable, base, x)
