"""Path length regularisation of a generator (Karras et al. 2020, arXiv:1912.04958, section 3.2, equation 4).

    weight E_{w, y} ( | J_w^T y | - a )^2,      J_w = dG(w) / dw,   y ~ N(0, I) / sqrt(pixels),

where a is the moving average of | J_w^T y |, and J_w^T y = grad_w < G(w), y >. Where an image has several styles, the
squared length is the mean over them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.adversarial.slopes import of_slopes
from genjax.core.errors import UserError
from genjax.core.objective import Context
from genjax.core.types import Array, Key

Make = Callable[[Array], Array]  # styles [b, s, d] -> images [b, h, w, c], each of its own styles


@dataclass(frozen=True)
class PathLength:
    """The penalty, on some steps, and what it carries.

    Attributes:
        weight: factor; 0 turns it off.
        every: on the generator's moves divisible by this, times this.
        share: it is taken on batch / share images.
        decay: of a's moving average, at each step on which it is computed.
    """

    weight: float = 2.0
    every: int = 4
    share: int = 2
    decay: float = 0.99

    def __post_init__(self) -> None:
        if min(self.every, self.share) < 1:
            raise UserError(f"every={self.every} and share={self.share} of a path length must be at least 1")

    def cost(
        self, make: Make, w: Float[Array, "b s d"], mean: Float[Array, ""], key: Key, ctx: Context
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The penalty.

        Args:
            make: the generator of the images.
            w: styles, on which the gradient with respect to the generator's parameters may depend.
            mean: a.
            key: of y.
            ctx: of the generator's loss, its step counting the generator's moves; in evaluation the penalty is taken
                as on every move, and a stays.

        Returns:
            (weighted penalty, new a, held fixed).
        """

        def eager() -> tuple[Array, Array]:
            shown, kept = projected(make, w, key), self.decay if ctx.train else 1.0
            now = jnp.mean(lengths(jax.lax.stop_gradient(jax.grad(shown)(w))))
            new = jax.lax.stop_gradient(kept * mean + (1.0 - kept) * now)
            penalty = lambda slope: self.weight * jnp.mean((lengths(slope) - new) ** 2)
            return of_slopes(shown, w, penalty), new

        if self.every == 1 or not ctx.train:
            return eager()

        def often() -> tuple[Array, Array]:
            cost, new = eager()
            return self.every * cost, new

        return jax.lax.cond(ctx.step % self.every == 0, often, lambda: (jnp.zeros(()), mean))


def projected(make: Make, w: Float[Array, "b s d"], key: Key) -> Callable[[Array], Float[Array, ""]]:
    """w -> the sum over examples of < G(w), y >, y drawn by the key in the shape of the images."""
    shape = jax.eval_shape(make, w).shape
    y = jax.random.normal(key, shape) * (shape[1] * shape[2]) ** -0.5
    return lambda w: jnp.sum(make(w) * y)


def lengths(slope: Float[Array, "b s d"]) -> Float[Array, " b"]:
    """| J_w^T y | of each example, given J_w^T y."""
    return jnp.sqrt(jnp.mean(jnp.sum(slope**2, axis=2), axis=1) + 1e-12)
