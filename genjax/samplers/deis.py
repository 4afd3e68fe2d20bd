"""DEIS: an exponential integrator with the noise extrapolated in t (Zhang & Chen 2022, arXiv:2204.13902).

With r = sigma / alpha the probability-flow ODE is d(x / alpha) = eps dr. Its linear part is solved exactly and eps
is replaced by the polynomial through the estimates at the last times t_0 = t < t_1 < ... (eq. 13-14, tAB-DEIS):

    x_s = (alpha_s / alpha_t) x_t + sum_j C_j eps_j,    C_j = alpha_s int_t^s r'(u) l_j(u) du,

with Lagrange's l_j, l_j(t_i) = 1 where i = j, else 0. They sum to 1, so that C_0 follows from the others, and
integration by parts rids them of r', which is infinite at t = 0 where the variance is preserved:

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
from genjax.samplers.scan import Walk

NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)


def lagrange(times: tuple[Array, ...], j: int, u: Array) -> Array:
    """l_j(u), the polynomial that is 1 at times[j] and 0 at the others; shaped as u."""
    value = jnp.ones_like(u)
    for i, time in enumerate(times):
        value = value if i == j else value * (u - time) / (times[j] - time)
    return value


def weights(process: Process, times: tuple[Array, ...], s: Array) -> list[Array]:
    """C_1, C_2, ... of the step from times[0] to s, scalars.

    Args:
        process: alpha and sigma; alpha > 0 between the times.
        times: t_0, t_1, ..., the newest first, scalars.
        s: where the step ends.
    """
    half = 0.5 * (s - times[0])
    u = times[0] + half * (1.0 + jnp.asarray(NODES, s.dtype))
    kernel = process.sigma(s) - process.alpha(s) * process.sigma(u) / process.alpha(u)
    share = half * jnp.asarray(WEIGHTS, s.dtype) * kernel
    slope = lambda j: derivative(lambda v: lagrange(times, j, v), u)[1]
    return [jnp.sum(share * slope(j)) for j in range(1, len(times))]


@dataclass(frozen=True)
class DEIS(Multistep):
    """tAB-DEIS of order 1 (DDIM) to 4, deterministic; begins with lower orders, and where alpha_t = 0 takes order 1."""

    order: Literal[1, 2, 3, 4] = 3

    def step(self, denoise: Denoise, process: Process, walk: Walk, t: Array, s: Array, key: Key) -> Walk:
        """One evaluation."""
        prediction, memory = denoise(walk.x, t), walk.memory
        x = process.alpha(s) * prediction.x0 + process.sigma(s) * prediction.eps
        for weight, old in zip(self._weights(process, memory, t, s), memory.estimates, strict=True):
            x = x + weight * (old - prediction.eps)
        return Walk(x=x, memory=memory.after(prediction.eps, t - s))

    def _weights(self, process: Process, memory: History, t: Array, s: Array) -> list[Array]:
        """Of eps_j - eps_0; 0 where the order of this step does not reach."""
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
