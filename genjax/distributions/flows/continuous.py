"""Continuous normalizing flow (Chen et al. 2018, arXiv:1806.07366; FFJORD, Grathwohl et al. 2019, arXiv:1810.01367).

    dx/dt = v(x, t),  t from 0 (data) to 1 (base),        log |det dx_1/dx_0| = integral of div v(x_t, t) dt.

The solver is that of the probability-flow ODE (`OdeLikelihood`): fixed or adaptive steps, exact divergence or
Hutchinson's estimator. Gradients are backpropagated through the steps of a fixed-step solver, so the discretised flow
is trained; the number of steps can be changed afterwards to measure the discretisation error. The inverse integrates
backwards without the divergence and is accurate to the solver's error.
"""

import dataclasses
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.objective import Network
from genjax.core.tree import tunable
from genjax.core.types import Array, Key, PyTree
from genjax.diffusion.ode_likelihood import OdeLikelihood, Pair
from genjax.distributions.flows.bijector import NOTHING, Bijector, Given, LogDet, State


@dataclass(frozen=True)
class Continuous(Bijector):
    """The flow of a learned velocity field.

    Attributes:
        net: called as net(x, t, cond, out=shape of x); should be smooth, for the solver's accuracy.
        solver: from `low` = 0 to `high` = 1, power 1; "adaptive" for evaluation only: its gradient is expensive.
        frames: number of intermediate states for plots of the path from base to data.
    """

    net: Network
    solver: OdeLikelihood = tunable(
        OdeLikelihood(steps=16, method="rk4", probes=0, low=0.0, high=1.0, power=1.0)
    )
    frames: int = tunable(8)

    def init(self, key: Key, x: State, given: Given = NOTHING) -> PyTree:
        """See `Bijector.init`: the network's parameters."""
        return self.net.init(key, x, jnp.zeros(len(x)), given.cond, out=x.shape[1:])

    def velocity(self, params: PyTree, x: State, t: Array, given: Given = NOTHING) -> State:
        """v(x, t).

        Args:
            params: the network's.
            x: [b, ...].
            t: time, a scalar.
            given: conditioning, PRNG key and train flag.

        Returns:
            [b, ...] in the dtype of x.
        """
        times = jnp.broadcast_to(t, (len(x),))
        return self.net.apply(params, x, times, given.cond, out=x.shape[1:]).astype(x.dtype)

    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """See `Bijector.forward`: integrates forwards in time, with the divergence."""
        flow = lambda x, t: self.velocity(params, x, t, given)
        return self.solver.integrate(self.solver.rate(flow, x, given.key), x)

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """See `Bijector.inverse`: integrates backwards in time."""
        return self._back(params, y, given, self.solver)

    def _back(self, params: PyTree, y: State, given: Given, solver: OdeLikelihood) -> State:
        """Integrates from the solver's `high` to its `low`."""

        def rate(x: Array, t: Array) -> Pair:
            return self.velocity(params, x, t, given), jnp.zeros(len(x), x.dtype)

        return dataclasses.replace(solver, low=solver.high, high=solver.low).integrate(rate, y)[0]

    def inverse_states(self, params: PyTree, y: State, given: Given = NOTHING) -> Float[Array, "n b ..."]:
        """See `Bijector.inverse_states`: states at `frames` times."""
        s, states = self.solver, []
        steps = max(s.steps // self.frames, 4) if s.method != "adaptive" else s.steps
        for index in range(self.frames):
            high, low = (s.high - (s.high - s.low) * (index + i) / self.frames for i in (0, 1))
            piece = dataclasses.replace(s, steps=steps, high=high, low=low)
            y = self._back(params, y, given, piece)
            states.append(y)
        return jnp.stack(states)

    @property
    def estimate(self) -> str:
        """See `Bijector.estimate`: the solver's kind."""
        return self.solver.kind
