"""Invertible functions of one variable, y = g(x; theta), with the parameters theta given for each element.

Applied by couplings, autoregressive and elementwise bijectors. For each of them theta = 0 is the identity, so a
conditioner network with an output layer initialised to zero makes a flow that starts as the identity.

    Shift       y = x + t                                    NICE, Dinh et al. 2014, arXiv:1410.8516, eq. 9
    Affine      y = x exp(s) + t                             RealNVP, arXiv:1605.08803, eq. 7
    Spline      monotonic rational-quadratic spline on [-B, B], the identity outside: Durkan et al. 2019,
                arXiv:1906.04032, section 3.1 and appendix A

In the spline's bin k, of width w, height h and slope s = h / w, between knots (x_k, y_k) with derivatives d_k, d_{k+1},
at xi = (x - x_k) / w (eq. 4-8)

    D(xi)  = s + (d_{k+1} + d_k - 2 s) xi (1 - xi)
    y      = y_k + h (s xi^2 + d_k xi (1 - xi)) / D
    dy/dx  = s^2 (d_{k+1} xi^2 + 2 s xi (1 - xi) + d_k (1 - xi)^2) / D^2
    x      : xi = 2 c / (-b - sqrt(b^2 - 4 a c)),   r = y - y_k,
             a = h (s - d_k) + r (d_{k+1} + d_k - 2 s),   b = h d_k - r (d_{k+1} + d_k - 2 s),   c = -s r.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array

Elements = Float[Array, "*s"]
Theta = Float[Array, "*s p"]


@runtime_checkable
class Scalar(Protocol):
    """A family of increasing functions of one variable, applied elementwise."""

    @property
    def count(self) -> int:
        """Number of parameters per element."""
        ...

    def forward(self, x: Elements, theta: Theta) -> tuple[Elements, Elements]:
        """(y, log dy/dx)."""
        ...

    def inverse(self, y: Elements, theta: Theta) -> Elements:
        """The x with forward(x) = y."""
        ...


@dataclass(frozen=True)
class Shift:
    """y = x + t: volume-preserving."""

    @property
    def count(self) -> int:
        """t."""
        return 1

    def forward(self, x: Elements, theta: Theta) -> tuple[Elements, Elements]:
        """Slope 1."""
        return x + theta[..., 0], jnp.zeros_like(x)

    def inverse(self, y: Elements, theta: Theta) -> Elements:
        """y - t."""
        return y - theta[..., 0]


@dataclass(frozen=True)
class Affine:
    """y = x exp(s) + t.

    Attributes:
        bound: s = bound tanh(raw / bound), which prevents overflow after a bad update; 0 for s = raw.
    """

    bound: float = 3.0

    @property
    def count(self) -> int:
        """Raw s, and t."""
        return 2

    def _log_scale(self, theta: Theta) -> Elements:
        raw = theta[..., 0]
        return self.bound * jnp.tanh(raw / self.bound) if self.bound else raw

    def forward(self, x: Elements, theta: Theta) -> tuple[Elements, Elements]:
        """Log-slope s."""
        s = self._log_scale(theta)
        return x * jnp.exp(s) + theta[..., 1], s

    def inverse(self, y: Elements, theta: Theta) -> Elements:
        """(y - t) exp(-s)."""
        return (y - theta[..., 1]) * jnp.exp(-self._log_scale(theta))


class _Knots(NamedTuple):
    """Left ends (x, y), width, height and both derivatives of each element's bin."""

    x: Elements
    y: Elements
    w: Elements
    h: Elements
    left: Elements
    right: Elements


@dataclass(frozen=True)
class Spline:
    """Monotonic rational-quadratic spline with linear tails; continuously differentiable everywhere.

    Attributes:
        bins: K.
        bound: B; the identity outside [-B, B], where most of the data and of the base's mass should lie.
        least: minimum width and height of a bin as a share of 2 B / K, and minimum derivative, in [0, 1).
    """

    bins: int = 8
    bound: float = 3.0
    least: float = 1e-2

    def __post_init__(self) -> None:
        if self.bins < 1 or not 0.0 <= self.least < 1.0 or self.bound <= 0:
            raise UserError(
                f"a spline needs bins={self.bins} of at least 1, a positive bound={self.bound} "
                f"and least={self.least} in [0, 1)"
            )

    @property
    def count(self) -> int:
        """K widths, K heights, K - 1 inner derivatives."""
        return 3 * self.bins - 1

    def _ends(self, raw: Float[Array, "*s k"]) -> Float[Array, "*s _"]:
        """The K + 1 knots along one axis, from -B to B."""
        share = self.least / self.bins + (1.0 - self.least) * jax.nn.softmax(raw, axis=-1)
        inner = jnp.cumsum(share[..., :-1], axis=-1)
        ends = jnp.concatenate([jnp.zeros_like(raw[..., :1]), inner, jnp.ones_like(raw[..., :1])], axis=-1)
        return self.bound * (2.0 * ends - 1.0)

    def _knots(self, theta: Theta, value: Elements, of_y: bool) -> _Knots:
        xs, ys = self._ends(theta[..., : self.bins]), self._ends(theta[..., self.bins : 2 * self.bins])
        one = math.log(math.expm1(1.0 - self.least))  # softplus(one) = 1 - least: derivative 1 at theta = 0
        slopes = self.least + jax.nn.softplus(theta[..., 2 * self.bins :] + one)
        ends = jnp.ones_like(xs[..., :1])
        slopes = jnp.concatenate([ends, slopes, ends], axis=-1)
        among = (ys if of_y else xs)[..., 1:-1]
        bin_ = jnp.sum(value[..., None] >= among, axis=-1, keepdims=True)
        at = lambda values, index: jnp.take_along_axis(values, index, axis=-1)[..., 0]
        x, y = at(xs, bin_), at(ys, bin_)
        return _Knots(
            x, y, at(xs, bin_ + 1) - x, at(ys, bin_ + 1) - y, at(slopes, bin_), at(slopes, bin_ + 1)
        )

    def forward(self, x: Elements, theta: Theta) -> tuple[Elements, Elements]:
        """Equations 4 and 5 inside, the identity outside."""
        inside = jnp.abs(x) <= self.bound
        here = jnp.clip(x, -self.bound, self.bound)
        k = self._knots(theta, here, of_y=False)
        xi, s = (here - k.x) / k.w, k.h / k.w
        across = xi * (1.0 - xi)
        below = s + (k.right + k.left - 2.0 * s) * across
        y = k.y + k.h * (s * xi**2 + k.left * across) / below
        rise = k.right * xi**2 + 2.0 * s * across + k.left * (1.0 - xi) ** 2
        log_slope = 2.0 * (jnp.log(s) - jnp.log(below)) + jnp.log(rise)
        return jnp.where(inside, y, x), jnp.where(inside, log_slope, 0.0)

    def inverse(self, y: Elements, theta: Theta) -> Elements:
        """Equations 6 to 8 inside, the identity outside."""
        inside = jnp.abs(y) <= self.bound
        here = jnp.clip(y, -self.bound, self.bound)
        k = self._knots(theta, here, of_y=True)
        s, r = k.h / k.w, here - k.y
        bend = r * (k.right + k.left - 2.0 * s)
        a, b, c = k.h * (s - k.left) + bend, k.h * k.left - bend, -s * r
        xi = 2.0 * c / (-b - jnp.sqrt(jnp.maximum(b**2 - 4.0 * a * c, 0.0)))
        return jnp.where(inside, k.x + xi * k.w, y)
