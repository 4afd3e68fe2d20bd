"""A history of what was made, so that a discriminator does not forget it (Shrivastava et al. 2017, arXiv:1612.07828).

Until `size` examples are stored, each new one is stored and shown. From then on a new example is, with probability 1/2,
exchanged with one of the stored, which is shown in its stead, and otherwise shown itself and not stored. Within a batch
the places are different, and none is exchanged before the batch that finds the history full.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array, Key, named


@dataclass(frozen=True)
class History:
    """Examples made so far.

    Attributes:
        size: how many are stored; 0 shows each example itself.
    """

    size: int = 50

    def begin(self, shape: tuple[int, ...]) -> dict[str, Array]:
        """What is carried: `stored` float32 [size, *shape], and `count`, how many of them there are."""
        return {"stored": jnp.zeros((self.size, *shape)), "count": jnp.zeros((), jnp.int32)}

    def exchange(
        self, carried: dict[str, Array], made: Float[Array, "b ..."], key: Key
    ) -> tuple[dict[str, Array], Float[Array, "b ..."]]:
        """Stores some new examples and shows some old ones.

        Args:
            carried: from `begin` or from here.
            made: the new examples; no gradient passes.
            key: typed PRNG key.

        Returns:
            (what is carried on, examples [b, ...] to be shown).
        """
        made = jax.lax.stop_gradient(made)
        if not self.size:
            return carried, made
        stored, count, b = carried["stored"], carried["count"], len(made)
        full, outside = count == self.size, jnp.full(b, self.size)
        places = jnp.concatenate([jax.random.permutation(named(key, "places"), self.size), outside])[:b]
        swapped = full & jax.random.bernoulli(named(key, "whether"), 0.5, (b,)) & (places < self.size)
        places = jnp.where(full, jnp.where(swapped, places, outside), count + jnp.arange(b))
        old = stored.at[places].get(mode="fill", fill_value=0.0)
        shown = jnp.where(swapped.reshape(b, *(1,) * (made.ndim - 1)), old, made)
        stored = stored.at[places].set(made, mode="drop")
        return {"stored": stored, "count": jnp.minimum(count + b, self.size)}, shown
