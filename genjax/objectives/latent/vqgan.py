"""VQ-GAN (Esser et al. 2021, arXiv:2012.09841): a VQ-VAE with an adversarial and a perceptual reconstruction loss.

    discriminator:  min_D  E softplus(-D(x)) + E softplus(D(x_hat))                                (eq. 5, D in logits)
    autoencoder:    min    -log p(x|z) / dims + P(x, x_hat) + cost + w lambda L_GAN,   L_GAN = E softplus(-D(x_hat)),
                    lambda = | d L_rec / d x_hat | / ( | d L_GAN / d x_hat | + delta ),                     (eq. 7)
                    L_rec = mean (x - x_hat)^2 + P(x, x_hat),

where x_hat is a sample of the likelihood, by default its mean, and P a perceptual distance (`perceptual`). The paper
takes lambda's two gradients in the decoder's last layer; here they are in that layer's output, which does not depend on
the architecture. w is 0 before the step `start`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.objective import Aux, Context, Network, Player
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.networks.convolutional.perceptual import NoPerceptual, Perceptual
from genjax.objectives.latent.discrete import DiscreteLatents
from genjax.objectives.latent.vqvae import VQVAE

DELTA = 1e-4
LARGEST = 1e4  # of lambda


@dataclass(frozen=True)
class VQGAN(DiscreteLatents):
    """Two players: a discriminator, and the autoencoder trained against it.

    Attributes:
        autoencoder: a VQ-VAE.
        discriminator: called as discriminator(x, out=patches); outputs logits.
        patches: shape of the discriminator's output: 1 for one logit per image, (h, w, 1) for one per patch.
        perceptual: a distance added to the reconstruction's; its parameters are kept in extra["perceptual"].
        weight: w.
        start: first step with the adversarial loss.
    """

    autoencoder: VQVAE
    discriminator: Network
    patches: int | tuple[int, ...] = 1
    perceptual: Perceptual = NoPerceptual()
    weight: float = 0.5
    start: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example."""
        return self.autoencoder.shape

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The autoencoder's."""
        return self.autoencoder.latent_shape

    @property
    def values(self) -> int:
        """The autoencoder's."""
        return self.autoencoder.values

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """The discriminator, and the autoencoder's own player."""
        params, extra = self.autoencoder.init(key, batch)
        discriminator = self.discriminator.init(named(key, "discriminator"), batch["x"], out=self.patches)
        features = self.perceptual.init(named(key, "perceptual"), batch["x"])
        return {"discriminator": discriminator, **params}, {
            **extra,
            **({"perceptual": features} if features else {}),
        }

    def players(self) -> Mapping[str, Player]:
        """The discriminator is updated first; the autoencoder's loss uses the updated discriminator."""
        return {"discriminator": Player(self.discriminator_loss), "vqvae": Player(self.loss)}

    def logits(self, params: Params, x: Float[Array, "b ..."]) -> Array:
        """D(x), [b, *patches]."""
        return self.discriminator.apply(params["discriminator"], x, out=self.patches)

    def discriminator_loss(
        self, params: Params, extra: Extra, batch: Batch, ctx: Context
    ) -> tuple[Array, Aux]:
        """Logistic classification of images and reconstructions, nats.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape].
            ctx: PRNG key, step, and whether this is training.

        Returns:
            (scalar loss, metrics).
        """
        made = self.autoencoder.losses(params, extra, batch, ctx)[2]
        real, fake = self.logits(params, batch["x"]), self.logits(params, made)
        loss = jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))
        return loss, Aux({"accuracy": 0.5 * (jnp.mean(real > 0) + jnp.mean(fake <= 0))})

    def loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """Reconstruction, perceptual distance, quantizer cost and weighted adversarial loss.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape].
            ctx: PRNG key, step, and whether this is training.

        Returns:
            (scalar loss, metrics and new extra).
        """
        reconstruction, cost, made, aux = self.autoencoder.losses(params, extra, batch, ctx)
        x, features = batch["x"], extra.get("perceptual", {})
        error = lambda made: jnp.mean((x - made) ** 2)
        distance = lambda made: jnp.mean(self.perceptual.distance(features, x, made))
        fooled = lambda made: jnp.mean(jax.nn.softplus(-self.logits(params, made)))
        balance = adaptive_weight(
            jax.grad(lambda made: error(made) + distance(made))(made), jax.grad(fooled)(made)
        )
        active = jnp.where(ctx.step >= self.start, 1.0, 0.0) if ctx.train else 1.0
        loss = reconstruction + distance(made) + cost + self.weight * active * balance * fooled(made)
        metrics = {**aux.metrics, "perceptual": distance(made), "fooled": fooled(made), "balance": balance}
        return loss, dataclasses.replace(aux, metrics=metrics)

    @property
    def levels(self) -> int:
        """The autoencoder's."""
        return self.autoencoder.levels

    def encode(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Array:
        """See `VQVAE.encode`.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape].
            key: typed PRNG key.

        Returns:
            Codes int32 [b, *latent_shape].
        """
        return self.autoencoder.encode(params, extra, batch, key)

    def decode(
        self, params: Params, extra: Extra, z: Array, key: Key, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """See `VQVAE.decode`.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            z: codes int32 [b, *latent_shape].
            key: typed PRNG key.
            cond: unused: the model is unconditional.

        Returns:
            [b, *shape].
        """
        return self.autoencoder.decode(params, extra, z, key, cond)

    def log_decode(
        self, params: Params, extra: Extra, batch: Batch, key: Key
    ) -> tuple[Array, Float[Array, " b"]]:
        """See `VQVAE.log_decode`.

        Args:
            params: parameters by player.
            extra: state carried beside the parameters.
            batch: `"x"` [b, *shape].
            key: typed PRNG key.

        Returns:
            (codes, log p(x | codes) in nats [b]).
        """
        return self.autoencoder.log_decode(params, extra, batch, key)


def adaptive_weight(reconstruction: Array, adversarial: Array) -> Float[Array, ""]:
    """lambda (eq. 7): the ratio of two gradients' norms, at most `LARGEST`, without gradient."""
    norm = lambda gradient: jnp.sqrt(jnp.sum(gradient**2))
    return jax.lax.stop_gradient(jnp.minimum(norm(reconstruction) / (norm(adversarial) + DELTA), LARGEST))
