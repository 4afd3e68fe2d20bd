"""Residual multilayer perceptron conditioned on time and on a vector, for data without a grid.

    h_0 = W x,   h_{l+1} = h_l + V_l silu(norm(U_l silu(norm(h_l))) (1 + s_l) + m_l),   y = O silu(norm(h_L)),

with (s_l, m_l) = P_l silu(e), see `blocks.Conditioning`.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from genjax.core.types import Array
from genjax.networks.layers.blocks import Conditioning, Modulation, TimeFeatures
from genjax.networks.layers.linen import Activation, Dense, GroupNorm, activate, lecun, zeros
from genjax.networks.layers.network import ConditionalNetwork, Outputs, Times, Vector


class MLP(ConditionalNetwork):
    """Residual multilayer perceptron.

    Attributes:
        width: features of the hidden layers.
        depth: number of residual blocks, each of two layers.
        activation: the non-linearity.
        time: kind of the time features; there are `width` of them (one fewer if odd).
        time_scale: see `blocks.Conditioning.scale`: 1000 for sinusoidal features of t in [0, 1].
        zero_out: initialise the output layer to zero.
        dropout: probability of dropping a hidden feature, in training.
        dtype: of the computations in hidden layers.
    """

    width: int = 128
    depth: int = 3
    activation: Activation = "silu"
    time: TimeFeatures = "sinusoidal"
    time_scale: float = 1000.0
    zero_out: bool = False
    dropout: float = 0.0
    dtype: str = "float32"

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
        e = Conditioning(self.width - self.width % 2, self.width, self.time, self.time_scale)(t, cond)
        h = Dense(self.width, dtype=self.dtype, name="in")(x.reshape(x.shape[0], -1))
        for _ in range(self.depth):
            r = activate(self.activation, GroupNorm(groups=1)(h))
            r = Dense(self.width, dtype=self.dtype)(r)
            r = Modulation(dtype=self.dtype)(GroupNorm(groups=1)(r), e)
            r = nn.Dropout(self.dropout, deterministic=not train)(activate(self.activation, r))
            h = h + Dense(self.width, dtype=self.dtype)(r)
        h = activate(self.activation, GroupNorm(groups=1)(h)).astype(jnp.float32)
        init = zeros if self.zero_out else lecun
        y = Dense(int(np.prod(shape)), kernel_init=init, name="out")(h)
        return y.reshape(x.shape[0], *shape)
