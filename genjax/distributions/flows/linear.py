"""Linear bijectors of the channels, shared by all positions (Glow, Kingma & Dhariwal 2018, arXiv:1807.03039, table 1).

    ActNorm       y = exp(s) * x + t,   s and t per channel,      log |det| = P sum_c s_c
    LU            y = W x,   W = P L (U + diag(sign exp(s))),     log |det| = P sum_c s_c     (section 3.2, eq. 10-11)
    Permutation   y_c = x_{pi(c)}

with P spatial positions (1 for vectors). ActNorm is initialised so that each channel of the first batch has mean 0 and
variance 1.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.scipy.linalg import solve_triangular
from jaxtyping import Float

from genjax.core.types import Array, Key, PyTree
from genjax.distributions.flows.bijector import NOTHING, Bijector, Given, LogDet, State
from genjax.networks.layers import ops


def _places(x: State) -> int:
    return math.prod(x.shape[1:-1])


def _each(log_det: Float[Array, ""], x: State) -> LogDet:
    """The same log-determinant for each example."""
    return jnp.broadcast_to(_places(x) * log_det, (len(x),))


@dataclass(frozen=True)
class ActNorm(Bijector):
    """Scale and shift of each channel, initialised from the first batch, then learned.

    Attributes:
        epsilon: lower bound on the standard deviation at initialisation.
    """

    epsilon: float = 1e-4

    def init(self, key: Key, x: State, given: Given = NOTHING) -> PyTree:
        """See `Bijector.init`: forward(x) has mean 0 and variance 1 in each channel."""
        axes = tuple(range(x.ndim - 1))
        scale = 1.0 / jnp.maximum(jnp.std(x, axis=axes), self.epsilon)
        return {
            "log_scale": jnp.log(scale).astype(jnp.float32),
            "shift": (-scale * jnp.mean(x, axis=axes)).astype(jnp.float32),
        }

    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """See `Bijector.forward`: exp(s) x + t."""
        log_scale, shift = (params[name].astype(x.dtype) for name in ("log_scale", "shift"))
        y = x * ops.along_last(jnp.exp(log_scale), x.ndim) + ops.along_last(shift, x.ndim)
        return y, _each(jnp.sum(log_scale), x)

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """See `Bijector.inverse`: (y - t) exp(-s)."""
        log_scale, shift = (params[name].astype(y.dtype) for name in ("log_scale", "shift"))
        return (y - ops.along_last(shift, y.ndim)) * ops.along_last(jnp.exp(-log_scale), y.ndim)


@dataclass(frozen=True)
class LU(Bijector):
    """Invertible 1 x 1 convolution (for vectors: an invertible matrix) in its LU decomposition.

    Initialised to a random rotation that depends only on `seed` and the number of channels: P and the signs are
    constant, the other factors are learned.

    Attributes:
        seed: of the rotation.
    """

    seed: int = 0

    def _start(self, channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """P, L and U of the initial rotation, float64."""
        # RandomState's stream is frozen by NumPy's policy; a Generator's may change, which would break old checkpoints.
        normal = np.random.RandomState(self.seed).standard_normal((channels, channels))
        p, lower, upper = scipy.linalg.lu(np.linalg.qr(normal)[0])
        return p, lower, upper

    def init(self, key: Key, x: State, given: Given = NOTHING) -> PyTree:
        """See `Bijector.init`: the factors of the rotation, `lower` and `upper` strictly triangular."""
        _, lower, upper = self._start(x.shape[-1])
        return {
            "lower": jnp.asarray(np.tril(lower, -1), jnp.float32),
            "upper": jnp.asarray(np.triu(upper, 1), jnp.float32),
            "log_scale": jnp.asarray(np.log(np.abs(np.diag(upper))), jnp.float32),
        }

    def _factors(self, params: PyTree, x: State) -> tuple[Array, Array, Array, Array]:
        """P, L, U and s in the dtype of x."""
        p, _, upper = self._start(x.shape[-1])
        log_scale = params["log_scale"].astype(x.dtype)
        diagonal = jnp.asarray(np.sign(np.diag(upper)), x.dtype) * jnp.exp(log_scale)
        lower = jnp.tril(params["lower"].astype(x.dtype), -1) + jnp.eye(len(p), dtype=x.dtype)
        return (
            jnp.asarray(p, x.dtype),
            lower,
            jnp.triu(params["upper"], 1).astype(x.dtype) + jnp.diag(diagonal),
            log_scale,
        )

    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """See `Bijector.forward`: one matrix product per position."""
        p, lower, upper, log_scale = self._factors(params, x)
        return ops.dense(x, (p @ lower @ upper).T), _each(jnp.sum(log_scale), x)

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """See `Bijector.inverse`: two triangular solves."""
        p, lower, upper, _ = self._factors(params, y)
        columns = p.T @ y.reshape(-1, y.shape[-1]).T
        columns = solve_triangular(lower, columns, lower=True, unit_diagonal=True)
        return solve_triangular(upper, columns).T.reshape(y.shape)


@dataclass(frozen=True)
class Permutation(Bijector):
    """Permutation of the channels.

    Attributes:
        seed: of a random permutation; None reverses the order.
    """

    seed: int | None = None

    def _order(self, channels: int) -> np.ndarray:
        if self.seed is None:
            return np.arange(channels)[::-1]
        return np.random.RandomState(self.seed).permutation(channels)

    def forward(self, params: PyTree, x: State, given: Given = NOTHING) -> tuple[State, LogDet]:
        """See `Bijector.forward`: log-determinant 0."""
        return x[..., self._order(x.shape[-1])], jnp.zeros(len(x), x.dtype)

    def inverse(self, params: PyTree, y: State, given: Given = NOTHING) -> State:
        """See `Bijector.inverse`: the inverse permutation."""
        return y[..., np.argsort(self._order(y.shape[-1]))]
