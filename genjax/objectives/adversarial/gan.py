"""Generative adversarial network (Goodfellow et al. 2014, arXiv:1406.2661), composed of parts.

    discriminator:  min_D  L_D(D(T(x)), D(T(G(z)))) + penalties(D) + label cost
    generator:      min_G  L_G(D(T(x)), D(T(G(z)))) + label cost,              z ~ N(0, I)

L_D and L_G are the losses of a `Game`; T is the augmentation. The default, non-saturating losses with the R1 penalty on
data (Mescheder et al. 2018, arXiv:1801.04406, eq. 9), converges locally where the unregularised game oscillates.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.adversarial.augment import Augment, NoAugment
from genjax.adversarial.conditioning import Conditioning, Given
from genjax.adversarial.losses import Game, NonSaturating, accuracy
from genjax.adversarial.penalties import R1, Penalty, total
from genjax.adversarial.spectral import SpectralNorm
from genjax.conditioning.labels import condition_vector
from genjax.core.objective import Aux, Conditioner, Context, Network, Player, Sampling
from genjax.core.sharding_rules import shard_rows
from genjax.core.types import Array, Batch, Extra, Key, Params, PyTree, named
from genjax.objectives.common import check_shape

Critic = Callable[[Array, str], Array]  # (x [b, ...], name of the augmentation's key) -> D's outputs [b, k]


@dataclass(frozen=True)
class GAN:
    """Two players: a generator, from noise to data, and a discriminator of real and generated examples.

    Attributes:
        generator: called as generator(z, None, cond, out=shape).
        discriminator: called as discriminator(x, None, cond, out=k), with k outputs as `conditioning` requires.
        shape: of one example.
        latent: dimensions of z ~ N(0, I).
        condition: what the model is given beside x, such as `Labels`; None for an unconditional model.
        game: the losses of both players.
        penalties: added to the discriminator's loss.
        every: the generator is updated on steps divisible by this, the discriminator on all.
        augment: augmentation of the discriminator's inputs in training.
        spectral: spectral normalisation of the discriminator's kernels, or None.
        conditioning: how the discriminator uses labels; they are always inputs of the generator.
    """

    generator: Network
    discriminator: Network
    shape: tuple[int, ...]
    latent: int = 64
    condition: Conditioner | None = None
    game: Game = NonSaturating()
    penalties: tuple[Penalty, ...] = (R1(1.0),)
    every: int = 1
    augment: Augment = NoAugment()
    spectral: SpectralNorm | None = None
    conditioning: Conditioning = Given()

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Two players; `extra` has "augment" and "spectral" where these have state."""
        check_shape(self.shape, batch, self.condition)
        x, cond = batch["x"], condition_vector(self.condition, batch, len(batch["x"]))
        z, given = jnp.zeros((len(x), self.latent)), self.conditioning.given(cond)
        discriminator = self.discriminator.init(
            named(key, "discriminator"), x, None, given, out=self._outputs
        )
        generator = self.generator.init(named(key, "generator"), z, None, cond, out=self.shape)
        extra: dict[str, PyTree] = {"augment": self.augment.init()} if self.augment.init() else {}
        if self.spectral is not None:
            extra["spectral"] = self.spectral.init(named(key, "spectral"), discriminator)
        return {"discriminator": discriminator, "generator": generator}, extra

    @property
    def _outputs(self) -> int:
        return self.conditioning.outputs(self.condition.classes if self.condition else 0)

    def players(self) -> Mapping[str, Player]:
        """The discriminator is updated first; the generator's loss uses the updated discriminator."""
        return {
            "discriminator": Player(self.discriminator_loss),
            "generator": Player(self.generator_loss, self.every),
        }

    def labels(self, batch: Batch) -> Array | None:
        """One-hot labels of a batch, or None."""
        return condition_vector(self.condition, batch, len(batch["x"]))

    def generate(self, params: Params, key: Key, num: int, cond: Array | None) -> Float[Array, "b ..."]:
        """G(z), z ~ N(0, I).

        Args:
            params: by player.
            key: typed PRNG key of z.
            num: number of examples.
            cond: one-hot labels [num, classes], or None.

        Returns:
            Generated examples [num, *shape].
        """
        z = shard_rows(jax.random.normal(named(key, "prior"), (num, self.latent)))
        return self.generator.apply(params["generator"], z, None, cond, out=self.shape)

    def discriminator_fn(
        self, params: Params, extra: Extra, cond: Array | None, ctx: Context, update_spectral: bool
    ) -> tuple[Critic, dict[str, PyTree]]:
        """The discriminator with normalisation, augmentation and dropout applied, as used by the losses.

        Args:
            params: by player.
            extra: from `init`.
            cond: one-hot labels, or None.
            ctx: of the loss; in training x is augmented and features may be dropped.
            update_spectral: run the power iterations of spectral normalisation (in training).

        Returns:
            ((x [b, ...], name) -> outputs [b, k], new entries of extra).
        """
        parameters, new = params["discriminator"], {}
        if self.spectral is not None:
            parameters, vectors = self.spectral.apply(
                parameters, extra["spectral"], ctx.train and update_spectral
            )
            new = {"spectral": vectors} if ctx.train and update_spectral else {}
        given = self.conditioning.given(cond)

        def outputs(x: Array, name: str) -> Array:
            options: dict[str, Any] = {}
            if ctx.train:
                x = self.augment.apply(extra.get("augment", {}), named(ctx.key, f"augment {name}"), x)
                options = {"train": True, "rngs": {"dropout": named(ctx.key, f"dropout {name}")}}
            return self.discriminator.apply(parameters, x, None, given, out=self._outputs, **options)

        return outputs, new

    def discriminator_loss(
        self, params: Params, extra: Extra, batch: Batch, ctx: Context
    ) -> tuple[Array, Aux]:
        """The game's loss, the penalties and the label cost.

        Metrics: `game` (the loss without penalties), `accuracy`, `real_logit` and `fake_logit` (means; overfitting
        lowers `real_logit` on held-out data), each penalty by name.
        """
        generated = self.generate(params, ctx.key, len(batch["x"]), self.labels(batch))
        return self.discriminator_loss_on(params, extra, batch, generated, ctx)

    def discriminator_loss_on(
        self, params: Params, extra: Extra, batch: Batch, generated: Array, ctx: Context
    ) -> tuple[Array, Aux]:
        """The discriminator's loss on given generated examples.

        Args:
            params: by player.
            extra: from `init`.
            batch: real data.
            generated: generated examples [b, *shape].
            ctx: of the loss.

        Returns:
            (loss, metrics and new extra); see `discriminator_loss`.
        """
        x, cond = batch["x"], self.labels(batch)
        outputs, new = self.discriminator_fn(params, extra, cond, ctx, update_spectral=True)
        on_real, on_fake = outputs(x, "real"), outputs(generated, "fake")
        real, fake = (self.conditioning.logit(out, cond) for out in (on_real, on_fake))
        critic = lambda x: self.conditioning.logit(outputs(x, "real"), cond)
        cost, penalties = total(self.penalties, critic, x, generated, ctx)
        (label_cost, metrics), (fake_label_cost, _) = (
            self.conditioning.cost(out, cond) for out in (on_real, on_fake)
        )
        game = self.game.discriminator(real, fake)
        metrics |= {"game": game, "accuracy": accuracy(self.game, real, fake), **penalties}
        metrics |= {"real_logit": jnp.mean(real), "fake_logit": jnp.mean(fake)}
        if ctx.train and "augment" in extra:
            new["augment"], adapted = self.augment.adapt(
                extra["augment"], real - (self.game.threshold or 0.0)
            )
            metrics |= adapted
        return game + cost + label_cost + fake_label_cost, Aux(metrics, new)

    def generator_loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """The game's loss and the label cost."""
        generated = self.generate(params, ctx.key, len(batch["x"]), self.labels(batch))
        return self.generator_loss_on(params, extra, batch, generated, ctx)

    def generator_loss_on(
        self, params: Params, extra: Extra, batch: Batch, generated: Array, ctx: Context
    ) -> tuple[Array, Aux]:
        """The generator's loss on given generated examples.

        Args:
            params: by player.
            extra: from `init`.
            batch: real data, used where the game is `paired`.
            generated: generated examples [b, *shape].
            ctx: of the loss.

        Returns:
            (loss, metrics).
        """
        x, cond = batch["x"], self.labels(batch)
        outputs, _ = self.discriminator_fn(params, extra, cond, ctx, update_spectral=False)
        out = outputs(generated, "fake")
        real = self.conditioning.logit(outputs(x, "real"), cond) if self.game.paired else None
        label_cost, metrics = self.conditioning.cost(out, cond)
        return self.game.generator(real, self.conditioning.logit(out, cond)) + label_cost, Aux(metrics)

    sampling = Sampling("direct")

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """G(z), conditional on labels if given."""
        return self.generate(params, key, num, condition_vector(self.condition, cond, num))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one z."""
        return (self.latent,)

    def decode(
        self, params: Params, extra: Extra, z: Array, key: Key, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """G(z), conditional on labels if given."""
        labels = condition_vector(self.condition, cond, len(z))
        return self.generator.apply(params["generator"], z, None, labels, out=self.shape)
