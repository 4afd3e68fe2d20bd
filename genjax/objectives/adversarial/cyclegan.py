"""CycleGAN (Zhu et al. 2017, arXiv:1703.10593): pictures a and b of two kinds, without pairs.

    discriminator_a:  min_{D_a}  L_D( D_a(a), D_a(F(b)) ),         discriminator_b:  min_{D_b}  L_D( D_b(b), D_b(G(a)) )
    generators G: a -> b, F: b -> a:   each minimises what depends on it of
        L_G(D_b(G(a))) + L_G(D_a(F(b)))
        + cycle ( E | F(G(a)) - a | + E | G(F(b)) - b | ) + identity ( E | G(b) - b | + E | F(a) - a | )

(equation 3, section 5.2) with distances as means over pixels. `LeastSquares` has a factor 1/2 that the paper's
generator loss has not: its balance is that of cycle = 5 and identity = 2.5 here. The discriminators are shown pictures
from a history of what the generators made (`adversarial.history`). Examples are pictures a and b side by side; no term
of any loss depends on which a stands beside which b.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Float

from genjax.adversarial.image_pool import History
from genjax.adversarial.losses import Game, LeastSquares, accuracy
from genjax.adversarial.penalties import Penalty, total
from genjax.core.objective import Aux, Context, LossFn, Network, Player
from genjax.core.types import Array, Batch, Extra, Key, Params, named
from genjax.data.sources.pairs import beside, halves
from genjax.objectives.common import check_pairs, given_pairs

Images = Float[Array, "b h w c"]
OTHER = {"a": "b", "b": "a"}
TO = {"a": "generator_to_a", "b": "generator_to_b"}


@dataclass(frozen=True)
class CycleGAN:
    """Four players: a discriminator of each kind of pictures, a generator towards each.

    Attributes:
        generator: called as generator(x, out=(h, w, c), train=train), with a key for its dropout if it has any.
        discriminator: called as discriminator(x, out=1); gives logits of any shape.
        shape: of one example: a and b side by side, (h, 2 w, c).
        cycle: weight of the way there and back.
        identity: weight of a generator's change of what is already of its kind; 0 for none.
        game: the two losses.
        penalties: added to the discriminators'.
        history: of made pictures. It is kept whole on each device; `compile="pmap"` would average it.
    """

    generator: Network
    discriminator: Network
    shape: tuple[int, ...]
    cycle: float = 10.0
    identity: float = 5.0
    game: Game = LeastSquares()
    penalties: tuple[Penalty, ...] = ()
    history: History = History(50)

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
        return params, {f"history_{kind}": self.history.begin(a.shape[1:]) for kind in ("a", "b")}

    def players(self) -> Mapping[str, Player]:
        """The discriminators move first."""
        judges = {f"discriminator_{kind}": Player(self.discriminator_loss(kind)) for kind in ("a", "b")}
        return judges | {TO[kind]: Player(self.generator_loss(kind)) for kind in ("a", "b")}

    def to(self, kind: str, params: Params, x: Images, ctx: Context, name: str) -> Images:
        """What the generator towards a kind makes of x; `name` is that of the draw of its dropout."""
        rngs = {"dropout": named(ctx.key, f"dropout {name}")}
        return self.generator.apply(params[TO[kind]], x, out=x.shape[1:], train=ctx.train, rngs=rngs)

    def logits(self, kind: str, params: Params, x: Images) -> Array:
        """The discriminator's of a kind."""
        return self.discriminator.apply(params[f"discriminator_{kind}"], x, out=1)

    def discriminator_loss(self, kind: str) -> LossFn:
        """Of pictures of one kind against those of the history; in evaluation against what is made now."""

        def loss(params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
            x = dict(zip("ab", halves(batch["x"]), strict=True))
            made, carried = self.to(kind, params, x[OTHER[kind]], ctx, "made"), {}
            if ctx.train:
                place = f"history_{kind}"
                carried[place], made = self.history.exchange(extra[place], made, named(ctx.key, "history"))
            critic = lambda x: self.logits(kind, params, x)
            real, fake = critic(x[kind]), critic(made)
            cost, metrics = total(self.penalties, critic, x[kind], made, ctx)
            metrics |= {"accuracy": accuracy(self.game, real, fake)}
            return self.game.discriminator(real, fake) + cost, Aux(metrics, carried)

        return loss

    def generator_loss(self, kind: str) -> LossFn:
        """The generator's towards one kind.

        Metrics: `game`, `cycle` (from and to the other kind), `identity`: each unweighted.
        """
        other = OTHER[kind]

        def loss(params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
            x = dict(zip("ab", halves(batch["x"]), strict=True))
            made = self.to(kind, params, x[other], ctx, "made")
            there = self.to(other, params, x[kind], ctx, "there")
            cycles = {
                other: jnp.mean(jnp.abs(self.to(other, params, made, ctx, "back") - x[other])),
                kind: jnp.mean(jnp.abs(self.to(kind, params, there, ctx, "again") - x[kind])),
            }
            real = self.logits(kind, params, x[kind]) if self.game.paired else None
            game = self.game.generator(real, self.logits(kind, params, made))
            value = game + self.cycle * (cycles["a"] + cycles["b"])
            metrics = {"game": game, "cycle": cycles[other]}
            if self.identity:
                same = jnp.mean(jnp.abs(self.to(kind, params, x[kind], ctx, "same") - x[kind]))
                value, metrics = value + self.identity * same, {**metrics, "identity": same}
            return value, Aux(metrics)

        return loss

    def translate(self, params: Params, extra: Extra, batch: Batch, key: Key) -> Mapping[str, Images]:
        """See `HasTranslation`; the targets are the pictures beside the inputs, whether they are pairs or not."""
        ctx = Context(key, jnp.zeros((), jnp.int32), train=False)
        x = dict(zip("ab", halves(batch["x"]), strict=True))
        shown: dict[str, Images] = {}
        for kind, ending in (("b", ""), ("a", "_reversed")):
            given = x[OTHER[kind]]
            made = self.to(kind, params, given, ctx, "made")
            back = self.to(OTHER[kind], params, made, ctx, "back")
            names = ("input", "output", "target", "back")
            row = zip(names, (given, made, x[kind], back), strict=True)
            shown |= {name + ending: picture for name, picture in row}
        return shown

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b h ww c"]:
        """What is made of the given b, and beside it what is made of the given a."""
        shown = self.translate(params, extra, {"x": given_pairs(cond, num)}, key)
        return beside(shown["output_reversed"], shown["output"])
