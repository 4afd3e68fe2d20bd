"""Generative adversarial network (Goodfellow et al. 2014, arXiv:1406.2661), put together of parts.

    discriminator:  min_D  L_D(D(T(x)), D(T(G(z)))) + penalties(D) + cost of labels
    generator:      min_G  L_G(D(T(x)), D(T(G(z)))) + cost of labels,          z ~ N(0, I)

L_D and L_G are a `Game`'s; T is what `augment` shows the discriminator. The default, non-saturating losses with the R1
penalty on data (Mescheder et al. 2018, arXiv:1801.04406, eq. 9), converges where the unregularised game circles.
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
from genjax.core.objective import Aux, Context, Network, Player
from genjax.core.sharding_rules import shared
from genjax.core.types import Array, Batch, Extra, Key, Params, PyTree, named
from genjax.objectives.common import check_shape, condition

Judge = Callable[[Array, str], Array]  # (x, name of the augmentation's draw) -> the discriminator's outputs


@dataclass(frozen=True)
class GAN:
    """Two players: a generator that turns noise into data, a discriminator that tells which is which.

    Attributes:
        generator: called as generator(z, None, cond, out=shape).
        discriminator: called as discriminator(x, None, cond, out=k); how many outputs is the conditioning's matter.
        shape: of one example.
        latent: dimensions of z ~ N(0, I).
        classes: number of labels; 0 for none.
        game: the two losses.
        penalties: added to the discriminator's.
        every: the generator moves on steps divisible by this, the discriminator on all.
        augment: of what the discriminator sees, in training.
        spectral: normalises the discriminator's kernels; None does not.
        conditioning: how the discriminator uses labels; the generator is given them.
    """

    generator: Network
    discriminator: Network
    shape: tuple[int, ...]
    latent: int = 64
    classes: int = 0
    game: Game = NonSaturating()
    penalties: tuple[Penalty, ...] = (R1(1.0),)
    every: int = 1
    augment: Augment = NoAugment()
    spectral: SpectralNorm | None = None
    conditioning: Conditioning = Given()

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Two players; `extra` holds "augment" and "spectral" where these carry something."""
        check_shape(self.shape, batch, self.classes)
        x, cond = batch["x"], condition(batch, len(batch["x"]), self.classes)
        z, given = jnp.zeros((len(x), self.latent)), self.conditioning.given(cond)
        judge = self.discriminator.init(named(key, "discriminator"), x, None, given, out=self._outputs)
        maker = self.generator.init(named(key, "generator"), z, None, cond, out=self.shape)
        extra: dict[str, PyTree] = {"augment": self.augment.begin()} if self.augment.begin() else {}
        if self.spectral is not None:
            extra["spectral"] = self.spectral.init(named(key, "spectral"), judge)
        return {"discriminator": judge, "generator": maker}, extra

    @property
    def _outputs(self) -> int:
        return self.conditioning.outputs(self.classes)

    def players(self) -> Mapping[str, Player]:
        """The discriminator moves first; the generator then faces it as it is now."""
        return {
            "discriminator": Player(self.discriminator_loss),
            "generator": Player(self.generator_loss, self.every),
        }

    def labels(self, batch: Batch) -> Array | None:
        """One-hot labels of a batch, or None."""
        return condition(batch, len(batch["x"]), self.classes)

    def generate(self, params: Params, key: Key, num: int, cond: Array | None) -> Float[Array, "b ..."]:
        """G(z), z ~ N(0, I)."""
        z = shared(jax.random.normal(named(key, "prior"), (num, self.latent)))
        return self.generator.apply(params["generator"], z, None, cond, out=self.shape)

    def judge(
        self, params: Params, extra: Extra, cond: Array | None, ctx: Context, moves: bool
    ) -> tuple[Judge, dict[str, PyTree]]:
        """The discriminator as the losses see it.

        Args:
            params: by player.
            extra: from `init`.
            cond: one-hot labels, or None.
            ctx: of the loss; in training x is augmented and features may be dropped.
            moves: whether the vectors of spectral normalisation move.

        Returns:
            (x [b, ...] and a name -> outputs [b, k], new entries of extra).
        """
        own, carried = params["discriminator"], {}
        if self.spectral is not None:
            own, vectors = self.spectral.apply(own, extra["spectral"], ctx.train and moves)
            carried = {"spectral": vectors} if ctx.train and moves else {}
        given = self.conditioning.given(cond)

        def outputs(x: Array, name: str) -> Array:
            options: dict[str, Any] = {}
            if ctx.train:
                x = self.augment.apply(extra.get("augment", {}), named(ctx.key, f"augment {name}"), x)
                options = {"train": True, "rngs": {"dropout": named(ctx.key, f"dropout {name}")}}
            return self.discriminator.apply(own, x, None, given, out=self._outputs, **options)

        return outputs, carried

    def discriminator_loss(
        self, params: Params, extra: Extra, batch: Batch, ctx: Context
    ) -> tuple[Array, Aux]:
        """The game's, the penalties and the cost of labels.

        Metrics: `game` (the loss without penalties), `accuracy`, `real_logit` and `fake_logit` (means; the first lies
        lower on data that the discriminator has not seen, as far as it overfits), each penalty by its name.
        """
        made = self.generate(params, ctx.key, len(batch["x"]), self.labels(batch))
        return self.discriminate(params, extra, batch, made, ctx)

    def discriminate(
        self, params: Params, extra: Extra, batch: Batch, made: Array, ctx: Context
    ) -> tuple[Array, Aux]:
        """The discriminator's loss, given what the generator made."""
        x, cond = batch["x"], self.labels(batch)
        judge, carried = self.judge(params, extra, cond, ctx, moves=True)
        seen, imagined = judge(x, "real"), judge(made, "fake")
        real, fake = (self.conditioning.logit(out, cond) for out in (seen, imagined))
        critic = lambda x: self.conditioning.logit(judge(x, "real"), cond)
        cost, penalties = total(self.penalties, critic, x, made, ctx)
        (told, metrics), (retold, _) = (self.conditioning.cost(out, cond) for out in (seen, imagined))
        game = self.game.discriminator(real, fake)
        metrics |= {"game": game, "accuracy": accuracy(self.game, real, fake), **penalties}
        metrics |= {"real_logit": jnp.mean(real), "fake_logit": jnp.mean(fake)}
        if ctx.train and "augment" in extra:
            carried["augment"], adapted = self.augment.adapt(
                extra["augment"], real - (self.game.threshold or 0.0)
            )
            metrics |= adapted
        return game + cost + told + retold, Aux(metrics, carried)

    def generator_loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """The game's and the cost of labels."""
        made = self.generate(params, ctx.key, len(batch["x"]), self.labels(batch))
        return self.fool(params, extra, batch, made, ctx)

    def fool(
        self, params: Params, extra: Extra, batch: Batch, made: Array, ctx: Context
    ) -> tuple[Array, Aux]:
        """The generator's loss, given what it made."""
        x, cond = batch["x"], self.labels(batch)
        judge, _ = self.judge(params, extra, cond, ctx, moves=False)
        out = judge(made, "fake")
        real = self.conditioning.logit(judge(x, "real"), cond) if self.game.paired else None
        told, metrics = self.conditioning.cost(out, cond)
        return self.game.generator(real, self.conditioning.logit(out, cond)) + told, Aux(metrics)

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """G(z), given labels if any."""
        return self.generate(params, key, num, condition(cond, num, self.classes))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of one z."""
        return (self.latent,)

    def decode(
        self, params: Params, extra: Extra, z: Array, key: Key, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """G(z), given labels if any."""
        labels = condition(cond, len(z), self.classes)
        return self.generator.apply(params["generator"], z, None, labels, out=self.shape)
