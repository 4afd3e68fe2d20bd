"""Pix2Pix (Isola et al. 2017, arXiv:1611.07004): image-to-image translation from pairs (a, b).

    discriminator:  min_D  L_D( D(a, b), D(a, G(a, z)) ) + penalties(D)
    generator:      min_G  adversarial L_G( D(a, b), D(a, G(a, z)) ) + weight E | b - G(a, z) |_1 / dims       (eq. 4)

D's outputs are logits of patches. The noise z is the generator's dropout, also active in sampling (section 2.1).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Float

from genjax.adversarial.losses import Game, NonSaturating, accuracy
from genjax.adversarial.penalties import Penalty, total
from genjax.core.objective import Aux, Context, Network, Player, Sampling
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.data.sources.pairs import halves, side_by_side
from genjax.objectives.common import check_pairs, given_pairs

Images = Float[Array, "b h w c"]


@dataclass(frozen=True)
class Pix2Pix:
    """Two players, or the generator alone with adversarial = 0.

    Attributes:
        generator: called as generator(a, out=(h, w, c), train=True), with a PRNG key "dropout".
        discriminator: called as discriminator([a, b] along the channels, out=1); gives logits of any shape.
        shape: of one example: a pair side by side, (h, 2 w, c).
        weight: of the L1 distance, a mean over pixels in the scale of `batch["x"]`.
        adversarial: weight of the game in the generator's loss; 0 is plain regression without a discriminator.
        game: the losses of both players.
        penalties: added to the discriminator's loss.
    """

    generator: Network
    discriminator: Network
    shape: tuple[int, ...]
    weight: float = 100.0
    adversarial: float = 1.0
    game: Game = NonSaturating()
    penalties: tuple[Penalty, ...] = ()

    condition = None

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Two players, or one with adversarial = 0; no extra."""
        check_pairs(self.shape, batch)
        a, b = halves(batch["x"])
        generator = self.generator.init(named(key, "generator"), a, out=b.shape[1:])
        if not self.adversarial:
            return {"generator": generator}, {}
        pair = jnp.concatenate([a, b], axis=-1)
        discriminator = self.discriminator.init(named(key, "discriminator"), pair, out=1)
        return {"discriminator": discriminator, "generator": generator}, {}

    def players(self) -> Mapping[str, Player]:
        """The discriminator is updated first; the generator's loss uses the updated discriminator."""
        generator = {"generator": Player(self.generator_loss)}
        return (
            {"discriminator": Player(self.discriminator_loss), **generator} if self.adversarial else generator
        )

    def generate(self, params: Params, key: Key, a: Images) -> Images:
        """G(a, z).

        Args:
            params: by player.
            key: typed PRNG key of the dropout.
            a: input images [b, h, w, c].

        Returns:
            Translated images, shaped as a.
        """
        rngs = {"dropout": named(key, "dropout")}
        return self.generator.apply(params["generator"], a, out=a.shape[1:], train=True, rngs=rngs)

    def logits(self, params: Params, a: Images, b: Images) -> Array:
        """D(a, b).

        Args:
            params: by player.
            a: input images [b, h, w, c].
            b: real or generated targets, shaped as a.

        Returns:
            Logits, of the discriminator's shape.
        """
        return self.discriminator.apply(params["discriminator"], jnp.concatenate([a, b], axis=-1), out=1)

    def discriminator_loss(
        self, params: Params, extra: Extra, batch: Batch, ctx: Context
    ) -> tuple[Array, Aux]:
        """The game's loss on (a, b) against (a, G(a, z)), plus the penalties in b."""
        a, b = halves(batch["x"])
        generated = self.generate(params, ctx.key, a)
        critic = lambda b: self.logits(params, a, b)
        real, fake = critic(b), critic(generated)
        cost, metrics = total(self.penalties, critic, b, generated, ctx)
        metrics |= {"accuracy": accuracy(self.game, real, fake)}
        return self.game.discriminator(real, fake) + cost, Aux(metrics)

    def generator_loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """The weighted game and L1 distance; metrics `l1` and `game` are unweighted."""
        a, b = halves(batch["x"])
        generated = self.generate(params, ctx.key, a)
        l1 = jnp.mean(jnp.abs(b - generated))
        if not self.adversarial:
            return self.weight * l1, Aux({"l1": l1})
        real = self.logits(params, a, b) if self.game.paired else None
        game = self.game.generator(real, self.logits(params, a, generated))
        return self.adversarial * game + self.weight * l1, Aux({"l1": l1, "game": game})

    def translate(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Mapping[str, Images]:
        """See `HasTranslation`."""
        a, b = halves(batch["x"])
        return {"input": a, "output": self.generate(params, key, a), "target": b}

    sampling = Sampling("direct")

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b h ww c"]:
        """The given inputs and their translations, side by side."""
        a, _ = halves(given_pairs(cond, num))
        return side_by_side(a, self.generate(params, key, a))
