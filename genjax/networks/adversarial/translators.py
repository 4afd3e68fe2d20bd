"""Networks from pictures to pictures.

    UNetGenerator     Isola et al. 2017 (Pix2Pix, arXiv:1611.07004, section 3.2.1): an encoder and a decoder with a
                      skip between layers of the same size
    ResNetGenerator   Johnson et al. 2016 as in Zhu et al. 2017 (CycleGAN, arXiv:1703.10593, section 4): halved,
                      residual blocks, doubled

Instead of transposed convolutions space is doubled by nearest neighbours and a 3 x 3 convolution.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array
from genjax.networks.convolutional.conv import halved
from genjax.networks.layers.blocks import Conditioning, Embedding, Modulation, TimeFeatures
from genjax.networks.layers.linen import Activation, Conv, GroupNorm, activate
from genjax.networks.layers.resample import Upsample

PlaneNorm = Literal["instance", "group", "none"]


class Layer(nn.Module):
    """Convolution, normalisation, modulation by e, activation, dropout.

    Attributes:
        features: output channels.
        size: extent of the kernel along both axes.
        change: of space: by the convolution's stride, or by nearest neighbours before it.
        norm: of each channel of an example ("instance"), of groups of them ("group"), or none.
        activation: the non-linearity; None for none.
        dropout: probability of dropping a feature, in training.
        dtype: in which it computes.
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
        """Maps channels i to `features`; sizes halved are rounded up."""
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


def _image_shape(x: Array, out: int | tuple[int, ...]) -> tuple[int, ...]:
    """(h, w, c) of pictures of the input's size.

    Raises:
        UserError: `out` has another height or width.
    """
    shape = (*x.shape[1:3], out) if isinstance(out, int) else out
    if shape[:-1] != x.shape[1:3]:
        raise UserError(f"a translator keeps the shape {x.shape[1:3]}, so out={out} should begin with it")
    return shape


class UNetGenerator(nn.Module):
    """Encoder and decoder with skips.

    Attributes:
        channels: of each resolution, finest first; space is halved between them.
        norm: see `Layer`; "instance" leaves nothing of a map of one pixel.
        dropout: probability of dropping a feature in the `noisy` coarsest layers of the decoder: the noise of
            Pix2Pix, which is drawn in sampling too.
        noisy: how many layers have dropout.
        bounded: put tanh behind the last layer, for pictures in [-1, 1].
        time: kind of the time features, if the network is given t.
        time_scale: see `blocks.Conditioning.scale`.
        dtype: in which all but the last layer compute.
    """

    channels: tuple[int, ...] = (32, 64, 128, 128)
    norm: PlaneNorm = "group"
    dropout: float = 0.0
    noisy: int = 3
    bounded: bool = True
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
        out: int | tuple[int, ...],
        train: bool = False,
    ) -> Float[Array, "b h w o"]:
        """Maps pictures to pictures of the same size, float32 [b, h, w, o]; `out` is o or (h, w, o)."""
        shape = _image_shape(x, out)
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
        image = Conv(shape[-1], name="out")(h.astype(jnp.float32))
        return jnp.tanh(image) if self.bounded else image


class ResNetGenerator(nn.Module):
    """Residual translator.

    Attributes:
        channels: of each resolution, finest first; space is halved between them, and doubled again.
        depth: residual blocks at the coarsest resolution.
        norm: see `Layer`.
        dropout: probability of dropping a feature within the blocks, in training.
        bounded: put tanh behind the last layer, for pictures in [-1, 1].
        time: kind of the time features, if the network is given t.
        time_scale: see `blocks.Conditioning.scale`.
        dtype: in which all but the last layer compute.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    depth: int = 6
    norm: PlaneNorm = "instance"
    dropout: float = 0.0
    bounded: bool = True
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
        out: int | tuple[int, ...],
        train: bool = False,
    ) -> Float[Array, "b h w o"]:
        """Maps pictures to pictures of the same size, float32 [b, h, w, o]; `out` is o or (h, w, o)."""
        shape, levels = _image_shape(x, out), len(self.channels) - 1
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
        image = Conv(shape[-1], (5, 5), name="out")(h.astype(jnp.float32))
        return jnp.tanh(image) if self.bounded else image
