"""A pool of past generated images for the discriminator (Shrivastava et al. 2017, arXiv:1612.07828).

Until `size` examples are stored, each new example is stored and returned. From then on a new example is, with
probability 1/2, stored in place of a stored one, which is returned instead; otherwise the new example is returned and
not stored. The slots drawn within a batch are distinct, and exchanges start with the first batch that finds the pool
full.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array, Key, named


@dataclass(frozen=True)
class ImagePool:
    """A pool of generated examples.

    Attributes:
        size: number of stored examples; 0 disables the pool.
    """

    size: int = 50

    def init(self, shape: tuple[int, ...]) -> dict[str, Array]:
        """An empty pool: `stored` float32 [size, *shape], and `count` int32, the number of stored examples."""
        return {"stored": jnp.zeros((self.size, *shape)), "count": jnp.zeros((), jnp.int32)}

    def exchange(
        self, state: dict[str, Array], generated: Float[Array, "b ..."], key: Key
    ) -> tuple[dict[str, Array], Float[Array, "b ..."]]:
        """Stores new examples and returns a mixture of new and stored ones.

        Args:
            state: from `init` or here.
            generated: the new examples; gradients are stopped.
            key: typed PRNG key.

        Returns:
            (new state, examples for the discriminator [b, ...]).
        """
        generated = jax.lax.stop_gradient(generated)
        if not self.size:
            return state, generated
        stored, count, b = state["stored"], state["count"], len(generated)
        full, outside = count == self.size, jnp.full(b, self.size)
        places = jnp.concatenate([jax.random.permutation(named(key, "places"), self.size), outside])[:b]
        swapped = full & jax.random.bernoulli(named(key, "whether"), 0.5, (b,)) & (places < self.size)
        places = jnp.where(full, jnp.where(swapped, places, outside), count + jnp.arange(b))
        old = stored.at[places].get(mode="fill", fill_value=0.0)
        output = jnp.where(swapped.reshape(b, *(1,) * (generated.ndim - 1)), old, generated)
        stored = stored.at[places].set(generated, mode="drop")
        return {"stored": stored, "count": jnp.minimum(count + b, self.size)}, output
