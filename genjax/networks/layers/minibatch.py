"""Batch statistics for discriminators, against mode collapse of the generator.

    MinibatchStd    mean over features of their standard deviation over a group of examples, as one more feature
                    (Karras et al. 2018, arXiv:1710.10196, section 3)
    Discrimination  o_b(i) = sum_{j != i} exp(-|M_{i,b} - M_{j,b}|_1),  M_i = f(x_i) T in R^{B x C}, as B more features
                    (Salimans et al. 2016, arXiv:1606.03498, section 3.2)

They couple the examples of a batch, unlike all other networks here: gradient penalties then include the effect of an
example on its group. `WithMinibatch` appends either to any network.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genjax.core.types import Array
from genjax.networks.layers.linen import Activation, Dense, activate
from genjax.networks.layers.network import ConditionalNetwork, Outputs, Times, Vector


def group_std(x: Float[Array, "b *n c"], size: int = 4) -> Float[Array, " b"]:
    """The standard deviation of each feature over a group, averaged over features.

    Args:
        x: features.
        size: maximum size of a group; the largest divisor of b is used. Example i is in group i mod (b / size).

    Returns:
        The value of each example's group.
    """
    b = x.shape[0]
    members = max(n for n in range(1, min(size, b) + 1) if b % n == 0)
    groups = x.reshape(members, b // members, -1)
    std = jnp.sqrt(jnp.var(groups, axis=0) + 1e-8)
    return jnp.tile(jnp.mean(std, axis=-1), members)


class MinibatchStd(nn.Module):
    """Appends the standard deviation within a group as a channel.

    Attributes:
        group: maximum size of a group.
    """

    group: int = 4

    @nn.compact
    def __call__(self, x: Float[Array, "b *n c"]) -> Float[Array, "b *n d"]:
        """Appends `group_std` to the channels, constant over space."""
        std = group_std(x, self.group).reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.concatenate([x, jnp.broadcast_to(std, (*x.shape[:-1], 1))], axis=-1)


def closeness(m: Float[Array, "b B C"]) -> Float[Array, "b B"]:
    """o_b(i) = sum over the other examples of exp(-|M_{i,b} - M_{j,b}|_1)."""
    distance = jnp.sum(jnp.abs(m[:, None] - m[None]), axis=-1)
    others = 1.0 - jnp.eye(len(m), dtype=m.dtype)
    return jnp.sum(jnp.exp(-distance) * others[..., None], axis=1)


class MinibatchDiscrimination(nn.Module):
    """Appends features that measure the closeness to the other examples.

    Attributes:
        kernels: B, number of features.
        dims: C, dimensions of the space of each feature.
    """

    kernels: int = 16
    dims: int = 8

    @nn.compact
    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
        """Appends `closeness` of a linear map of the features."""
        m = Dense(self.kernels * self.dims, use_bias=False, name="tensor")(x)
        return jnp.concatenate([x, closeness(m.reshape(len(x), self.kernels, self.dims))], axis=-1)


class WithMinibatch(ConditionalNetwork):
    """Any network as a discriminator with batch statistics: network, activation, minibatch part, affine layer.

    Attributes:
        net: feature network, called with out=width.
        part: the minibatch part.
        width: number of features.
        activation: activation of the features.
        group: see `MinibatchStd`.
        kernels: see `MinibatchDiscrimination`.
        dims: see `MinibatchDiscrimination`.
    """

    net: nn.Module
    part: Literal["std", "discrimination"] = "std"
    width: int = 64
    activation: Activation = "leaky_relu"
    group: int = 4
    kernels: int = 16
    dims: int = 8

    def forward(self, x: Array, t: Times, cond: Vector, out: Outputs, train: bool) -> Array:
        """Maps x to outputs, each row a function of the whole batch.

        Args:
            x: input of the network.
            t: times, or None.
            cond: conditioning vector, or None.
            out: shape of the output of an example, or its size.
            train: passed to the network.

        Returns:
            float32 [b, out] or [b, *out].
        """
        shape = (out,) if isinstance(out, int) else out
        h = activate(self.activation, self.net(x, t, cond, out=self.width, train=train))
        if self.part == "std":
            h = MinibatchStd(self.group, name="std")(h)
        else:
            h = MinibatchDiscrimination(self.kernels, self.dims, name="discrimination")(h)
        return Dense(int(np.prod(shape)), name="out")(h).reshape(-1, *shape)
