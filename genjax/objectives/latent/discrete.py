"""What autoencoders with discrete latents have in common: a uniform prior of the codes, until `latent` trains one."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.objective import HasLatents, Sampling
from genjax.core.types import Array, Batch, Extra, Key, Params, named


class DiscreteLatents:
    """Bound and samples of an unconditional model with a deterministic encoder, for N codes of K values each."""

    condition = None
    sampling = Sampling("direct")
    log_prob_kind = "lower bound (its own codes, uniform prior)"  # of the sum over codes, only the encoder's

    def log_prob(
        self: HasLatents, params: Params, extra: Extra, batch: Batch, key: Key
    ) -> Float[Array, " b"]:
        """log p(x|z) - N log K.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape].
            key: typed PRNG key.

        Returns:
            Nats [b].
        """
        _, given = self.log_decode(params, extra, batch, key)
        return given - math.prod(self.latent_shape) * math.log(self.values)

    def sample(
        self: HasLatents, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """Decodes uniform codes; such samples are poor until a prior is trained.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            key: typed PRNG key.
            num: number of samples.
            cond: unused: the model is unconditional.

        Returns:
            [num, *shape].
        """
        shape = (num, *self.latent_shape)
        codes = jax.random.randint(named(key, "codes"), shape, 0, self.values, jnp.int32)
        return self.decode(params, extra, codes, key)
