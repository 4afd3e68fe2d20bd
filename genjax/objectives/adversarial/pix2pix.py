"""Pix2Pix (Isola et al. 2017, arXiv:1611.07004): pictures from pictures, learned from pairs (a, b).

    discriminator:  min_D  L_D( D(a, b), D(a, G(a, z)) ) + penalties(D)
    generator:      min_G  adversarial L_G( D(a, b), D(a, G(a, z)) ) + weight E | b - G(a, z) |_1 / dims       (eq. 4)

D's outputs are logits of patches. The noise z is the generator's dropout, which is on in sampling too (section 2.1).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Float

from genjax.adversarial.losses import Game, NonSaturating, accuracy
from genjax.adversarial.penalties import Penalty, total
from genjax.core.objective import Aux, Context, Network, Player
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.data.sources.pairs import beside, halves
from genjax.objectives.common import check_pairs, given_pairs

Images = Float[Array, "b h w c"]


@dataclass(frozen=True)
class Pix2Pix:
    """Two players, or with adversarial = 0 the generator alone.

    Attributes:
        generator: called as generator(a, out=(h, w, c), train=True), with a key for its dropout.
        discriminator: called as discriminator([a, b] along the channels, out=1); gives logits of any shape.
        shape: of one example: a pair side by side, (h, 2 w, c).
        weight: of the L1 distance, a mean over pixels in the scale of `batch["x"]`.
        adversarial: weight of the game in the generator's loss; 0 leaves a regression without a discriminator.
        game: the two losses.
        penalties: added to the discriminator's.
    """

    generator: Network
    discriminator: Network
    shape: tuple[int, ...]
    weight: float = 100.0
    adversarial: float = 1.0
    game: Game = NonSaturating()
    penalties: tuple[Penalty, ...] = ()

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Nothing is carried."""
        check_pairs(self.shape, batch)
        a, b = halves(batch["x"])
        maker = self.generator.init(named(key, "generator"), a, out=b.shape[1:])
        if not self.adversarial:
            return {"generator": maker}, {}
        pair = jnp.concatenate([a, b], axis=-1)
        judge = self.discriminator.init(named(key, "discriminator"), pair, out=1)
        return {"discriminator": judge, "generator": maker}, {}

    def players(self) -> Mapping[str, Player]:
        """The discriminator moves first; the generator then faces it as it is now."""
        generator = {"generator": Player(self.generator_loss)}
        return (
            {"discriminator": Player(self.discriminator_loss), **generator} if self.adversarial else generator
        )

    def generate(self, params: Params, key: Key, a: Images) -> Images:
        """G(a, z)."""
        rngs = {"dropout": named(key, "dropout")}
        return self.generator.apply(params["generator"], a, out=a.shape[1:], train=True, rngs=rngs)

    def logits(self, params: Params, a: Images, b: Images) -> Array:
        """D(a, b)."""
        return self.discriminator.apply(params["discriminator"], jnp.concatenate([a, b], axis=-1), out=1)

    def discriminator_loss(
        self, params: Params, extra: Extra, batch: Batch, ctx: Context
    ) -> tuple[Array, Aux]:
        """The game's, on pairs of which the first is the same, and the penalties."""
        a, b = halves(batch["x"])
        made = self.generate(params, ctx.key, a)
        critic = lambda b: self.logits(params, a, b)
        real, fake = critic(b), critic(made)
        cost, metrics = total(self.penalties, critic, b, made, ctx)
        metrics |= {"accuracy": accuracy(self.game, real, fake)}
        return self.game.discriminator(real, fake) + cost, Aux(metrics)

    def generator_loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """The game's and the L1 distance; metric `l1`: the distance unweighted."""
        a, b = halves(batch["x"])
        made = self.generate(params, ctx.key, a)
        l1 = jnp.mean(jnp.abs(b - made))
        if not self.adversarial:
            return self.weight * l1, Aux({"l1": l1})
        real = self.logits(params, a, b) if self.game.paired else None
        game = self.game.generator(real, self.logits(params, a, made))
        return self.adversarial * game + self.weight * l1, Aux({"l1": l1, "game": game})

    def translate(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Mapping[str, Images]:
        """See `HasTranslation`."""
        a, b = halves(batch["x"])
        return {"input": a, "output": self.generate(params, key, a), "target": b}

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b h ww c"]:
        """The given inputs beside what is made of them."""
        a, _ = halves(given_pairs(cond, num))
        return beside(a, self.generate(params, key, a))
