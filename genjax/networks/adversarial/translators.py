"""Image-to-image networks.

    UNetGenerator     Isola et al. 2017 (Pix2Pix, arXiv:1611.07004, section 3.2.1): an encoder and a decoder with a
                      skip between layers of the same size
    ResNetGenerator   Johnson et al. 2016 as in Zhu et al. 2017 (CycleGAN, arXiv:1703.10593, section 4): downsampling,
                      residual blocks, upsampling

Transposed convolutions are replaced by nearest-neighbour upsampling and a 3 x 3 convolution.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array
from genjax.networks.convolutional.conv import halved
from genjax.networks.layers.blocks import Conditioning, Embedding, Modulation, TimeFeatures
from genjax.networks.layers.linen import Activation, Conv, GroupNorm, activate
from genjax.networks.layers.network import ConditionalNetwork, Outputs, Times, Vector, kept
from genjax.networks.layers.resample import Upsample

PlaneNorm = Literal["instance", "group", "none"]


class Layer(nn.Module):
    """Convolution, normalisation, modulation by e, activation, dropout.

    Attributes:
        features: output channels.
        size: of the kernel along both axes.
        change: downsampling by the convolution's stride, or nearest-neighbour upsampling before it.
        norm: over each channel of an example ("instance"), over groups of channels ("group"), or none.
        activation: the non-linearity; None for none.
        dropout: probability of dropping a feature, in training.
        dtype: of the computations.
    """

    features: int
    size: int = 3
    change: Literal["none", "down", "up"] = "none"
    norm: PlaneNorm = "instance"
    activation: Activation | None = "relu"
    dropout: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w i"], e: Embedding = None, train: bool = False
    ) -> Float[Array, "b _ _ o"]:
        """Applies the layer.

        Args:
            x: [b, h, w, i].
            e: embedding of time and cond, or None.
            train: whether dropout is on.

        Returns:
            [b, h', w', features]; halved sizes are rounded up.
        """
        if self.change == "up":
            h = Upsample(self.features, dtype=self.dtype)(x)
        else:
            strides = 2 if self.change == "down" else 1
            h = Conv(self.features, (self.size, self.size), strides, dtype=self.dtype)(x)
        if self.norm == "instance":
            h = GroupNorm(groups=self.features, min_channels=1)(h)
        elif self.norm == "group":
            h = GroupNorm()(h)
        h = Modulation("add", self.dtype)(h, e)
        h = h if self.activation is None else activate(self.activation, h)
        return nn.Dropout(self.dropout, deterministic=not train)(h)


class UNetGenerator(ConditionalNetwork):
    """Encoder and decoder with skips.

    Attributes:
        channels: of each resolution, finest first; space is halved between them.
        norm: see `Layer`; "instance" maps a map of one pixel to zero.
        dropout: probability of dropping a feature in the `noisy` coarsest layers of the decoder: the noise of
            Pix2Pix, also on when sampling.
        noisy: number of layers with dropout.
        bounded: tanh output, for images in [-1, 1].
        time: kind of the time features, if t is passed.
        time_scale: see `blocks.Conditioning.scale`.
        dtype: of the computations in all but the last layer.
    """

    channels: tuple[int, ...] = (32, 64, 128, 128)
    norm: PlaneNorm = "group"
    dropout: float = 0.0
    noisy: int = 3
    bounded: bool = True
    time: TimeFeatures = "sinusoidal"
    time_scale: float = 1000.0
    dtype: str = "float32"

    def forward(self, x: Array, t: Times, cond: Vector, out: Outputs, train: bool) -> Array:
        """Maps images to images of the same size.

        Args:
            x: images [b, h, w, c].
            t: times [b], or None.
            cond: conditioning vectors [b, k], or None.
            out: o, or (h, w, o).
            train: whether dropout is on.

        Returns:
            float32 [b, h, w, o].

        Raises:
            UserError: `out` has another height or width than x.
        """
        features = kept(x.shape[1:3], out)
        first = self.channels[0]
        e = Conditioning(first - first % 2, 4 * first, self.time, self.time_scale, name="embed")(t, cond)
        h = Layer(first, norm="none", activation="leaky_relu", dtype=self.dtype, name="in")(x)
        skips = []
        for level, c in enumerate(self.channels[1:]):
            skips.append(h)
            h = Layer(c, 4, "down", self.norm, "leaky_relu", dtype=self.dtype, name=f"down_{level}")(h, e)
        for level in reversed(range(len(skips))):
            drop = self.dropout if len(skips) - level <= self.noisy else 0.0
            up = Layer(
                self.channels[level],
                change="up",
                norm=self.norm,
                dropout=drop,
                dtype=self.dtype,
                name=f"up_{level}",
            )
            h = up(h, e, train)[:, : skips[level].shape[1], : skips[level].shape[2]]
            h = jnp.concatenate([h, skips[level]], axis=-1)
        image = Conv(features, name="out")(h.astype(jnp.float32))
        return jnp.tanh(image) if self.bounded else image


class ResNetGenerator(ConditionalNetwork):
    """Residual image-to-image network.

    Attributes:
        channels: of each resolution, finest first; space is halved between them, and doubled again.
        depth: residual blocks at the coarsest resolution.
        norm: see `Layer`.
        dropout: probability of dropping a feature within the blocks, in training.
        bounded: tanh output, for images in [-1, 1].
        time: kind of the time features, if t is passed.
        time_scale: see `blocks.Conditioning.scale`.
        dtype: of the computations in all but the last layer.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    depth: int = 6
    norm: PlaneNorm = "instance"
    dropout: float = 0.0
    bounded: bool = True
    time: TimeFeatures = "sinusoidal"
    time_scale: float = 1000.0
    dtype: str = "float32"

    def forward(self, x: Array, t: Times, cond: Vector, out: Outputs, train: bool) -> Array:
        """Maps images to images of the same size.

        Args:
            x: images [b, h, w, c].
            t: times [b], or None.
            cond: conditioning vectors [b, k], or None.
            out: o, or (h, w, o).
            train: whether dropout is on.

        Returns:
            float32 [b, h, w, o].

        Raises:
            UserError: `out` has another height or width than x.
        """
        features, levels = kept(x.shape[1:3], out), len(self.channels) - 1
        first, last = self.channels[0], self.channels[-1]
        e = Conditioning(first - first % 2, 4 * first, self.time, self.time_scale, name="embed")(t, cond)
        layer = lambda name, c, size=3, change="none", activation="relu", dropout=0.0: Layer(
            c, size, change, self.norm, activation, dropout, self.dtype, name=name
        )
        h = layer("in", first, 5)(x, e)
        for level, c in enumerate(self.channels[1:]):
            h = layer(f"down_{level}", c, change="down")(h, e)
        for block in range(self.depth):
            r = layer(f"block_{block}_in", last, dropout=self.dropout)(h, e, train)
            h = h + layer(f"block_{block}_out", last, activation=None)(r, e)
        for level in reversed(range(levels)):
            size = halved(x.shape[1], level), halved(x.shape[2], level)
            h = layer(f"up_{level}", self.channels[level], change="up")(h, e)[:, : size[0], : size[1]]
        image = Conv(features, (5, 5), name="out")(h.astype(jnp.float32))
        return jnp.tanh(image) if self.bounded else image
