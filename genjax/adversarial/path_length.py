"""Path length regularisation of a generator (Karras et al. 2020, arXiv:1912.04958, section 3.2, equation 4).

    weight E_{w, y} ( | J_w^T y | - a )^2,      J_w = dG(w) / dw,   y ~ N(0, I) / sqrt(pixels),

where a is the moving average of | J_w^T y |, and J_w^T y = grad_w < G(w), y >. Where an image has several styles, the
squared length is averaged over them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.adversarial.slopes import penalise_gradient
from genjax.core.errors import UserError
from genjax.core.objective import Context
from genjax.core.types import Array, Key

Make = Callable[[Array], Array]  # styles [b, s, d] -> images [b, h, w, c]; rows are independent


@dataclass(frozen=True)
class PathLength:
    """The penalty with lazy regularisation.

    Attributes:
        weight: factor; 0 disables the penalty.
        every: the penalty is computed on every `every`-th update of the generator, scaled by `every`.
        share: the penalty is computed on batch / share images.
        decay: decay of the moving average a, at each computation of the penalty.
    """

    weight: float = 2.0
    every: int = 4
    share: int = 2
    decay: float = 0.99

    def __post_init__(self) -> None:
        if min(self.every, self.share) < 1:
            raise UserError(f"PathLength: every={self.every} and share={self.share} must be at least 1")

    def cost(
        self, make: Make, w: Float[Array, "b s d"], mean: Float[Array, ""], key: Key, ctx: Context
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The penalty at this step.

        Args:
            make: the synthesis network, styles -> images.
            w: styles [b, s, d]; may depend on parameters that are differentiated.
            mean: a, a scalar.
            key: typed PRNG key of y.
            ctx: of the generator's loss, with the step counted in updates of the generator; in evaluation the penalty
                is always computed, unscaled, and a is unchanged.

        Returns:
            (weighted penalty, new a with gradients stopped).
        """

        def compute() -> tuple[Array, Array]:
            projection, decay = projected(make, w, key), self.decay if ctx.train else 1.0
            now = jnp.mean(lengths(jax.lax.stop_gradient(jax.grad(projection)(w))))
            new = jax.lax.stop_gradient(decay * mean + (1.0 - decay) * now)
            penalty = lambda slope: self.weight * jnp.mean((lengths(slope) - new) ** 2)
            return penalise_gradient(projection, w, penalty), new

        if self.every == 1 or not ctx.train:
            return compute()

        def scaled() -> tuple[Array, Array]:
            cost, new = compute()
            return self.every * cost, new

        return jax.lax.cond(ctx.step % self.every == 0, scaled, lambda: (jnp.zeros(()), mean))


def projected(make: Make, w: Float[Array, "b s d"], key: Key) -> Callable[[Array], Float[Array, ""]]:
    """The function w -> sum over examples of < G(w), y >.

    Args:
        make: styles -> images.
        w: styles [b, s, d], for the shape of the images.
        key: typed PRNG key of y ~ N(0, I) / sqrt(pixels).

    Returns:
        The function, of a scalar value.
    """
    shape = jax.eval_shape(make, w).shape
    y = jax.random.normal(key, shape) * (shape[1] * shape[2]) ** -0.5
    return lambda w: jnp.sum(make(w) * y)


def lengths(slope: Float[Array, "b s d"]) -> Float[Array, " b"]:
    """| J_w^T y | of each example, given J_w^T y."""
    return jnp.sqrt(jnp.mean(jnp.sum(slope**2, axis=2), axis=1) + 1e-12)
