"""A residual convolutional network at constant resolution, e.g. the conditioner of image couplings."""

import jax.numpy as jnp

from genjax.core.types import Array
from genjax.networks.layers.blocks import Conditioning, ResBlock, TimeFeatures
from genjax.networks.layers.linen import Activation, Conv, GroupNorm, activate, lecun, zeros
from genjax.networks.layers.network import ConditionalNetwork, Outputs, Times, Vector, kept


class ResNet(ConditionalNetwork):
    """Convolution, residual blocks, convolution, all at the image's resolution.

    Attributes:
        width: channels of the hidden layers.
        depth: number of residual blocks, each of two convolutions.
        activation: the non-linearity.
        time: kind of the time features, if t is passed.
        time_scale: see `blocks.Conditioning.scale`.
        zero_out: initialise the output layer to zero.
        dropout: probability of dropping a feature, in training.
        dtype: of the computations in all but the last layer.
    """

    width: int = 32
    depth: int = 2
    activation: Activation = "silu"
    time: TimeFeatures = "sinusoidal"
    time_scale: float = 1000.0
    zero_out: bool = True
    dropout: float = 0.0
    dtype: str = "float32"

    def forward(self, x: Array, t: Times, cond: Vector, out: Outputs, train: bool) -> Array:
        """Applies the network to images.

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
        e = Conditioning(self.width - self.width % 2, self.width, self.time, self.time_scale, name="embed")(
            t, cond
        )
        h = Conv(self.width, dtype=self.dtype, name="in")(x)
        for _ in range(self.depth):
            h = ResBlock(
                self.width, activation=self.activation, zero=False, dropout=self.dropout, dtype=self.dtype
            )(h, e, train)
        h = activate(self.activation, GroupNorm(name="out_norm")(h)).astype(jnp.float32)
        return Conv(features, kernel_init=zeros if self.zero_out else lecun, name="out")(h)
