"""Which noise meets which data: couplings of a minibatch.

Flow matching learns E[x_1 - x_0 | x_t] whatever the coupling of x_0 and x_1 = eps, as long as both marginals stay
(Tong et al. 2023, arXiv:2302.00482, theorem 3.1; Pooladian et al. 2023, arXiv:2304.14772, sec. 3). A batch's noise
may thus be re-ordered. The optimal order,

    argmin over permutations p of  sum_i c(i, p(i)),      c(i, j) = |x0_i - eps_j|^2 / d,

makes the paths cross less: they are straighter and the regression's target varies less. The entropic plan

    P = argmin sum_ij P_ij c(i, j) + reg sum_ij P_ij log P_ij,      rows and columns of P sum to 1 / b,

is found by Sinkhorn's iterations (Cuturi 2013, arXiv:1306.0895) on the logarithms f, g of its scaling vectors,

    log P_ij = f_i + g_j - c(i, j) / reg - log b.

Noise that is chosen by x_0 depends on x_0's label too, but samplers begin from all noise, whatever the label. Where
there are conditioning vectors, noise therefore changes places only among examples that have the same one (Cheng &
Schwing 2025, arXiv:2503.10636, discrete conditions).
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
    """A joint law of data and noise whose marginals are those of the batch."""

    def pair(self, key: Key, x0: State, eps: State, cond: Cond | None = None) -> State:
        """Re-orders noise for a batch of data, which stay where they are.

        Args:
            key: typed PRNG key, for couplings that draw.
            x0: data.
            eps: noise, or another law's samples, shaped as x0.
            cond: what the model is told of each example; rows of eps stay among equal ones.

        Returns:
            Rows of eps: row i goes with x0[i].
        """
        ...


def costs(x0: State, eps: State, cond: Cond | None = None) -> Float[Array, "b b"]:
    """|x0_i - eps_j|^2 / d, larger than any sum of others where the conditions of i and j differ."""
    x, y = x0.reshape(len(x0), -1), eps.reshape(len(eps), -1)
    squares = jnp.mean(x**2, axis=1)[:, None] + jnp.mean(y**2, axis=1)[None, :]
    cost = squares - 2.0 * jnp.matmul(x, y.T, precision="highest") / x.shape[1]
    if cond is None:
        return cost
    same = jnp.all(cond[:, None, :] == cond[None, :, :], axis=-1)
    return jnp.where(same, cost, 2.0 * len(x) * jnp.max(jnp.abs(cost)))


@dataclass(frozen=True)
class Independent:
    """Noise as it was drawn."""

    def pair(self, key: Key, x0: State, eps: State, cond: Cond | None = None) -> State:
        """eps."""
        return eps


@dataclass(frozen=True)
class MinibatchOT:
    """The optimal order of the batch's noise, a permutation; time grows like the batch's size cubed."""

    def pair(self, key: Key, x0: State, eps: State, cond: Cond | None = None) -> State:
        """eps[p], p by the Hungarian algorithm."""
        rows, columns = optax.assignment.hungarian_algorithm(costs(x0, eps, cond))
        return eps[jnp.zeros_like(columns).at[rows].set(columns)]


@dataclass(frozen=True)
class Sinkhorn:
    """A draw from the entropic plan: eps_j goes with x0_i with probability b P_ij.

    Some rows of eps may be drawn twice and others never; in expectation each is drawn once.

    Attributes:
        reg: in squared units of x, as the costs are, which are means over dimensions; towards 0 the draw becomes
            `MinibatchOT`'s permutation (and needs more iterations), towards infinity independent.
        iterations: of Sinkhorn's algorithm, each of b^2 operations.

    Raises:
        UserError: reg or iterations are not positive.
    """

    reg: float = 0.05
    iterations: int = 100

    def __post_init__(self) -> None:
        if self.reg <= 0.0 or self.iterations < 1:
            raise UserError(f"reg={self.reg} must be above 0 and iterations={self.iterations} at least 1")

    def log_plan(self, cost: Float[Array, "b b"]) -> Float[Array, "b b"]:
        """log(b P): rows sum to 1 exactly, columns as nearly as the iterations have come."""
        kernel = -cost / self.reg

        def update(g: Array, _: None) -> tuple[Array, None]:
            f = -jax.nn.logsumexp(kernel + g[None, :], axis=1)
            return -jax.nn.logsumexp(kernel + f[:, None], axis=0), None

        g, _ = jax.lax.scan(update, jnp.zeros_like(cost[0]), length=self.iterations)
        return jax.nn.log_softmax(kernel + g[None, :], axis=1)

    def pair(self, key: Key, x0: State, eps: State, cond: Cond | None = None) -> State:
        """eps[j], j_i drawn from row i of the plan."""
        log_plan = self.log_plan(costs(x0, eps, cond))
        return eps[jax.random.categorical(named(key, "coupling"), log_plan, axis=1)]
