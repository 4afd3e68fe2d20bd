"""Generative adversarial network (Goodfellow et al. 2014, arXiv:1406.2661), non-saturating.

    discriminator:  min_D  E_data [ softplus(-D(x)) ] + E_z [ softplus(D(G(z))) ] + (r1 / 2) E_data || grad D ||^2
    generator:      min_G  E_z [ softplus(-D(G(z))) ]

D gives logits. The R1 penalty on real data (Mescheder et al. 2018, arXiv:1801.04406, eq. 9) makes the game
converge where the unregularised one circles.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.objective import Aux, Context, Network, Player
from genjax.objectives.common import check_shape, condition, sum_dims
from genjax.types import Array, Batch, Extra, Key, Params, named


@dataclass(frozen=True)
class GAN:
    """Two players: a generator that turns noise into data, a discriminator that tells which is which.

    Attributes:
        generator: called as generator(z, None, cond, out=shape).
        discriminator: called as discriminator(x, None, cond, out=1), gives a logit.
        shape: of one example.
        latent: dimensions of z ~ N(0, I).
        classes: number of labels that both networks are given; 0 for none.
        r1: weight of the R1 penalty; 0 turns it off.
        every: the generator moves on steps divisible by this, the discriminator on all.
    """

    generator: Network
    discriminator: Network
    shape: tuple[int, ...]
    latent: int = 64
    classes: int = 0
    r1: float = 1.0
    every: int = 1

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Two players."""
        check_shape(self.shape, batch, self.classes)
        x, cond = batch["x"], condition(batch, len(batch["x"]), self.classes)
        z = jnp.zeros((len(x), self.latent))
        return {
            "discriminator": self.discriminator.init(named(key, "discriminator"), x, None, cond, out=1),
            "generator": self.generator.init(named(key, "generator"), z, None, cond, out=self.shape),
        }, {}

    def players(self) -> Mapping[str, Player]:
        """The discriminator moves first; the generator then faces it as it is now."""
        return {
            "discriminator": Player(self.discriminator_loss),
            "generator": Player(self.generator_loss, self.every),
        }

    def generate(self, params: Params, key: Key, num: int, cond: Array | None) -> Float[Array, "b ..."]:
        """G(z), z ~ N(0, I)."""
        z = jax.random.normal(named(key, "prior"), (num, self.latent))
        return self.generator.apply(params["generator"], z, None, cond, out=self.shape)

    def logit(self, params: Params, x: Float[Array, "b ..."], cond: Array | None) -> Float[Array, " b"]:
        """D(x): the logit of "real"."""
        return self.discriminator.apply(params["discriminator"], x, None, cond, out=1)[:, 0]

    def discriminator_loss(
        self, params: Params, extra: Extra, batch: Batch, ctx: Context
    ) -> tuple[Array, Aux]:
        """Logistic classification of real and generated, plus R1; nats."""
        x, cond = batch["x"], condition(batch, len(batch["x"]), self.classes)
        fake = self.generate(params, ctx.key, len(x), cond)
        real_logit, fake_logit = self.logit(params, x, cond), self.logit(params, fake, cond)
        loss = jnp.mean(jax.nn.softplus(-real_logit)) + jnp.mean(jax.nn.softplus(fake_logit))
        accuracy = 0.5 * (jnp.mean(real_logit > 0) + jnp.mean(fake_logit <= 0))
        if not self.r1:
            return loss, Aux({"accuracy": accuracy})
        slope = jax.grad(lambda inputs: jnp.sum(self.logit(params, inputs, cond)))(x)
        penalty = jnp.mean(sum_dims(slope**2))
        return loss + 0.5 * self.r1 * penalty, Aux({"accuracy": accuracy, "r1": penalty})

    def generator_loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """softplus(-D(G(z))): the probability of being taken for real, in nats."""
        cond = condition(batch, len(batch["x"]), self.classes)
        fake = self.generate(params, ctx.key, len(batch["x"]), cond)
        return jnp.mean(jax.nn.softplus(-self.logit(params, fake, cond))), Aux()

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """G(z), given labels if any."""
        return self.generate(params, key, num, condition(cond, num, self.classes))
