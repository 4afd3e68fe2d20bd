"""An adaptive ODE integrator over batches, with the solvers of diffrax (Kidger 2022, arXiv:2202.02435)."""

from collections.abc import Callable
from typing import Any, Literal

import diffrax
import jax
import jax.numpy as jnp

from genjax.core.types import Array, PyTree

Solver = Literal["tsit5", "dopri5", "dopri8"]


SOLVERS = {"tsit5": diffrax.Tsit5, "dopri5": diffrax.Dopri5, "dopri8": diffrax.Dopri8}


def worst_example(error: PyTree) -> Array:
    """The maximum over examples of the root mean square over dimensions, of arrays [b, ...]; a scalar."""
    square = lambda y: jnp.mean(y**2, axis=tuple(range(1, y.ndim)))
    return jnp.sqrt(jnp.max(jnp.stack([jnp.max(square(y)) for y in jax.tree.leaves(error)])))


def _end(solution: diffrax.Solution) -> PyTree:
    """The final state, or NaN where the solver did not reach the end."""
    arrived = solution.result == diffrax.RESULTS.successful
    return jax.tree.map(lambda y: jnp.where(arrived, y[0], jnp.nan), solution.ys)


def integrate(
    rate: Callable[[Any, PyTree], PyTree],
    start: PyTree,
    first: Array,
    last: Array,
    *,
    solver: Solver,
    rtol: float,
    atol: float,
    max_steps: int,
) -> PyTree:
    """Solves d(state) / du = rate(u, state) from u = first to last, forwards or backwards, with adaptive steps.

    Args:
        rate: (u scalar, state) -> d(state) / du.
        start: arrays [b, ...], the state at `first`.
        first: start of integration, a scalar.
        last: end of integration, a scalar.
        solver: order 5 (Tsitouras; Dormand & Prince) or 8 (Dormand & Prince).
        rtol: relative tolerance per step.
        atol: absolute tolerance per step, in the units of the state.
        max_steps: maximum number of steps, including rejected ones.

    Returns:
        The state at `last`; NaN if `max_steps` did not suffice.
    """
    return _end(
        diffrax.diffeqsolve(
            diffrax.ODETerm(lambda u, state, args: rate(u, state)),
            SOLVERS[solver](),
            first,
            last,
            None,
            start,
            stepsize_controller=diffrax.PIDController(rtol, atol, norm=worst_example),
            max_steps=max_steps,
            throw=False,
        )
    )
