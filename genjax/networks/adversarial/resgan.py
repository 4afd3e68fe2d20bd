"""Residual generator and discriminator (Gulrajani et al. 2017, arXiv:1704.00028; Miyato et al. 2018, arXiv:1802.05957).

    generator      z -> affine -> map -> [residual block, doubling space] ... -> norm - relu - 3x3 convolution - tanh
    discriminator  x -> [residual block, halving space] ... -> [residual block] ... -> relu -> sum over space -> affine

The discriminator's first block has no activation before its first convolution. It has no norms: `SpectralNorm` is
applied by the objective, and gradient penalties forbid norms that couple examples.
"""

from typing import Literal

import jax.numpy as jnp
import numpy as np

from genjax.core.errors import UserError
from genjax.core.types import Array
from genjax.networks.convolutional.conv import Norm, check_image, coarsest, halved
from genjax.networks.layers import ops
from genjax.networks.layers.blocks import Conditioning, ResBlock
from genjax.networks.layers.linen import Activation, Conv, Dense, GroupNorm, activate
from genjax.networks.layers.network import ConditionalNetwork, Outputs, Times, Vector


class ResGenerator(ConditionalNetwork):
    """Vectors to images; labels modulate each block's second norm (Miyato & Koyama 2018).

    Attributes:
        channels: of each level, coarsest first; their number is that of the upsampling steps.
        norm: "group" or "none".
        activation: the non-linearity.
        tanh: tanh output, for data in [-1, 1].
        dropout: probability of dropping a feature within a block, in training.
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
        out, levels = check_image(out, "a residual generator"), len(self.channels)
        h, e = coarsest(x, t, cond, out, self.channels)
        for left, channels in zip(reversed(range(levels)), self.channels, strict=True):
            h = ResBlock(channels, self.norm, self.activation, zero=False, dropout=self.dropout, change="up")(
                h, e, train
            )
            h = h[:, : halved(out[0], left), : halved(out[1], left)]
        h = GroupNorm(name="out_norm")(h) if self.norm == "group" else h
        h = Conv(out[-1], name="out")(activate(self.activation, h))
        return jnp.tanh(h) if self.tanh else h


class ResDiscriminator(ConditionalNetwork):
    """Images to vectors.

    Attributes:
        channels: of each level, finest first; each halves space.
        blocks: number of further blocks at the coarsest resolution.
        activation: the non-linearity.
        dropout: probability of dropping a feature within a block, in training.
    """

    channels: tuple[int, ...] = (64, 128)
    blocks: int = 1
    activation: Activation = "relu"
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

        Raises:
            UserError: height or width is not divisible by 2^levels.
        """
        shape = (out,) if isinstance(out, int) else out
        levels, first = len(self.channels), self.channels[0]
        if any(size % 2**levels for size in x.shape[1:-1]):
            raise UserError(
                f"images of {x.shape[1:-1]} cannot be halved {levels} times: use fewer channels than {self.channels}"
            )
        e = Conditioning(first - first % 2, first, name="embed")(t, cond)
        h = Conv(first, name="in_first")(x)
        h = Conv(first, name="in_second")(activate(self.activation, h))
        h = ops.average_pool(h) + Conv(first, (1, 1), name="in_skip")(ops.average_pool(x))
        plan: list[tuple[int, Literal["down", "none"]]] = [(c, "down") for c in self.channels[1:]]
        plan += [(self.channels[-1], "none")] * self.blocks
        for channels, change in plan:
            h = ResBlock(channels, "none", self.activation, zero=False, dropout=self.dropout, change=change)(
                h, e, train
            )
        h = jnp.sum(activate(self.activation, h), axis=(1, 2))
        return Dense(int(np.prod(shape)), name="out")(h).reshape(-1, *shape)
