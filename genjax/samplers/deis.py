"""DEIS: an exponential integrator with the noise extrapolated in t (Zhang & Chen 2022, arXiv:2204.13902).

With r = sigma / alpha the probability-flow ODE is d(x / alpha) = eps dr. Its linear part is solved exactly and eps
is replaced by the polynomial through the estimates at the last times t_0 = t < t_1 < ... (eq. 13-14, tAB-DEIS):

    x_s = (alpha_s / alpha_t) x_t + sum_j C_j eps_j,    C_j = alpha_s int_t^s r'(u) l_j(u) du,

with Lagrange's l_j, l_j(t_i) = 1 where i = j, else 0. They sum to 1, so that C_0 follows from the others, and
integration by parts removes r', which is infinite at t = 0 for variance-preserving processes:

    x_s = DDIM + sum_(j > 0) C_j (eps_j - eps_0),    C_j = int_t^s (sigma_s - alpha_s r(u)) l_j'(u) du.

The C_j are functions of the process and the times alone, by Gauss-Legendre quadrature. Order 1 is DDIM. DPM-Solver++
extrapolates x_0 in log(alpha / sigma) instead.
"""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import numpy as np

from genjax.core.types import Array, Key
from genjax.diffusion.prediction import Denoise
from genjax.diffusion.process import Process, derivative
from genjax.samplers.dpm import History, Multistep
from genjax.samplers.scan import SamplerState

NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)


def lagrange(times: tuple[Array, ...], j: int, u: Array) -> Array:
    """Lagrange's basis polynomial.

    Args:
        times: nodes, scalars.
        j: index of the node where the polynomial is 1; it is 0 at the others.
        u: where to evaluate it, any shape.

    Returns:
        l_j(u), shaped as u.
    """
    value = jnp.ones_like(u)
    for i, time in enumerate(times):
        value = value if i == j else value * (u - time) / (times[j] - time)
    return value


def weights(process: Process, times: tuple[Array, ...], s: Array) -> list[Array]:
    """C_1, C_2, ... of the step from times[0] to s, scalars; see the module's docstring.

    Args:
        process: alpha and sigma; alpha > 0 between the times.
        times: t_0, t_1, ..., the newest first, scalars.
        s: end of the step, scalar.

    Returns:
        The weights of eps_j - eps_0, j = 1, 2, ...
    """
    half = 0.5 * (s - times[0])
    u = times[0] + half * (1.0 + jnp.asarray(NODES, s.dtype))
    kernel = process.sigma(s) - process.alpha(s) * process.sigma(u) / process.alpha(u)
    share = half * jnp.asarray(WEIGHTS, s.dtype) * kernel
    slope = lambda j: derivative(lambda v: lagrange(times, j, v), u)[1]
    return [jnp.sum(share * slope(j)) for j in range(1, len(times))]


@dataclass(frozen=True)
class DEIS(Multistep):
    """tAB-DEIS of order 1 (DDIM) to 4, deterministic; lower orders in the first steps, and 1 where alpha_t = 0."""

    order: Literal[1, 2, 3, 4] = 3

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """One evaluation; see `Sampler.step`."""
        prediction, memory = denoise(state.x, t), state.memory
        x = process.alpha(s) * prediction.x0 + process.sigma(s) * prediction.eps
        for weight, old in zip(self._weights(process, memory, t, s), memory.estimates, strict=True):
            x = x + weight * (old - prediction.eps)
        return SamplerState(x=x, memory=memory.after(prediction.eps, t - s))

    def _weights(self, process: Process, memory: History, t: Array, s: Array) -> list[Array]:
        """Weights of eps_j - eps_0; 0 for j not below the order of this step."""
        now = self.order_now(memory, process.log_snr(t))
        times: tuple[Array, ...] = (t,)
        chosen = [jnp.zeros_like(t)] * (self.order - 1)
        for order, gap in enumerate(memory.gaps, start=2):
            times = (*times, times[-1] + gap)
            new = weights(process, times, s)
            chosen[: order - 1] = [
                jnp.where(now == order, c, old) for c, old in zip(new, chosen, strict=False)
            ]
        return chosen
