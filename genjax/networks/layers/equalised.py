"""Layers with an equalised learning rate, and convolutions modulated by a style.

Equalised learning rate (Karras et al. 2018, arXiv:1710.10196, section 4.1): a kernel is kept as w ~ N(0, 1) / m and
used as m w / sqrt(fan_in), so that optimizers whose step does not depend on the gradient's scale change every layer
by the same relative amount; m is the layer's learning-rate multiplier.

Modulated convolution (Karras et al. 2020, arXiv:1912.04958, equations 1 and 3), s the style of an example:

    w'_ijk  = s_i w_ijk,      w''_ijk = w'_ijk / sqrt(sum_{i,k} w'_ijk^2 + epsilon),      y = w'' * x.

Both factors are constant over space, so y = d_j (w * (s x)) with d_j = 1 / sqrt(sum_i s_i^2 sum_k w_ijk^2 + epsilon):
one convolution with a kernel that the whole batch shares.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.sharding_rules import gather_parameter
from genjax.core.types import Array
from genjax.networks.layers import ops
from genjax.networks.layers.linen import add, zeros

EPSILON = 1e-8
GAIN = 2**0.5  # of the leaky rectifier, so that it keeps the mean square


def leaky(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """sqrt(2) times the leaky rectifier of slope 0.2."""
    return GAIN * jax.nn.leaky_relu(x, 0.2)


def unit_rms(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """x / sqrt(mean x^2 + epsilon) over the last axis, float32."""
    x = ops.wide(x)
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + EPSILON)


def modulated_conv(
    x: Float[Array, "b *n i"],
    kernel: Float[Array, "*k i o"],
    style: Float[Array, "b i"],
    demodulate: bool = True,
) -> Float[Array, "b *n o"]:
    """Convolves each example with its own modulated kernel (equations 1 and 3, see the module's docstring).

    Args:
        x: input, any number of spatial axes.
        kernel: shared by the batch.
        style: factor of each input channel, float32.
        demodulate: normalise each output channel's kernel; False leaves w'.

    Returns:
        [b, *n, o] in the dtype of x, "SAME" padding.
    """
    over = lambda factor: factor.reshape(len(x), *(1,) * (x.ndim - 2), -1).astype(x.dtype)
    y = ops.conv(x * over(style), kernel.astype(x.dtype))
    if not demodulate:
        return y
    energy = jnp.sum(ops.wide(kernel) ** 2, axis=tuple(range(kernel.ndim - 2)))
    return y * over(jax.lax.rsqrt(style**2 @ energy + EPSILON))


class EqualDense(nn.Module):
    """Affine map of the last axis with an equalised learning rate.

    Attributes:
        features: output size.
        multiplier: m, of kernel and bias.
        bias: initial value of the bias.
        use_bias: whether a bias is added.
        dtype: dtype of the computation.
    """

    features: int
    multiplier: float = 1.0
    bias: float = 0.0
    use_bias: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b *n i"]) -> Float[Array, "b *n o"]:
        """Maps [..., in] to [..., features]."""
        normal = nn.initializers.normal(1.0 / self.multiplier)
        kernel = gather_parameter(self.param("kernel", normal, (x.shape[-1], self.features), jnp.float32))
        kernel = kernel * (self.multiplier * x.shape[-1] ** -0.5)
        y = ops.dense(x.astype(self.dtype), kernel.astype(self.dtype))
        if not self.use_bias:
            return y
        start = nn.initializers.constant(self.bias / self.multiplier)
        return add(y, self.param("bias", start, (self.features,), jnp.float32) * self.multiplier)


class EqualConv(nn.Module):
    """Convolution with an equalised learning rate, modulated if it is given a style.

    Attributes:
        features: output channels.
        size: extent of the kernel along each spatial axis.
        demodulate: see `modulated_conv`.
        use_bias: whether a bias is added.
        dtype: dtype of the computation.
    """

    features: int
    size: Literal[1, 3] = 3
    demodulate: bool = True
    use_bias: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b *n i"],
        style: Float[Array, "b d"] | None = None,
        noise: Float[Array, "b *n 1"] | None = None,
    ) -> Float[Array, "b *n o"]:
        """Convolves x.

        Args:
            x: input.
            style: style vector, or None for a plain convolution.
            noise: added to the normalised output, before the bias; or None.

        Returns:
            The output in `dtype`.
        """
        i = x.shape[-1]
        shape = (*(self.size,) * (x.ndim - 2), i, self.features)
        kernel = gather_parameter(self.param("kernel", nn.initializers.normal(1.0), shape, jnp.float32))
        kernel = kernel * (i * self.size ** (x.ndim - 2)) ** -0.5
        x = x.astype(self.dtype)
        if style is None:
            y = ops.conv(x, kernel.astype(self.dtype))
        else:
            factor = EqualDense(i, bias=1.0, name="style")(style)
            y = modulated_conv(x, kernel, factor, self.demodulate)
        if noise is not None:
            y = y + noise.astype(y.dtype)
        if not self.use_bias:
            return y
        return add(y, self.param("bias", zeros, (self.features,), jnp.float32))
