"""Couplings of noise and data within a minibatch.

Flow matching learns E[x_1 - x_0 | x_t] for every coupling of x_0 and x_1 = eps, as long as both marginals hold
(Tong et al. 2023, arXiv:2302.00482, theorem 3.1; Pooladian et al. 2023, arXiv:2304.14772, sec. 3). A batch's noise
may thus be permuted. The optimal permutation,

    argmin over permutations p of  sum_i c(i, p(i)),      c(i, j) = |x0_i - eps_j|^2 / d,

makes the paths cross less: they are straighter, and the regression target has a smaller variance. The entropic plan

    P = argmin sum_ij P_ij c(i, j) + reg sum_ij P_ij log P_ij,      rows and columns of P sum to 1 / b,

is computed by Sinkhorn's iterations (Cuturi 2013, arXiv:1306.0895) on the logarithms f, g of its scaling vectors,

    log P_ij = f_i + g_j - c(i, j) / reg - log b.

Noise coupled to x_0 also depends on the label of x_0, whereas samplers start from the full prior for every label.
Where there are conditioning vectors, noise is therefore permuted only among examples that share the same vector
(Cheng & Schwing 2025, arXiv:2503.10636, discrete conditions).
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array, Key, named

State = Float[Array, "b ..."]
Cond = Float[Array, "b k"]


@runtime_checkable
class Coupling(Protocol):
    """A joint distribution of data and noise whose marginals are those of the batch."""

    def pair(self, key: Key, x0: State, eps: State, cond: Cond | None = None) -> State:
        """Permutes (or resamples) the noise of a batch; the order of the data is kept.

        Args:
            key: typed PRNG key, for stochastic couplings.
            x0: data [b, ...].
            eps: noise, or samples of another base distribution, shaped as x0.
            cond: conditioning vectors [b, k] or None; noise is permuted only among rows with equal vectors.

        Returns:
            Rows of eps [b, ...]: row i is paired with x0[i].
        """
        ...


def costs(x0: State, eps: State, cond: Cond | None = None) -> Float[Array, "b b"]:
    """Pairwise costs |x0_i - eps_j|^2 / d, with a prohibitive cost where the conditions of i and j differ.

    Args:
        x0: data [b, ...].
        eps: noise, shaped as x0.
        cond: conditioning vectors [b, k], or None.

    Returns:
        Costs [b, b]; where conditions differ, the cost exceeds any sum of the other costs.
    """
    x, y = x0.reshape(len(x0), -1), eps.reshape(len(eps), -1)
    squares = jnp.mean(x**2, axis=1)[:, None] + jnp.mean(y**2, axis=1)[None, :]
    cost = squares - 2.0 * jnp.matmul(x, y.T, precision="highest") / x.shape[1]
    if cond is None:
        return cost
    same = jnp.all(cond[:, None, :] == cond[None, :, :], axis=-1)
    return jnp.where(same, cost, 2.0 * len(x) * jnp.max(jnp.abs(cost)))


@dataclass(frozen=True)
class Independent:
    """Independent noise: the order in which it was drawn."""

    def pair(self, key: Key, x0: State, eps: State, cond: Cond | None = None) -> State:
        """eps; see `Coupling.pair`."""
        return eps


@dataclass(frozen=True)
class MinibatchOT:
    """The optimal permutation of the batch's noise, in O(b^3) time."""

    def pair(self, key: Key, x0: State, eps: State, cond: Cond | None = None) -> State:
        """eps[p], with p from the Hungarian algorithm; see `Coupling.pair`."""
        rows, columns = optax.assignment.hungarian_algorithm(costs(x0, eps, cond))
        return eps[jnp.zeros_like(columns).at[rows].set(columns)]


@dataclass(frozen=True)
class Sinkhorn:
    """A draw from the entropic plan: eps_j is paired with x0_i with probability b P_ij.

    Some rows of eps may be drawn more than once and others not at all; in expectation each is drawn once.

    Attributes:
        reg: entropic regularisation in the units of the costs (squared x, mean over dimensions). As it tends to 0 the
            draw tends to `MinibatchOT`'s permutation (and needs more iterations); as it grows, to independence.
        iterations: number of Sinkhorn iterations, O(b^2) each.

    Raises:
        UserError: reg or iterations are not positive.
    """

    reg: float = 0.05
    iterations: int = 100

    def __post_init__(self) -> None:
        if self.reg <= 0.0 or self.iterations < 1:
            raise UserError(f"reg={self.reg} must be above 0 and iterations={self.iterations} at least 1")

    def log_plan(self, cost: Float[Array, "b b"]) -> Float[Array, "b b"]:
        """log(b P): rows of b P sum to 1 exactly, columns up to the convergence of the iterations."""
        kernel = -cost / self.reg

        def update(g: Array, _: None) -> tuple[Array, None]:
            f = -jax.nn.logsumexp(kernel + g[None, :], axis=1)
            return -jax.nn.logsumexp(kernel + f[:, None], axis=0), None

        g, _ = jax.lax.scan(update, jnp.zeros_like(cost[0]), length=self.iterations)
        return jax.nn.log_softmax(kernel + g[None, :], axis=1)

    def pair(self, key: Key, x0: State, eps: State, cond: Cond | None = None) -> State:
        """eps[j], with j_i drawn from row i of the plan; see `Coupling.pair`."""
        log_plan = self.log_plan(costs(x0, eps, cond))
        return eps[jax.random.categorical(named(key, "coupling"), log_plan, axis=1)]
