"""CycleGAN (Zhu et al. 2017, arXiv:1703.10593): translation between two domains a and b from unpaired images.

    discriminator_a:  min_{D_a}  L_D( D_a(a), D_a(F(b)) ),         discriminator_b:  min_{D_b}  L_D( D_b(b), D_b(G(a)) )
    generators G: a -> b, F: b -> a:   each minimises the terms that depend on it of
        L_G(D_b(G(a))) + L_G(D_a(F(b)))
        + cycle ( E | F(G(a)) - a | + E | G(F(b)) - b | ) + identity ( E | G(b) - b | + E | F(a) - a | )

(equation 3, section 5.2) with distances as means over pixels. `LeastSquares` has a factor 1/2 that the paper's
generator loss lacks: the paper's balance corresponds to cycle = 5 and identity = 2.5 here. The discriminators are
trained on a pool of generated images (`adversarial.image_pool`). Examples are images a and b side by side; no loss term
depends on how they are paired.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Float

from genjax.adversarial.image_pool import ImagePool
from genjax.adversarial.losses import Game, LeastSquares, accuracy
from genjax.adversarial.penalties import Penalty, total
from genjax.core.objective import Aux, Context, LossFn, Network, Player, Sampling
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.data.sources.pairs import halves, side_by_side
from genjax.objectives.common import check_pairs, given_pairs

Images = Float[Array, "b h w c"]
OTHER = {"a": "b", "b": "a"}
TO = {"a": "generator_to_a", "b": "generator_to_b"}


@dataclass(frozen=True)
class CycleGAN:
    """Four players: a discriminator of each domain, and a generator into each.

    Attributes:
        generator: called as generator(x, out=(h, w, c), train=train), with a PRNG key "dropout".
        discriminator: called as discriminator(x, out=1); gives logits of any shape.
        shape: of one example: a and b side by side, (h, 2 w, c).
        cycle: weight of the cycle-consistency loss.
        identity: weight of the identity loss, on inputs of the target domain; 0 disables it.
        game: the losses of both players.
        penalties: added to the discriminators' losses.
        history: the image pool, replicated on each device; `compile="pmap"` would average it.
    """

    generator: Network
    discriminator: Network
    shape: tuple[int, ...]
    cycle: float = 10.0
    identity: float = 5.0
    game: Game = LeastSquares()
    penalties: tuple[Penalty, ...] = ()
    history: ImagePool = ImagePool(50)

    condition = None

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Four players; extra["history_a"] and extra["history_b"]."""
        check_pairs(self.shape, batch)
        a, _ = halves(batch["x"])
        params: dict[str, dict] = {}
        for kind in ("a", "b"):
            name = f"discriminator_{kind}"
            params[name] = self.discriminator.init(named(key, name), a, out=1)
        for kind in ("a", "b"):
            params[TO[kind]] = self.generator.init(named(key, TO[kind]), a, out=a.shape[1:])
        return params, {f"history_{kind}": self.history.init(a.shape[1:]) for kind in ("a", "b")}

    def players(self) -> Mapping[str, Player]:
        """The discriminators are updated first."""
        discriminators = {
            f"discriminator_{kind}": Player(self.discriminator_loss(kind)) for kind in ("a", "b")
        }
        return discriminators | {TO[kind]: Player(self.generator_loss(kind)) for kind in ("a", "b")}

    def translate_to(self, kind: str, params: Params, x: Images, ctx: Context, name: str) -> Images:
        """Translates images with the generator into domain `kind`.

        Args:
            kind: target domain, "a" or "b".
            params: by player.
            x: images of the other domain [b, h, w, c].
            ctx: of the loss; gives the key and whether dropout is on.
            name: names the dropout key.

        Returns:
            Translated images, shaped as x.
        """
        rngs = {"dropout": named(ctx.key, f"dropout {name}")}
        return self.generator.apply(params[TO[kind]], x, out=x.shape[1:], train=ctx.train, rngs=rngs)

    def logits(self, kind: str, params: Params, x: Images) -> Array:
        """Outputs of the discriminator of domain `kind`.

        Args:
            kind: "a" or "b".
            params: by player.
            x: images [b, h, w, c].

        Returns:
            Logits, of the discriminator's shape.
        """
        return self.discriminator.apply(params[f"discriminator_{kind}"], x, out=1)

    def discriminator_loss(self, kind: str) -> LossFn:
        """The loss of one discriminator: its domain against the pool; in evaluation, against new translations."""

        def loss(params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
            x = dict(zip("ab", halves(batch["x"]), strict=True))
            generated, new = self.translate_to(kind, params, x[OTHER[kind]], ctx, "made"), {}
            if ctx.train:
                pool = f"history_{kind}"
                new[pool], generated = self.history.exchange(
                    extra[pool], generated, named(ctx.key, "history")
                )
            critic = lambda x: self.logits(kind, params, x)
            real, fake = critic(x[kind]), critic(generated)
            cost, metrics = total(self.penalties, critic, x[kind], generated, ctx)
            metrics |= {"accuracy": accuracy(self.game, real, fake)}
            return self.game.discriminator(real, fake) + cost, Aux(metrics, new)

        return loss

    def generator_loss(self, kind: str) -> LossFn:
        """The loss of the generator into one domain.

        Metrics, unweighted: `game`, `cycle` (from and back to the other domain), `identity`.
        """
        other = OTHER[kind]

        def loss(params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
            x = dict(zip("ab", halves(batch["x"]), strict=True))
            generated = self.translate_to(kind, params, x[other], ctx, "made")
            there = self.translate_to(other, params, x[kind], ctx, "there")
            cycles = {
                other: jnp.mean(jnp.abs(self.translate_to(other, params, generated, ctx, "back") - x[other])),
                kind: jnp.mean(jnp.abs(self.translate_to(kind, params, there, ctx, "again") - x[kind])),
            }
            real = self.logits(kind, params, x[kind]) if self.game.paired else None
            game = self.game.generator(real, self.logits(kind, params, generated))
            value = game + self.cycle * (cycles["a"] + cycles["b"])
            metrics = {"game": game, "cycle": cycles[other]}
            if self.identity:
                same = jnp.mean(jnp.abs(self.translate_to(kind, params, x[kind], ctx, "same") - x[kind]))
                value, metrics = value + self.identity * same, {**metrics, "identity": same}
            return value, Aux(metrics)

        return loss

    def translate(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Mapping[str, Images]:
        """See `HasTranslation`; the targets are the images beside the inputs, paired or not."""
        ctx = Context(key, jnp.zeros((), jnp.int32), train=False)
        x = dict(zip("ab", halves(batch["x"]), strict=True))
        images: dict[str, Images] = {}
        for kind, ending in (("b", ""), ("a", "_reversed")):
            given = x[OTHER[kind]]
            generated = self.translate_to(kind, params, given, ctx, "made")
            back = self.translate_to(OTHER[kind], params, generated, ctx, "back")
            names = ("input", "output", "target", "back")
            row = zip(names, (given, generated, x[kind], back), strict=True)
            images |= {name + ending: image for name, image in row}
        return images

    sampling = Sampling("direct")

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b h ww c"]:
        """Translations of the given b and a, side by side: F(b), G(a)."""
        images = self.translate(params, extra, {"x": given_pairs(cond, num)}, key)
        return side_by_side(images["output_reversed"], images["output"])
