"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958): a GAN with a mapping and a synthesis network as its generator.

    w = f(z, label), z ~ N(0, I),      x = g(w_1, ..., w_L, noise),

a game of two players (`gan`), with

    style mixing    in training, for a share of the images: w_k from one z for k < l and from another for k >= l, with l
                    uniform in 1 ... L - 1 (Karras et al. 2019, arXiv:1812.04948, section 3.1)
    path length     a penalty on the generator (`adversarial.path_length`)
    truncation      in sampling, w -> mean + truncation (w - mean), mean the moving average of E w (ibid., appendix B).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.adversarial.path_length import PathLength
from genjax.conditioning.labels import condition_vector
from genjax.core.errors import UserError
from genjax.core.network import TakesStyles
from genjax.core.objective import Aux, Conditioner, Context, Network, Player, Sampling
from genjax.core.sharding_rules import shard_rows
from genjax.core.tree import tunable
from genjax.core.types import Array, Batch, Extra, Key, Params, PyTree, named
from genjax.objectives.adversarial.gan import GAN

Styles = Float[Array, "b l w"]


@dataclass(frozen=True)
class StyleGAN:
    """Two players: the generator comprises the mapping and the synthesis network.

    Attributes:
        gan: the game, discriminator and shapes. Its generator is the synthesis network, called as
            generator(w [b, styles, latent], out=shape) with a PRNG key "noise", with an attribute `styles`, their
            number; its `latent` is the size of z and of w.
        mapping: called as mapping(z, None, cond, out=latent).
        mixing: share of the training images with styles from two z.
        path_length: the generator's penalty.
        truncation: 1 disables it, 0 gives the image of the mean style. Tunable.
        decay: decay of the moving average of the mean style.
    """

    gan: GAN
    mapping: Network
    mixing: float = 0.9
    path_length: PathLength = PathLength()
    truncation: float = tunable(1.0)
    decay: float = 0.995

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.gan.shape

    @property
    def condition(self) -> Conditioner | None:
        """Number of labels; 0 for none."""
        return self.gan.condition

    @property
    def styles(self) -> int:
        """L, the number of styles.

        Raises:
            UserError: the generator has no attribute `styles`.
        """
        generator = self.gan.generator
        if not isinstance(generator, TakesStyles):
            raise UserError(
                f"a StyleGAN's generator needs an attribute `styles`, their number, as StyleSynthesis has; "
                f"a {type(generator).__name__} has none"
            )
        return generator.styles

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """The GAN's players, and extra["style"]: the moving averages of the style and of the path length."""
        params, extra = self.gan.init(key, batch)
        z = jnp.zeros((len(batch["x"]), self.gan.latent))
        w = jnp.zeros((len(z), self.styles, self.gan.latent))
        generator = {
            "mapping": self.mapping.init(
                named(key, "mapping"), z, None, self.gan.labels(batch), out=self.gan.latent
            ),
            "synthesis": self.gan.generator.init(named(key, "synthesis"), w, out=self.shape),
        }
        state = {"mean": jnp.zeros(self.gan.latent), "length": jnp.zeros(())}
        return {**params, "generator": generator}, {**extra, "style": state}

    def players(self) -> Mapping[str, Player]:
        """The discriminator is updated first; the generator's loss uses the updated discriminator."""
        return {
            "discriminator": Player(self.discriminator_loss),
            "generator": Player(self.generator_loss, self.gan.every),
        }

    def style(
        self, params: Params, key: Key, num: int, cond: Array | None, name: str = "prior"
    ) -> Float[Array, "b w"]:
        """w = f(z), z ~ N(0, I).

        Args:
            params: by player.
            key: typed PRNG key.
            num: number of styles.
            cond: one-hot labels [num, classes], or None.
            name: names the key of z.

        Returns:
            Styles [num, latent].
        """
        z = shard_rows(jax.random.normal(named(key, name), (num, self.gan.latent)))
        return self.mapping.apply(params["generator"]["mapping"], z, None, cond, out=self.gan.latent)

    def mixed(
        self, params: Params, key: Key, num: int, cond: Array | None
    ) -> tuple[Styles, Float[Array, "b w"]]:
        """Styles of training images, with style mixing.

        Args:
            params: by player.
            key: typed PRNG key.
            num: number of images.
            cond: one-hot labels [num, classes], or None.

        Returns:
            (styles [num, L, latent], the styles of the first z [num, latent]).
        """
        first = self.style(params, key, num, cond)
        if not self.mixing:
            return jnp.repeat(first[:, None], self.styles, axis=1), first
        second = self.style(params, key, num, cond, "mixed")
        place = jax.random.randint(named(key, "place"), (num, 1), 1, self.styles)
        mixes = jax.random.bernoulli(named(key, "mixes"), self.mixing, (num, 1))
        later = mixes & (jnp.arange(self.styles)[None] >= place)
        return jnp.where(later[..., None], second[:, None], first[:, None]), first

    def images(self, params: Params, w: Styles, key: Key) -> Float[Array, "b ..."]:
        """g(w, noise).

        Args:
            params: by player.
            w: styles [b, L, latent].
            key: typed PRNG key of the noise inputs.

        Returns:
            Images [b, *shape].
        """
        rngs = {"noise": named(key, "noise")}
        return self.gan.generator.apply(params["generator"]["synthesis"], w, out=self.shape, rngs=rngs)

    def discriminator_loss(
        self, params: Params, extra: Extra, batch: Batch, ctx: Context
    ) -> tuple[Array, Aux]:
        """See `GAN.discriminator_loss`."""
        w, _ = self.mixed(params, ctx.key, len(batch["x"]), self.gan.labels(batch))
        return self.gan.discriminator_loss_on(params, extra, batch, self.images(params, w, ctx.key), ctx)

    def generator_loss(self, params: Params, extra: Extra, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """See `GAN.generator_loss`, plus the path length penalty.

        Metrics: `path_penalty` (the term added to the loss), `path_length` (the moving average).
        """
        cond, style = self.gan.labels(batch), extra["style"]
        w, first = self.mixed(params, ctx.key, len(batch["x"]), cond)
        loss, aux = self.gan.generator_loss_on(params, extra, batch, self.images(params, w, ctx.key), ctx)
        metrics, state = dict(aux.metrics), dict(style)
        if self.path_length.weight:
            key, num = named(ctx.key, "path"), max(1, len(w) // self.path_length.share)
            labels = None if cond is None else cond[:num]
            make = lambda w: self.images(params, w, key)
            updates = ctx.step // self.gan.every  # the penalty's `every` counts updates of the generator
            styles, _ = self.mixed(params, key, num, labels)
            cost, state["length"] = self.path_length.cost(
                make, styles, style["length"], named(key, "direction"), Context(ctx.key, updates, ctx.train)
            )
            loss = loss + cost
            metrics |= {"path_penalty": cost, "path_length": state["length"]}
        if ctx.train:
            now = jax.lax.stop_gradient(jnp.mean(first, axis=0))
            state["mean"] = self.decay * style["mean"] + (1.0 - self.decay) * now
        extras: dict[str, PyTree] = {**aux.extra, **({"style": state} if ctx.train else {})}
        return loss, Aux(metrics, extras)

    sampling = Sampling("direct")

    def sample(
        self, params: Params, extra: Extra, key: Key, num: int, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """Images of truncated styles, conditional on labels if given."""
        z = jax.random.normal(named(key, "prior"), (num, self.gan.latent))
        return self.decode(params, extra, z, key, cond)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one z."""
        return self.gan.latent_shape

    def _truncated(self, params: Params, extra: Extra, z: Array, cond: Batch | None) -> Float[Array, "b w"]:
        labels, mean = condition_vector(self.condition, cond, len(z)), extra["style"]["mean"]
        w = self.mapping.apply(params["generator"]["mapping"], z, None, labels, out=self.gan.latent)
        return mean[None] + self.truncation * (w - mean[None])

    def decode(
        self, params: Params, extra: Extra, z: Array, key: Key, cond: Batch | None = None
    ) -> Float[Array, "b ..."]:
        """Images of the truncated styles of z."""
        return self.mix(params, extra, z, z, self.styles, key, cond)

    def mix(
        self,
        params: Params,
        extra: Extra,
        coarse: Array,
        fine: Array,
        place: int,
        key: Key,
        cond: Batch | None = None,
    ) -> Float[Array, "b ..."]:
        """Images of mixed, truncated styles.

        Args:
            params: by player.
            extra: from training.
            coarse: z of the styles before index `place` [b, latent].
            fine: z of the styles from index `place` on [b, latent].
            place: index of the first fine style, in 0 ... L.
            key: typed PRNG key of the noise inputs.
            cond: a batch with labels, or None.

        Returns:
            Images [b, *shape].
        """
        first, last = (self._truncated(params, extra, z, cond)[:, None] for z in (coarse, fine))
        later = (jnp.arange(self.styles) >= place)[None, :, None]
        return self.images(params, jnp.where(later, last, first), key)
