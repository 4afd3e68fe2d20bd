"""Multilayer perceptron: affine layers and non-linearities only.

h_0 = x,   h_{l+1} = f(W_l h_l + b_l),   y = W_L h_L + b_L;   time and cond are added to the first layer's
pre-activation.
"""

import flax.linen as nn
import numpy as np

from genjax.core.types import Array
from genjax.networks.layers.blocks import Conditioning, Modulation
from genjax.networks.layers.linen import Activation, Dense, activate
from genjax.networks.layers.network import ConditionalNetwork, Outputs, Times, Vector


class FeedForward(ConditionalNetwork):
    """Multilayer perceptron without norms or skip connections.

    Attributes:
        widths: features of the hidden layers.
        activation: the non-linearity.
        dropout: probability of dropping a hidden feature, in training.
    """

    widths: tuple[int, ...] = (200, 200)
    activation: Activation = "tanh"
    dropout: float = 0.0

    def forward(self, x: Array, t: Times, cond: Vector, out: Outputs, train: bool) -> Array:
        """Applies the network to flattened inputs; the parameters depend on the size of x.

        Args:
            x: [b, *n].
            t: times [b], or None.
            cond: conditioning vectors [b, k], or None.
            out: k, or the output shape of one example.
            train: whether dropout is on.

        Returns:
            float32 [b, *out].
        """
        shape = (out,) if isinstance(out, int) else out
        e = Conditioning(self.widths[0] - self.widths[0] % 2, self.widths[0])(t, cond)
        h = x.reshape(x.shape[0], -1)
        for layer, width in enumerate(self.widths):
            h = Dense(width)(h)
            h = activate(self.activation, h if layer else Modulation("add")(h, e))
            h = nn.Dropout(self.dropout, deterministic=not train)(h)
        return Dense(int(np.prod(shape)), name="out")(h).reshape(x.shape[0], *shape)
