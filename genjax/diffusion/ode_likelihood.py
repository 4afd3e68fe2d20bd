"""Log-likelihood by the probability-flow ODE (Song et al. 2021, arXiv:2011.13456, app. D.2).

Along dx/dt = v(x, t) the density changes by the flow's divergence (Chen et al. 2018, arXiv:1806.07366, theorem 1):

    d log p_t(x_t) / dt = -div v(x_t, t),
    log p(x) = log N(x_T; 0, sigma(T)^2 I) + integral of div v dt from `low` to T,     x_low = x.

It is the density of what the ODE's exact sampler draws, down to time `low`; the ODE's discretisation makes it
an estimate and no bound. The trace of the Jacobian J is exact, by one product e_i^T J per dimension, or
Hutchinson's (Grathwohl et al. 2019, arXiv:1810.01367) with probes z of E[z z^T] = I, drawn once per example:

    div v = tr J = E[z^T J z],      with S = (J + J^T) / 2
    Var[z^T J z] = 2 sum_{i != j} S_ij^2  (Rademacher),      2 sum_{i, j} S_ij^2  (Gaussian),

so that one Rademacher probe is exact where S is diagonal, and Gaussian probes are never better.

The variable of integration is u = t^(1 / power): v grows like t^(-1/2) near t = 0 for variance-preserving
processes, and dx/du = power u^(power - 1) v with power = 2 is smooth there.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array, Key, named
from genjax.diffusion.ode import integrate
from genjax.diffusion.prediction import Denoise, velocity
from genjax.diffusion.process import Process

Probe = Literal["rademacher", "gaussian"]
Method = Literal["heun", "rk4", "adaptive"]
Pair = tuple[Array, Array]  # x [b, ...] and log-determinant [b], or their rates
Rate = Callable[[Array, Array], Pair]  # (x, u scalar) -> d(x, log-determinant) / du
DRAW = {"rademacher": jax.random.rademacher, "gaussian": jax.random.normal}


def draw_probes(key: Key, probe: Probe, num: int, x: Float[Array, "b ..."]) -> Float[Array, "p b ..."]:
    """`num` probes for each example of x, in its dtype, with mean 0 and covariance I."""
    return DRAW[probe](named(key, "probes"), (num, *x.shape), x.dtype)


def basis(x: Float[Array, "b ..."]) -> Float[Array, "d 1 ..."]:
    """The unit vectors of one example, for all examples: as probes, their products sum to the trace."""
    dims = math.prod(x.shape[1:])
    return jnp.eye(dims, dtype=x.dtype).reshape(dims, 1, *x.shape[1:])


def quadratic_forms(
    function: Callable[[Array], Array], x: Float[Array, "b ..."], probes: Float[Array, "p _ ..."]
) -> tuple[Float[Array, "b ..."], Float[Array, "p b"]]:
    """The function's value, and z^T J z for each probe and example.

    Args:
        function: maps each example alone, [b, ...] -> [b, ...].
        x: where.
        probes: z [p, b, ...] or, the same for all examples, [p, 1, ...]; they are walked one after another, in
            the memory of one.

    Returns:
        (function(x), [p, b] products).
    """
    value, pull = jax.vjp(function, x)
    rest = tuple(range(1, x.ndim))

    def product(z: Array) -> Array:
        z = jnp.broadcast_to(z, x.shape)
        return jnp.sum(pull(z)[0] * z, axis=rest)

    return value, jax.lax.map(product, probes)


def _add(pair: Pair, scale: Array, rate: Pair) -> Pair:
    return pair[0] + scale * rate[0], pair[1] + scale * rate[1]


def heun(rate: Rate, here: Pair, u: Array, h: Array) -> Pair:
    """The trapezoidal rule with an Euler guess: order 2, two evaluations."""
    first = rate(here[0], u)
    second = rate(_add(here, h, first)[0], u + h)
    return _add(_add(here, 0.5 * h, first), 0.5 * h, second)


def rk4(rate: Rate, here: Pair, u: Array, h: Array) -> Pair:
    """The classical Runge-Kutta rule: order 4, four evaluations."""
    first = rate(here[0], u)
    second = rate(_add(here, 0.5 * h, first)[0], u + 0.5 * h)
    third = rate(_add(here, 0.5 * h, second)[0], u + 0.5 * h)
    fourth = rate(_add(here, h, third)[0], u + h)
    outer = _add(_add(here, h / 6.0, first), h / 6.0, fourth)
    return _add(_add(outer, h / 3.0, second), h / 3.0, third)


STEP = {"heun": heun, "rk4": rk4}


@dataclass(frozen=True)
class OdeLikelihood:
    """A solver of the probability-flow ODE and its log-determinant, of fixed or adaptive steps.

    The default is cheap, 50 evaluations with a gradient in x each; compare with 100 steps before a number is
    believed. `VE` and `EDM` need more than it: power 1, and Heun with 100 steps or RK4 with 25. "adaptive" (order 5,
    see `genjax.samplers.adaptive`) keeps x and the log-determinant of every example within the tolerance in each
    step; give it `steps` to spare, such as 1000.

    Attributes:
        steps: of equal size in t^(1 / power), or the most that "adaptive" may take, failed ones included, after
            which the likelihood is NaN; 0 turns the likelihood off.
        method: "heun" (order 2), "rk4" (order 4) or "adaptive".
        probes: of Hutchinson's estimate; 0 for the exact trace, which costs one more evaluation per dimension.
        probe: law of the probes.
        low: time at which the data are taken to be; more than 0 where the process's rates are infinite at 0.
        high: time of the prior; less than 1 where the prediction cannot be decoded at 1.
        power: of the variable of integration; 1 for processes whose sigma is not like sqrt(t) near 0.
        rtol: relative tolerance of an adaptive step.
        atol: absolute tolerance of an adaptive step, in units of x and in nats.
    """

    steps: int = 25
    method: Method = "heun"
    probes: int = 1
    probe: Probe = "rademacher"
    low: float = 1e-5
    high: float = 1.0
    power: float = 2.0
    rtol: float = 1e-4
    atol: float = 1e-4

    @property
    def kind(self) -> str:
        """What the number is, in words; none where there is no number."""
        if not self.steps:
            return ""
        adaptive = f"adaptive to rtol {self.rtol:g}, atol {self.atol:g}"
        walk = {
            "heun": f"Heun, {self.steps} steps",
            "rk4": f"RK4, {self.steps} steps",
            "adaptive": f"Dopri5, {adaptive}",
        }
        laws = {"rademacher": "Rademacher", "gaussian": "Gaussian"}
        plural = "" if self.probes == 1 else "s"
        trace = f"Hutchinson {self.probes} {laws[self.probe]} probe{plural}" if self.probes else "exact trace"
        return f"ODE estimate ({walk[self.method]}, {trace})"

    def solve(self, denoise: Denoise, process: Process, x: Float[Array, "b ..."], key: Key) -> Pair:
        """Carries x from time `low` to `high`.

        Args:
            denoise: maps each example alone.
            process: alpha and sigma.
            x: [b, ...], float32 or float64.
            key: of the probes.

        Returns:
            (x at `high` [b, ...], the integral of the divergence [b], which is log |d x_high / d x_low|).

        Raises:
            UserError: the likelihood is off.
        """
        if not self.steps:
            raise UserError("likelihood.steps=0 turns the likelihood off: give it steps, such as 25")
        flow = lambda x, t: velocity(denoise(x, t), process, t)
        return self.carry(self.rate(flow, x, key), x)

    def rate(self, flow: Callable[[Array, Array], Array], x: Float[Array, "b ..."], key: Key | None) -> Rate:
        """The rates in u = t^(1 / power) of a state and its log-determinant along dx/dt = flow(x, t).

        Args:
            flow: maps each example alone.
            x: [b, ...], for the probes' shape.
            key: of the probes; None will do for the exact trace.

        Raises:
            UserError: there are probes to draw and no key.
        """
        if not self.probes:
            probes = basis(x)
        elif key is None:
            raise UserError("Hutchinson's trace needs a key for its probes; probes=0 is the exact trace")
        else:
            probes = draw_probes(key, self.probe, self.probes, x)
        share = 1.0 / self.probes if self.probes else 1.0

        def rate(x: Array, u: Array) -> Pair:
            t, stretch = u**self.power, self.power * u ** (self.power - 1.0)
            value, products = quadratic_forms(lambda x: stretch * flow(x, t), x, probes)
            return value, share * jnp.sum(products, axis=0)

        return rate

    def carry(self, rate: Rate, x: Float[Array, "b ..."]) -> Pair:
        """Integrates rates in u from time `low` to `high`, from (x, 0)."""
        first, last = self.low ** (1.0 / self.power), self.high ** (1.0 / self.power)
        start = (x, jnp.zeros(len(x), x.dtype))
        if self.method == "adaptive":
            return integrate(
                lambda u, here: rate(here[0], u),
                start,
                jnp.asarray(first, x.dtype),
                jnp.asarray(last, x.dtype),
                solver="dopri5",
                rtol=self.rtol,
                atol=self.atol,
                max_steps=self.steps,
            )
        grid = jnp.linspace(first, last, self.steps + 1, dtype=x.dtype)
        method = STEP[self.method]

        def step(here: Pair, now: Pair) -> tuple[Pair, None]:
            return method(rate, here, now[0], now[1] - now[0]), None

        end, _ = jax.lax.scan(step, start, (grid[:-1], grid[1:]))
        return end

    def log_prob(
        self, denoise: Denoise, process: Process, x: Float[Array, "b ..."], key: Key
    ) -> Float[Array, " b"]:
        """log p(x) in nats per example; see `solve`."""
        end, log_det = self.solve(denoise, process, x, key)
        return process.log_prior(end, jnp.asarray(self.high, x.dtype)) + log_det
