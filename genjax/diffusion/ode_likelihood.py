"""Log-likelihood by the probability-flow ODE (Song et al. 2021, arXiv:2011.13456, app. D.2).

Along dx/dt = v(x, t) the density changes by the flow's divergence (Chen et al. 2018, arXiv:1806.07366, theorem 1):

    d log p_t(x_t) / dt = -div v(x_t, t),
    log p(x) = log N(x_T; 0, sigma(T)^2 I) + integral of div v dt from `low` to T,     x_low = x.

It is the density of exact samples of the ODE at time `low`; discretisation makes it an estimate, not a bound. The
trace of the Jacobian J is exact, by one product e_i^T J per dimension, or estimated by Hutchinson's method
(Grathwohl et al. 2019, arXiv:1810.01367) with probes z of E[z z^T] = I, drawn once per example:

    div v = tr J = E[z^T J z],      with S = (J + J^T) / 2
    Var[z^T J z] = 2 sum_{i != j} S_ij^2  (Rademacher),      2 sum_{i, j} S_ij^2  (Gaussian),

so one Rademacher probe is exact where S is diagonal, and Gaussian probes never have a smaller variance.

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
    """Draws probes of mean 0 and covariance I.

    Args:
        key: typed PRNG key.
        probe: their distribution.
        num: number of probes for each example.
        x: the examples [b, ...], for shape and dtype.

    Returns:
        Probes [num, b, ...].
    """
    return DRAW[probe](named(key, "probes"), (num, *x.shape), x.dtype)


def basis(x: Float[Array, "b ..."]) -> Float[Array, "d 1 ..."]:
    """The unit vectors [d, 1, ...], shared by all examples: used as probes, their products sum to the trace."""
    dims = math.prod(x.shape[1:])
    return jnp.eye(dims, dtype=x.dtype).reshape(dims, 1, *x.shape[1:])


def quadratic_forms(
    function: Callable[[Array], Array], x: Float[Array, "b ..."], probes: Float[Array, "p _ ..."]
) -> tuple[Float[Array, "b ..."], Float[Array, "p b"]]:
    """The function's value, and z^T J z for each probe and example.

    Args:
        function: maps each example independently, [b, ...] -> [b, ...].
        x: the point of evaluation [b, ...].
        probes: z [p, b, ...] or, shared by all examples, [p, 1, ...]; evaluated sequentially, so that memory does
            not grow with p.

    Returns:
        (function(x) [b, ...], products [p, b]).
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
    """One step of the trapezoidal rule with an Euler predictor: order 2, two evaluations; see `interpolants.euler`."""
    first = rate(here[0], u)
    second = rate(_add(here, h, first)[0], u + h)
    return _add(_add(here, 0.5 * h, first), 0.5 * h, second)


def rk4(rate: Rate, here: Pair, u: Array, h: Array) -> Pair:
    """One step of the classical Runge-Kutta method: order 4, four evaluations; see `interpolants.euler`."""
    first = rate(here[0], u)
    second = rate(_add(here, 0.5 * h, first)[0], u + 0.5 * h)
    third = rate(_add(here, 0.5 * h, second)[0], u + 0.5 * h)
    fourth = rate(_add(here, h, third)[0], u + h)
    outer = _add(_add(here, h / 6.0, first), h / 6.0, fourth)
    return _add(_add(outer, h / 3.0, second), h / 3.0, third)


STEP = {"heun": heun, "rk4": rk4}


@dataclass(frozen=True)
class OdeLikelihood:
    """A solver of the probability-flow ODE and its log-determinant, with fixed or adaptive steps.

    The default is cheap, 50 evaluations with a gradient in x each; compare with 100 steps before reporting a number.
    `VE` and `EDM` need more: power 1, and Heun with 100 steps or RK4 with 25. "adaptive" (order 5, see
    `genjax.samplers.adaptive`) keeps the error of x and of the log-determinant of every example within the tolerance
    in each step; choose a generous limit `steps`, such as 1000.

    Attributes:
        steps: number of steps, equal in t^(1 / power); for "adaptive" the maximum, including rejected steps, beyond
            which the likelihood is NaN. 0 disables the likelihood.
        method: "heun" (order 2), "rk4" (order 4) or "adaptive".
        probes: number of Hutchinson probes; 0 for the exact trace, which costs one more evaluation per dimension.
        probe: distribution of the probes.
        low: time assigned to the data; above 0 where the rates of the process are infinite at 0.
        high: time of the prior; below 1 where the prediction cannot be decoded at 1.
        power: defines the integration variable t^(1 / power); 1 for processes whose sigma is not like sqrt(t) near 0.
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
        """A description of the estimate for reports; empty if the likelihood is disabled."""
        if not self.steps:
            return ""
        adaptive = f"adaptive to rtol {self.rtol:g}, atol {self.atol:g}"
        methods = {
            "heun": f"Heun, {self.steps} steps",
            "rk4": f"RK4, {self.steps} steps",
            "adaptive": f"Dopri5, {adaptive}",
        }
        names = {"rademacher": "Rademacher", "gaussian": "Gaussian"}
        plural = "" if self.probes == 1 else "s"
        trace = (
            f"Hutchinson {self.probes} {names[self.probe]} probe{plural}" if self.probes else "exact trace"
        )
        return f"ODE estimate ({methods[self.method]}, {trace})"

    def solve(self, denoise: Denoise, process: Process, x: Float[Array, "b ..."], key: Key) -> Pair:
        """Integrates the probability-flow ODE from x at time `low` to time `high`.

        Args:
            denoise: maps each example independently.
            process: alpha and sigma.
            x: [b, ...], float32 or float64.
            key: typed PRNG key of the probes.

        Returns:
            (x at `high` [b, ...], the integral of the divergence [b], which is log |d x_high / d x_low|).

        Raises:
            UserError: the likelihood is disabled.
        """
        if not self.steps:
            raise UserError("likelihood.steps=0 disables the likelihood: set it, for example to 25")
        flow = lambda x, t: velocity(denoise(x, t), process, t)
        return self.integrate(self.rate(flow, x, key), x)

    def rate(self, flow: Callable[[Array, Array], Array], x: Float[Array, "b ..."], key: Key | None) -> Rate:
        """The rates in u = t^(1 / power) of a state and its log-determinant along dx/dt = flow(x, t).

        Args:
            flow: (x, t) -> dx/dt; maps each example independently.
            x: [b, ...], for the shape of the probes.
            key: typed PRNG key of the probes; may be None for the exact trace.

        Returns:
            (x, u) -> (dx/du [b, ...], the rate of the log-determinant [b]).

        Raises:
            UserError: probes are to be drawn and there is no key.
        """
        if not self.probes:
            probes = basis(x)
        elif key is None:
            raise UserError("Hutchinson's trace needs a PRNG key for its probes; probes=0 is the exact trace")
        else:
            probes = draw_probes(key, self.probe, self.probes, x)
        share = 1.0 / self.probes if self.probes else 1.0

        def rate(x: Array, u: Array) -> Pair:
            t, stretch = u**self.power, self.power * u ** (self.power - 1.0)
            value, products = quadratic_forms(lambda x: stretch * flow(x, t), x, probes)
            return value, share * jnp.sum(products, axis=0)

        return rate

    def integrate(self, rate: Rate, x: Float[Array, "b ..."]) -> Pair:
        """Integrates rates in u from time `low` to `high`, starting at (x, 0)."""
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
        """log p(x); arguments as in `solve`.

        Returns:
            Nats per example [b].
        """
        end, log_det = self.solve(denoise, process, x, key)
        return process.log_prior(end, jnp.asarray(self.high, x.dtype)) + log_det
