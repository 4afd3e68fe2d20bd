"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958): mapping and synthesis of the generator, and the discriminator.

    mapping        w = f(z / rms(z)), a perceptron with a learning rate 100 times lower than the other layers
    synthesis      a learned constant; at each resolution convolutions modulated by w (`equalised`), with noise;
                   the image is the sum of the upsampled outputs of each resolution (skip outputs)
    discriminator  residual, with the standard deviation over a mini-batch as an additional channel

Space is doubled and halved with the binomial filter of `resample`; the paper's transposed convolution is here the
filter followed by a 3 x 3 convolution.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array
from genjax.networks.convolutional.conv import check_image, halved
from genjax.networks.layers import resample
from genjax.networks.layers.blocks import Conditioning, TimeFeatures
from genjax.networks.layers.equalised import EqualConv, EqualDense, leaky, unit_rms
from genjax.networks.layers.minibatch import MinibatchStd
from genjax.networks.layers.network import ConditionalNetwork, Outputs, Times, Vector


class StyleMapping(ConditionalNetwork):
    """z -> w.

    Attributes:
        width: of the hidden layers, and of the embedding of time and cond.
        depth: number of layers.
        multiplier: of the layers' learning rate.
        time: kind of the time features, if t is passed.
        time_scale: see `blocks.Conditioning.scale`.
    """

    width: int = 128
    depth: int = 4
    multiplier: float = 0.01
    time: TimeFeatures = "sinusoidal"
    time_scale: float = 1000.0

    def forward(self, x: Array, t: Times, cond: Vector, out: Outputs, train: bool) -> Array:
        """Maps z, concatenated with the embedding of time and cond, to styles.

        Args:
            x: z [b, n], usually N(0, I).
            t: times [b], or None.
            cond: conditioning vectors [b, k], or None.
            out: size of w.
            train: ignored.

        Returns:
            w, float32 [b, out].
        """
        width = out if isinstance(out, int) else out[0]
        e = Conditioning(self.width - self.width % 2, self.width, self.time, self.time_scale, name="embed")(
            t, cond
        )
        h = unit_rms(x)
        for layer in range(self.depth):
            last = layer == self.depth - 1
            y = EqualDense(width if last else self.width, self.multiplier)(h)
            if layer == 0 and e is not None:  # W [z, e] = W_z z + W_e e: a zero vector means no label
                y = y + EqualDense(y.shape[-1], self.multiplier, use_bias=False, name="given")(unit_rms(e))
            h = leaky(y)
        return h


class StyleSynthesis(ConditionalNetwork):
    """Styles to image.

    Attributes:
        channels: of each resolution, coarsest first; each resolution is twice the previous.
        noise: add noise, if a PRNG key "noise" is passed; without it the image is a function of w.
        time: kind of the time features, if t is passed.
        time_scale: see `blocks.Conditioning.scale`.
        dtype: of the computations in all but the sums of the image.
    """

    channels: tuple[int, ...] = (128, 64, 32)
    noise: bool = True
    time: TimeFeatures = "sinusoidal"
    time_scale: float = 1000.0
    dtype: str = "float32"

    @property
    def styles(self) -> int:
        """Number of styles of an image: one per convolution, in order, and one for the last output."""
        return 2 * len(self.channels)

    def forward(self, x: Array, t: Times, cond: Vector, out: Outputs, train: bool) -> Array:
        """Generates images.

        Args:
            x: one style [b, w] for all layers, or `styles` of them [b, styles, w].
            t: times [b], or None.
            cond: conditioning vectors [b, k], or None.
            out: (h, w, c) of the images.
            train: ignored.

        Returns:
            float32 [b, h, w, c].

        Raises:
            UserError: `out` is not an image shape, or x has another number of styles.
        """
        out = check_image(out, "a synthesis network")
        if x.ndim == 3 and x.shape[1] != self.styles:
            raise UserError(f"this synthesis network takes 1 or {self.styles} styles, not {x.shape[1]}")
        width = x.shape[-1]
        e = Conditioning(width - width % 2, width, self.time, self.time_scale, name="embed")(t, cond)
        w = x[:, None] if x.ndim == 2 else x
        w = jnp.broadcast_to(w, (len(x), self.styles, width))
        w = w if e is None else w + EqualDense(width, use_bias=False, name="given")(e)[:, None]
        sizes = [
            (halved(out[0], k), halved(out[1], k), c)
            for k, c in zip(range(len(self.channels) - 1, -1, -1), self.channels, strict=True)
        ]
        start = self.param("constant", nn.initializers.normal(1.0), sizes[0], jnp.float32)
        h = jnp.broadcast_to(start[None], (len(x), *start.shape))
        image = jnp.zeros((len(x), *sizes[0][:2], out[-1]))
        for level, size in enumerate(sizes):
            if level:
                h = resample.up(h, "fir")[:, : size[0], : size[1]]
                image = resample.up(image, "fir")[:, : size[0], : size[1]]
                h = self._layer(f"up_{level}", h, w[:, 2 * level - 1], size[2])
            h = self._layer(f"conv_{level}", h, w[:, 2 * level], size[2])
            more = EqualConv(out[-1], 1, demodulate=False, dtype=self.dtype, name=f"image_{level}")
            image = image + more(h, w[:, 2 * level + 1]).astype(jnp.float32)
        return image

    def _layer(self, name: str, h: Array, style: Array, channels: int) -> Array:
        """Modulated convolution, noise, bias, leaky ReLU."""
        noise = None
        if self.noise:
            strength = self.param(f"{name}_noise", nn.initializers.zeros, (), jnp.float32)
            if self.has_rng("noise"):
                noise = strength * jax.random.normal(self.make_rng("noise"), (*h.shape[:-1], 1))
        return leaky(EqualConv(channels, dtype=self.dtype, name=name)(h, style, noise))


class StyleDiscriminator(nn.Module):
    """Image to logits: residual blocks, each halving space; conditioned by projection (Miyato & Koyama 2018).

    Attributes:
        channels: of each resolution, finest first; all but the last are downsampled.
        width: of the features before the logits.
        group: number of examples for the mini-batch standard deviation; 0 for none, which keeps examples independent.
        time: kind of the time features, if t is passed.
        time_scale: see `blocks.Conditioning.scale`.
        dtype: of the computations in all but the last layers.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    width: int = 128
    group: int = 4
    time: TimeFeatures = "sinusoidal"
    time_scale: float = 1000.0
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        t: Float[Array, " b"] | None = None,
        cond: Float[Array, "b k"] | None = None,
        *,
        out: int,
        train: bool = False,
        features: bool = False,
    ) -> Float[Array, "b k"]:
        """Classifies images.

        Args:
            x: images [b, h, w, c], usually in [-1, 1].
            t: times [b], or None.
            cond: conditioning vectors [b, k], or None.
            out: number of logits.
            train: ignored.
            features: return the penultimate features [b, width] instead.

        Returns:
            float32 [b, out], or [b, width].
        """
        e = Conditioning(self.width - self.width % 2, self.width, self.time, self.time_scale, name="embed")(
            t, cond
        )
        h = leaky(EqualConv(self.channels[0], 1, dtype=self.dtype, name="in")(x))
        for level, (c, after) in enumerate(zip(self.channels[:-1], self.channels[1:], strict=True)):
            skip = EqualConv(after, 1, use_bias=False, dtype=self.dtype, name=f"skip_{level}")(_down(h))
            h = leaky(EqualConv(c, dtype=self.dtype, name=f"conv_{level}")(h))
            h = leaky(EqualConv(after, dtype=self.dtype, name=f"down_{level}")(_down(h)))
            h = (h + skip) * 0.5**0.5
        h = h.astype(jnp.float32)
        h = MinibatchStd(self.group, name="std")(h) if self.group else h
        h = leaky(EqualConv(self.channels[-1], name="conv")(h))
        h = leaky(EqualDense(self.width, name="features")(h.reshape(len(h), -1)))
        if features:
            return h
        logit = EqualDense(out, name="out")(h)
        if e is None:
            return logit
        return logit + EqualDense(out, use_bias=False, name="given")(h * unit_rms(e))


def _down(h: Array) -> Array:
    """Downsamples by 2 with the binomial filter, odd sizes rounded up."""
    return resample.down(jnp.pad(h, ((0, 0), (0, h.shape[1] % 2), (0, h.shape[2] % 2), (0, 0))), "fir")
