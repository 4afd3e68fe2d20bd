"""Adversarial autoencoder (Makhzani et al. 2016, arXiv:1511.05644): a game matches the codes to the prior.

    discriminator:  min_D      L_D( D(z), D(E(x)) ) + penalties,        z ~ p(z)
    autoencoder:    min_{E,G}  -E log p(x | E(x)) / dims + w L_G( D(z), D(E(x)) )

Samples of the prior are "real", codes are "fake". The paper updates the encoder twice, once for each term; here it is
updated once, for their weighted sum.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genjax.adversarial.losses import Game, NonSaturating, accuracy
from genjax.adversarial.penalties import R1, Penalty, total
from genjax.conditioning.labels import condition_vector
from genjax.core.errors import UserError
from genjax.core.objective import Aux, Conditioner, Context, Network, Player, Sampling
from genjax.core.sharding_rules import shard_rows
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.distributions.likelihoods import Gaussian, Likelihood
from genjax.distributions.priors import Normal, Prior
from genjax.objectives.common import check_shape

Latents = Float[Array, "b n"]


@dataclass(frozen=True)
class AAE:
    """Two players: an autoencoder, and a discriminator of its codes.

    Attributes:
        encoder: called as encoder(x, None, cond, out=latent).
        decoder: called as decoder(z, None, cond, out=...), gives the likelihood's parameters.
        discriminator: called as discriminator(z, out=1).
        shape: of one example.
        latent: dimensions of z.
        condition: what the model is given beside x, such as `Labels`; None for an unconditional model.
        likelihood: p(x|z).
        prior: p(z), without parameters.
        game: the losses of both players.
        penalties: added to the discriminator's loss.
        weight: w.
    """

    encoder: Network
    decoder: Network
    discriminator: Network
    shape: tuple[int, ...]
    latent: int = 8
    condition: Conditioner | None = None
    likelihood: Likelihood = Gaussian()
    prior: Prior = Normal()
    game: Game = NonSaturating()
    penalties: tuple[Penalty, ...] = (R1(0.1),)
    weight: float = 0.1

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Two players; encoder and decoder are updated together.

        Raises:
            UserError: the batch does not match `shape`, or the prior has parameters.
        """
        check_shape(self.shape, batch, self.condition)
        if self.prior.init(key, batch["x"], (self.latent,)):
            raise UserError(
                f"an AAE requires a prior without parameters, and a {type(self.prior).__name__} has parameters"
            )
        x, cond = batch["x"], condition_vector(self.condition, batch, len(batch["x"]))
        z, out = jnp.zeros((len(x), self.latent)), self.likelihood.outputs(self.shape)
        autoencoder = {
            "encoder": self.encoder.init(named(key, "encoder"), x, None, cond, out=self.latent),
            "decoder": self.decoder.init(named(key, "decoder"), z, None, cond, out=out),
        }
        discriminator = self.discriminator.init(named(key, "discriminator"), z, out=1)
        return {"autoencoder": autoencoder, "discriminator": discriminator}, {}

    def players(self) -> Mapping[str, Player]:
        """The autoencoder is updated first; the discriminator then uses the updated encoder."""
        return {"autoencoder": Player(self.loss), "discriminator": Player(self.discriminator_loss)}

    def draw(self, key: Key, num: int) -> Latents:
        """z ~ p(z)."""
        posterior = lambda x: (x, x)  # not used by a prior without parameters
        return shard_rows(self.prior.sample({}, named(key, "prior"), num, (self.latent,), posterior))

    def code(self, params: Params, x: Float[Array, "b ..."], cond: Array | None) -> Latents:
        """E(x).

        Args:
            params: by player.
            x: data [b, ...].
            cond: conditioning vectors [b, k], or None.

        Returns:
            Codes [b, latent].
        """
        return self.encoder.apply(params["autoencoder"]["encoder"], x, None, cond, out=self.latent)

    def outputs(self, params: Params, z: Latents, cond: Array | None) -> Array:
        """The likelihood's parameters given z.

        Args:
            params: by player.
            z: codes [b, latent].
            cond: conditioning vectors [b, k], or None.

        Returns:
            The decoder's output [b, *likelihood.outputs(shape)].
        """
        out = self.likelihood.outputs(self.shape)
        return self.decoder.apply(params["autoencoder"]["decoder"], z, None, cond, out=out)

    def logit(self, params: Params, z: Latents) -> Float[Array, " b"]:
        """D(z)."""
        return self.discriminator.apply(params["discriminator"], z, out=1)[:, 0]

    def discriminator_loss(
        self, params: Params, extra: Extra, batch: Batch, ctx: Context
    ) -> tuple[Array, Aux]:
        """The game's loss plus the penalties."""
        x = batch["x"]
        z, code = (
            self.draw(ctx.key, len(x)),
            self.code(params, x, condition_vector(self.condition, batch, len(x))),
        )
        real, fake = self.logit(params, z), self.logit(params, code)
        cost, metrics = total(self.penalties, lambda z: self.logit(params, z), z, code, ctx)
        game = self.game.discriminator(real, fake)
        metrics |= {"game": game, "accuracy": accuracy(self.game, real, fake)}
        return game + cost, Aux(metrics)

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """Reconstruction in nats per dimension plus the weighted game; metrics: both, and mean and std of the codes."""
        x, cond = batch["x"], condition_vector(self.condition, batch, len(batch["x"]))
        code = self.code(params, x, cond)
        log_prob = self.likelihood.log_prob(self.outputs(params, code, cond), x)
        reconstruction = -jnp.mean(log_prob) / float(np.prod(self.shape))
        real = self.logit(params, self.draw(ctx.key, len(x))) if self.game.paired else None
        fooled = self.game.generator(real, self.logit(params, code))
        metrics = {"reconstruction": reconstruction, "fooled": fooled}
        metrics |= {"code_mean": jnp.mean(code), "code_std": jnp.std(code)}
        return reconstruction + self.weight * fooled, Aux(metrics)

    sampling = Sampling("direct")

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """Decodes samples of the prior."""
        return self.decode(params, extra, self.draw(key, num), key, cond)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one example's z."""
        return (self.latent,)

    def encode(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Latents:
        """E(x)."""
        return self.code(params, batch["x"], condition_vector(self.condition, batch, len(batch["x"])))

    def decode(
        self, params: Params, extra: Extra, z: Latents, key: Key, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """Samples the likelihood given z; most likelihoods return their mean."""
        out = self.outputs(params, z, condition_vector(self.condition, cond, len(z)))
        return self.likelihood.sample(out, named(key, "likelihood"))
