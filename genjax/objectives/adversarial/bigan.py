"""Bidirectional GAN (Donahue et al. 2017, arXiv:1605.09782; ALI, Dumoulin et al. 2017, arXiv:1606.00704).

    discriminator:  min_D    L_D( D(x, E(x)), D(G(z), z) ),      z ~ N(0, I)                                   (eq. 3)
    generator:      min_G,E  ( L_G( D(x, E(x)), D(G(z), z) ) + L_G( -D(G(z), z), -D(x, E(x)) ) ) / 2

The discriminator separates pairs (x, E(x)) from (G(z), z); at the optimum both have the same distribution and E inverts
G (theorem 2). The encoder plays the generator's game with real and fake exchanged: the signs of D are reversed, about
the threshold where that is not 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.adversarial.losses import Game, NonSaturating, accuracy
from genjax.adversarial.penalties import R1, Penalty, total
from genjax.conditioning.labels import condition_vector
from genjax.core.objective import Aux, Conditioner, Context, Network, Player, Sampling
from genjax.core.sharding_rules import shard_rows
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.objectives.common import check_shape

Latents = Float[Array, "b n"]


@dataclass(frozen=True)
class BiGAN:
    """Two players: a discriminator of pairs, and a generator with an encoder, its inverse.

    Attributes:
        generator: called as generator(z, None, cond, out=shape).
        encoder: called as encoder(x, None, cond, out=latent).
        discriminator: called as discriminator(x, None, [z, cond], out=1), with the code in the conditioning vector.
        shape: of one example.
        latent: dimensions of z.
        condition: what the model is given beside x, such as `Labels`; None for an unconditional model.
        game: the losses of both players.
        penalties: added to the discriminator's loss, on gradients in x.
        every: generator and encoder are updated on steps divisible by this, the discriminator on all.
    """

    generator: Network
    encoder: Network
    discriminator: Network
    shape: tuple[int, ...]
    latent: int = 16
    condition: Conditioner | None = None
    game: Game = NonSaturating()
    penalties: tuple[Penalty, ...] = (R1(1.0),)
    every: int = 1

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Two players; generator and encoder are updated together."""
        check_shape(self.shape, batch, self.condition)
        x, cond = batch["x"], condition_vector(self.condition, batch, len(batch["x"]))
        z = jnp.zeros((len(x), self.latent))
        pair = _concatenate(z, cond)
        discriminator = self.discriminator.init(named(key, "discriminator"), x, None, pair, out=1)
        generator = {
            "encoder": self.encoder.init(named(key, "encoder"), x, None, cond, out=self.latent),
            "generator": self.generator.init(named(key, "generator"), z, None, cond, out=self.shape),
        }
        return {"discriminator": discriminator, "generator": generator}, {}

    def players(self) -> Mapping[str, Player]:
        """The discriminator is updated first."""
        return {
            "discriminator": Player(self.discriminator_loss),
            "generator": Player(self.generator_loss, self.every),
        }

    def generate(self, params: Params, z: Latents, cond: Array | None) -> Float[Array, "b ..."]:
        """G(z).

        Args:
            params: by player.
            z: noise [b, latent].
            cond: conditioning vectors [b, k], or None.

        Returns:
            Generated examples [b, *shape].
        """
        return self.generator.apply(params["generator"]["generator"], z, None, cond, out=self.shape)

    def infer(self, params: Params, x: Float[Array, "b ..."], cond: Array | None) -> Latents:
        """E(x).

        Args:
            params: by player.
            x: data [b, ...].
            cond: conditioning vectors [b, k], or None.

        Returns:
            Codes [b, latent].
        """
        return self.encoder.apply(params["generator"]["encoder"], x, None, cond, out=self.latent)

    def logit(self, params: Params, x: Array, z: Latents, cond: Array | None) -> Float[Array, " b"]:
        """D(x, z).

        Args:
            params: by player.
            x: real or generated examples [b, ...].
            z: codes or noise [b, latent].
            cond: conditioning vectors [b, k], or None.

        Returns:
            Logits [b].
        """
        return self.discriminator.apply(params["discriminator"], x, None, _concatenate(z, cond), out=1)[:, 0]

    def _pairs(self, params: Params, batch: Batch, ctx: Context) -> tuple[Array, Latents, Array, Latents]:
        """x, E(x), G(z), z."""
        x, cond = batch["x"], condition_vector(self.condition, batch, len(batch["x"]))
        z = shard_rows(jax.random.normal(named(ctx.key, "prior"), (len(x), self.latent)))
        return x, self.infer(params, x, cond), self.generate(params, z, cond), z

    def discriminator_loss(
        self, params: Params, extra: Extra, batch: Batch, ctx: Context
    ) -> tuple[Array, Aux]:
        """The game's loss plus the penalties in x at fixed codes."""
        cond = condition_vector(self.condition, batch, len(batch["x"]))
        x, code, generated, z = self._pairs(params, batch, ctx)
        real, fake = self.logit(params, x, code, cond), self.logit(params, generated, z, cond)
        critic = lambda x: self.logit(params, x, code, cond)
        cost, metrics = total(self.penalties, critic, x, generated, ctx)
        game = self.game.discriminator(real, fake)
        metrics |= {"game": game, "accuracy": accuracy(self.game, real, fake)}
        metrics |= {"real_logit": jnp.mean(real), "fake_logit": jnp.mean(fake)}
        return game + cost, Aux(metrics)

    def generator_loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """The mean of both sides of the game; metric `inversion`: E |z - E(G(z))|^2 per dimension."""
        cond = condition_vector(self.condition, batch, len(batch["x"]))
        x, code, generated, z = self._pairs(params, batch, ctx)
        real, fake = self.logit(params, x, code, cond), self.logit(params, generated, z, cond)
        mirror = 2.0 * (self.game.threshold or 0.0)
        sides = self.game.generator(real, fake) + self.game.generator(mirror - fake, mirror - real)
        inversion = jnp.mean((z - self.infer(params, generated, cond)) ** 2)
        return 0.5 * sides, Aux({"inversion": inversion})

    sampling = Sampling("direct")

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """G(z), z ~ N(0, I), conditional on labels if given."""
        z = jax.random.normal(named(key, "prior"), (num, self.latent))
        return self.generate(params, z, condition_vector(self.condition, cond, num))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one example's z."""
        return (self.latent,)

    def encode(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Latents:
        """E(x)."""
        return self.infer(params, batch["x"], condition_vector(self.condition, batch, len(batch["x"])))

    def decode(
        self, params: Params, extra: Extra, z: Latents, key: Key, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """G(z)."""
        return self.generate(params, z, condition_vector(self.condition, cond, len(z)))


def _concatenate(z: Latents, cond: Array | None) -> Float[Array, "b k"]:
    """Code and conditioning vector as one vector."""
    return z if cond is None else jnp.concatenate([z, cond], axis=-1)
