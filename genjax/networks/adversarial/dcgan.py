"""Convolutional generator and discriminator (DCGAN, Radford et al. 2016, arXiv:1511.06434).

    generator      z -> affine -> about 4x4 map -> [norm - relu - upsample - 3x3 convolution] ... -> tanh
    discriminator  x -> [convolution of stride 2 - norm - leaky relu] ... -> affine

One convolution per level, no skips. Batch normalisation, which couples examples, is replaced by group normalisation,
and transposed convolutions by upsampling and a 3x3 convolution; `ConvDecoder` and `ConvEncoder` are the residual
counterparts.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from genjax.core.types import Array
from genjax.networks.convolutional.conv import Norm, check_image, coarsest, halved
from genjax.networks.layers.blocks import Conditioning, Modulation
from genjax.networks.layers.linen import Activation, Conv, Dense, GroupNorm, activate
from genjax.networks.layers.network import ConditionalNetwork, Outputs, Times, Vector
from genjax.networks.layers.resample import Upsample


class DCGANGenerator(ConditionalNetwork):
    """Vectors to images, upsampled by 2 at each level.

    Attributes:
        channels: of each level before upsampling, coarsest first.
        norm: "group" or "none".
        activation: of the hidden layers.
        tanh: tanh output, for data in [-1, 1].
        dropout: probability of dropping a hidden feature, in training.
    """

    channels: tuple[int, ...] = (128, 64)
    norm: Norm = "group"
    activation: Activation = "relu"
    tanh: bool = True
    dropout: float = 0.0

    def forward(self, x: Array, t: Times, cond: Vector, out: Outputs, train: bool) -> Array:
        """Generates images.

        Args:
            x: vectors [b, n].
            t: times [b], or None.
            cond: conditioning vectors [b, k], or None.
            out: (h, w, c) of the images.
            train: whether dropout is on.

        Returns:
            float32 [b, h, w, c].

        Raises:
            UserError: `out` is not an image shape (h, w, c).
        """
        out, levels = check_image(out, "a DCGAN generator"), len(self.channels)
        h, e = coarsest(x, t, cond, out, self.channels)
        for left, channels in zip(reversed(range(levels)), (*self.channels[1:], out[-1]), strict=True):
            h = GroupNorm()(h) if self.norm == "group" else h
            h = activate(self.activation, Modulation()(h, e))
            h = nn.Dropout(self.dropout, deterministic=not train)(h)
            h = Upsample(channels, name=f"up_{left}")(h)[:, : halved(out[0], left), : halved(out[1], left)]
        return jnp.tanh(h) if self.tanh else h


class DCGANDiscriminator(ConditionalNetwork):
    """Images to vectors, downsampled by 2 at each level.

    Attributes:
        channels: of each level after downsampling, finest first.
        norm: "group" (at all levels but the first) or "none", which gradient penalties need.
        activation: of the hidden layers.
        dropout: probability of dropping a hidden feature, in training.
    """

    channels: tuple[int, ...] = (64, 128)
    norm: Norm = "group"
    activation: Activation = "leaky_relu"
    dropout: float = 0.0

    def forward(self, x: Array, t: Times, cond: Vector, out: Outputs, train: bool) -> Array:
        """Classifies images.

        Args:
            x: images [b, h, w, c].
            t: times [b], or None.
            cond: conditioning vectors [b, k], or None.
            out: k, or the output shape of one example.
            train: whether dropout is on.

        Returns:
            float32 [b, *out].
        """
        shape = (out,) if isinstance(out, int) else out
        first = self.channels[0]
        e = Conditioning(first - first % 2, first, name="embed")(t, cond)
        for level, channels in enumerate(self.channels):
            x = Conv(channels, (4, 4), strides=2)(x)
            x = GroupNorm()(x) if self.norm == "group" and level else x
            x = activate(self.activation, Modulation()(x, e))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Dense(int(np.prod(shape)), name="out")(x.reshape(len(x), -1)).reshape(-1, *shape)
