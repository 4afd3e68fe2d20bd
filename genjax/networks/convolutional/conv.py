"""Convolutional encoder and decoder: images to vectors or feature maps, and back.

The encoder serves as the recognition model of a VAE, as the discriminator or critic of a GAN (no layer couples the
examples of a batch) and as a small classifier; the decoder as a VAE's decoder and a GAN's generator. Both consist of
the residual blocks of `blocks`, modulated by time and cond.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array
from genjax.networks.layers.blocks import Conditioning, Embedding, ResBlock, TimeFeatures
from genjax.networks.layers.linen import Activation, Conv, Dense, GroupNorm, activate, lecun, zeros
from genjax.networks.layers.network import ConditionalNetwork, Outputs, Times, Vector
from genjax.networks.layers.resample import Downsample, Upsample

Norm = Literal["group", "none"]


def halved(n: int, times: int) -> int:
    """Size of an axis after `times` halvings, rounding up."""
    return -(-n // 2**times)


def check_image(out: int | tuple[int, ...], maker: str) -> tuple[int, ...]:
    """Returns `out`; `maker` names the network in the error message.

    Raises:
        UserError: `out` is not an image shape (h, w, c).
    """
    if isinstance(out, int) or len(out) != 3:
        raise UserError(f"{maker} outputs images: out must be (h, w, c), not {out}")
    return out


def coarsest(
    x: Float[Array, "b n"],
    t: Float[Array, " b"] | None,
    cond: Float[Array, "b k"] | None,
    out: tuple[int, ...],
    channels: tuple[int, ...],
) -> tuple[Array, Embedding]:
    """The first layers of a generator, called within its scope: a map of the image's size halved len(channels) times.

    Args:
        x: vectors [b, n].
        t: times [b], or None.
        cond: conditioning vectors [b, k], or None.
        out: (h, w, c) of the image.
        channels: of each level, coarsest first.

    Returns:
        (the map [b, h', w', channels[0]], the embedding of t and cond).
    """
    grid, first = (halved(out[0], len(channels)), halved(out[1], len(channels))), channels[0]
    e = Conditioning(first - first % 2, first, name="embed")(t, cond)
    return Dense(grid[0] * grid[1] * first, name="in")(x).reshape(-1, *grid, first), e


def _block(net: "ConvEncoder | ConvDecoder", channels: int) -> ResBlock:
    """The residual block of encoder and decoder, configured by `net`."""
    return ResBlock(
        channels,
        net.norm,
        net.activation,
        rescale=True,
        zero=False,
        dropout=net.dropout,
        dtype=net.dtype,
    )


class ConvEncoder(nn.Module):
    """Image to vector or feature map: at each level a residual block, then downsampling by 2.

    Attributes:
        channels: channels of each level; their number is that of the downsampling steps.
        width: size of the penultimate features.
        norm: "group" or "none"; neither couples examples.
        activation: the non-linearity; "leaky_relu" is usual for critics.
        time: kind of the time features, if t is passed.
        time_scale: see `blocks.Conditioning.scale`.
        zero_out: initialise the output layer to zero.
        dropout: probability of dropping a feature, in training.
        dtype: of the computations in all but the last layers.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    width: int = 256
    norm: Norm = "group"
    activation: Activation = "silu"
    time: TimeFeatures = "sinusoidal"
    time_scale: float = 1000.0
    zero_out: bool = False
    dropout: float = 0.0
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
        features: bool = False,
    ) -> Float[Array, "b *m"]:
        """Encodes images.

        Args:
            x: images [b, h, w, c].
            t: times [b], or None.
            cond: conditioning vectors [b, k], or None.
            out: an int k (or (k,)) for vectors [b, k]; (h', w', k) for feature maps, where h' and w' are h
                and w halved len(channels) times, rounding up.
            train: whether dropout is on.
            features: return the penultimate features [b, width] instead (for metrics).

        Returns:
            float32 [b, *out], or [b, width].

        Raises:
            UserError: `out` is a map of another spatial shape, or `features` with a map.
        """
        shape = (out,) if isinstance(out, int) else out
        e = Conditioning(self.channels[0], 4 * self.channels[0], self.time, self.time_scale, name="embed")(
            t, cond
        )
        h = Conv(self.channels[0], dtype=self.dtype, name="in")(x)
        for c in self.channels:
            h = _block(self, c)(h, e, train)
            h = Downsample(dtype=self.dtype)(h)
        h = GroupNorm(name="out_norm")(h) if self.norm == "group" else h
        h = activate(self.activation, h).astype(jnp.float32)
        init = zeros if self.zero_out else lecun
        if len(shape) == 3:
            if h.shape[1:-1] != shape[:-1] or features:
                fits = (*h.shape[1:-1], shape[-1])
                raise UserError(
                    f"this encoder outputs maps of shape {fits}, not {shape}; `features` needs a vector output"
                )
            return Conv(shape[-1], (1, 1), kernel_init=init, name="out")(h)
        h = activate(self.activation, Dense(self.width, name="features")(h.reshape(h.shape[0], -1)))
        return (
            h if features else Dense(int(np.prod(shape)), kernel_init=init, name="out")(h).reshape(-1, *shape)
        )


class ConvDecoder(ConditionalNetwork):
    """Vector or feature map to image: at each level upsampling by 2, then a residual block.

    Starts from the image's size halved len(channels) times (rounding up), and crops after each upsampling, so any
    image shape is possible.

    Attributes:
        channels: channels of each level, coarsest first; their number is that of the upsampling steps.
        norm: "group" or "none"; neither couples examples.
        activation: the non-linearity.
        time: kind of the time features, if t is passed.
        time_scale: see `blocks.Conditioning.scale`.
        zero_out: initialise the output layer to zero.
        dropout: probability of dropping a feature, in training.
        dtype: of the computations in all but the last layer.
    """

    channels: tuple[int, ...] = (128, 64, 32)
    norm: Norm = "group"
    activation: Activation = "silu"
    time: TimeFeatures = "sinusoidal"
    time_scale: float = 1000.0
    zero_out: bool = False
    dropout: float = 0.0
    dtype: str = "float32"

    def forward(self, x: Array, t: Times, cond: Vector, out: Outputs, train: bool) -> Array:
        """Decodes latents.

        Args:
            x: vectors [b, d], or feature maps [b, h', w', d] of the encoder's coarsest shape.
            t: times [b], or None.
            cond: conditioning vectors [b, k], or None.
            out: (h, w, c) of the images.
            train: whether dropout is on.

        Returns:
            float32 [b, h, w, c].

        Raises:
            UserError: `out` is not an image shape, or x is a map of another shape than the coarsest.
        """
        out = check_image(out, "a decoder")
        h = self._start(x, (halved(out[0], len(self.channels)), halved(out[1], len(self.channels))))
        e = Conditioning(self.channels[-1], 4 * self.channels[-1], self.time, self.time_scale, name="embed")(
            t, cond
        )
        for i, c in enumerate(self.channels):
            left = len(self.channels) - 1 - i
            h = Upsample(c, dtype=self.dtype)(h)[:, : halved(out[0], left), : halved(out[1], left)]
            h = _block(self, c)(h, e, train)
        h = GroupNorm(name="out_norm")(h) if self.norm == "group" else h
        h = activate(self.activation, h).astype(jnp.float32)
        return Conv(out[-1], kernel_init=zeros if self.zero_out else lecun, name="out")(h)

    def _start(self, x: Array, grid: tuple[int, int]) -> Array:
        """Maps the code to the coarsest grid."""
        if x.ndim == 2:
            h = Dense(grid[0] * grid[1] * self.channels[0], dtype=self.dtype, name="in")(x)
            return h.reshape(x.shape[0], *grid, self.channels[0])
        if x.shape[1:-1] != grid:
            raise UserError(f"this decoder takes vectors, or maps of {grid}, not of {x.shape[1:-1]}")
        return Conv(self.channels[0], dtype=self.dtype, name="in")(x)
