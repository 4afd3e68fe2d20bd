"""Multistep consistency sampling (Song et al. 2023, arXiv:2303.01469, alg. 1), for any process.

A consistency function f maps x_t to the solution of its probability-flow ODE at the earliest time, `low`. From the
prior at time t_0 > t_1 > ... > low, with the forward SDE's transition x_t = a x_low + b z,

    x <- f(sigma(t_0) z_0, t_0),        x <- f(a x + b z_i, t_i),   i = 1, 2, ...

For alpha = 1 that is a = 1 and b^2 = sigma_t^2 - sigma_low^2.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array, Key, named
from genjax.diffusion.process import Process
from genjax.samplers.sde import transition


def jump_and_renoise(
    jump: Callable[[Array, Array], Array],
    process: Process,
    times: Float[Array, " n"],
    low: float,
    key: Key,
    shape: tuple[int, ...],
) -> Float[Array, "b ..."]:
    """Draws samples with n evaluations of a consistency function.

    Args:
        jump: f: (x_t [b, ...], t scalar) -> x_low.
        process: alpha and sigma.
        times: decreasing, all above `low`.
        low: time of the samples, in [0, 1].
        key: typed PRNG key.
        shape: (b, ...), the shape of the samples.

    Returns:
        x_low [b, ...].
    """
    draw = lambda key: jax.random.normal(key, shape, times.dtype)
    x = jump(process.sigma(times[0]) * draw(named(key, "prior")), times[0])

    def step(x: Array, now: tuple[Array, Array]) -> tuple[Array, None]:
        t, index = now
        a, b = transition(process, jnp.full_like(t, low), t)
        return jump(a * x + b * draw(jax.random.fold_in(key, index)), t), None

    return jax.lax.scan(step, x, (times[1:], jnp.arange(1, times.size)))[0]
