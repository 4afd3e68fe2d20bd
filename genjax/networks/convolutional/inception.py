"""The Inception-v3 (Szegedy et al. 2015, arXiv:1512.00567) whose features define the Fréchet Inception distance (FID).

It is the network of TensorFlow's file inception-2015-12-05, not that of the paper nor of torchvision:

- average pools within blocks divide by the number of positions inside the image, not by 9;
- the last block, Mixed_7c, uses max pooling where the paper uses average pooling;
- batch norm is y = (x - mean) / sqrt(var + 0.001) * scale + bias with running statistics, convolutions have no bias;
- 1008 logits; the Inception Score omits their bias: Salimans et al.'s program multiplies pool3 by the matrix of
  "softmax/logits/MatMul" without adding it, and torch-fidelity's default is its "logits_unbiased" too.

Images are resized as pytorch-fid does: to 299 x 299, bilinear, half-pixel centres (align_corners=False), without
antialiasing, in [0, 1], and then mapped to [-1, 1] by 2 x - 1. TensorFlow's graph, and torch-fidelity after it, has
pixel corners at the origin and (x - 128) / 128 instead, which changes FID slightly: state which one is used.

Names are torchvision's, so that parameters have the same paths as in `pt_inception-2015-12-05-6726825d.pth`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array
from genjax.networks.layers import ops
from genjax.networks.layers.linen import Conv, Dense, zeros

SIDE, FEATURES, LOGITS = 299, 2048, 1008
EPSILON = 1e-3  # of batch norm
ones = nn.initializers.ones


def resize(x: Float[Array, "b h w c"], side: int = SIDE) -> Float[Array, "b s s c"]:
    """Bilinear interpolation at half-pixel centres, without antialiasing: as PyTorch's with align_corners=False.

    Output p lies at q = (p + 1/2) n / side - 1/2, clipped to [0, n - 1], between input floor(q) and the next.
    """
    shape = (x.shape[0], side, side, x.shape[-1])
    return jax.image.resize(x, shape, "bilinear", antialias=False)


def mean_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Mean of the 3 x 3 neighbours inside the image."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Maximum of the 3 x 3 neighbours inside the image."""
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


def halve(x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
    """3 x 3 max pooling with stride 2, without padding."""
    return nn.max_pool(x, (3, 3), (2, 2), "VALID")


class Unit(nn.Module):
    """Convolution without bias, batch norm with fixed statistics, ReLU.

    Attributes:
        features: output channels.
        kernel_size: of the convolution.
        strides: 1, or 2 with padding "VALID".
        padding: "SAME" or "VALID".
    """

    features: int
    kernel_size: tuple[int, int] = (1, 1)
    strides: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        """Applies the layer; float32."""
        shape = (self.features,)
        y = Conv(self.features, self.kernel_size, self.strides, self.padding, use_bias=False, name="conv")(x)
        scale, bias = self.param("scale", ones, shape), self.param("bias", zeros, shape)
        mean, var = self.param("mean", zeros, shape), self.param("var", ones, shape)
        factor = scale * jax.lax.rsqrt(var + EPSILON)
        along = lambda vector: ops.along_last(vector, y.ndim)
        return jax.nn.relu(y * along(factor) + along(bias - mean * factor))


def square(features: int, size: int, name: str) -> Unit:
    """A unit with a square kernel.

    Args:
        features: output channels.
        size: of the kernel.
        name: of the module.

    Returns:
        The module.
    """
    return Unit(features, (size, size), name=name)


def row(features: int, size: int, name: str) -> Unit:
    """A unit with a kernel along the width.

    Args:
        features: output channels.
        size: of the kernel.
        name: of the module.

    Returns:
        The module.
    """
    return Unit(features, (1, size), name=name)


def column(features: int, size: int, name: str) -> Unit:
    """A unit with a kernel along the height.

    Args:
        features: output channels.
        size: of the kernel.
        name: of the module.

    Returns:
        The module.
    """
    return Unit(features, (size, 1), name=name)


def reduce(features: int, name: str) -> Unit:
    """A unit with a 3 x 3 kernel of stride 2, without padding."""
    return Unit(features, (3, 3), 2, "VALID", name=name)


def chain(x: Array, *units: Unit) -> Array:
    """Applies units in sequence."""
    for unit in units:
        x = unit(x)
    return x


def join(*branches: Array) -> Array:
    """Concatenates the channels of all branches."""
    return jnp.concatenate(branches, axis=-1)


class MixedA(nn.Module):
    """Block at 35 x 35 positions: kernels up to 5 x 5."""

    pooled: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h w o"]:
        """64 + 64 + 96 + `pooled` channels."""
        return join(
            Unit(64, name="branch1x1")(x),
            chain(x, Unit(48, name="branch5x5_1"), square(64, 5, "branch5x5_2")),
            chain(
                x,
                Unit(64, name="branch3x3dbl_1"),
                square(96, 3, "branch3x3dbl_2"),
                square(96, 3, "branch3x3dbl_3"),
            ),
            Unit(self.pooled, name="branch_pool")(mean_pool(x)),
        )


class MixedB(nn.Module):
    """Downsampling block, 35 x 35 positions to 17 x 17."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        """384 + 96 channels and those of x."""
        return join(
            reduce(384, "branch3x3")(x),
            chain(
                x,
                Unit(64, name="branch3x3dbl_1"),
                square(96, 3, "branch3x3dbl_2"),
                reduce(96, "branch3x3dbl_3"),
            ),
            halve(x),
        )


class MixedC(nn.Module):
    """Block at 17 x 17 positions: 7 x 7 kernels factorised into rows and columns."""

    inner: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h w o"]:
        """4 x 192 channels, `inner` in the hidden layers."""
        c = self.inner
        return join(
            Unit(192, name="branch1x1")(x),
            chain(x, Unit(c, name="branch7x7_1"), row(c, 7, "branch7x7_2"), column(192, 7, "branch7x7_3")),
            chain(
                x,
                Unit(c, name="branch7x7dbl_1"),
                column(c, 7, "branch7x7dbl_2"),
                row(c, 7, "branch7x7dbl_3"),
                column(c, 7, "branch7x7dbl_4"),
                row(192, 7, "branch7x7dbl_5"),
            ),
            Unit(192, name="branch_pool")(mean_pool(x)),
        )


class MixedD(nn.Module):
    """Downsampling block, 17 x 17 positions to 8 x 8."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        """320 + 192 channels and those of x."""
        return join(
            chain(x, Unit(192, name="branch3x3_1"), reduce(320, "branch3x3_2")),
            chain(
                x,
                Unit(192, name="branch7x7x3_1"),
                row(192, 7, "branch7x7x3_2"),
                column(192, 7, "branch7x7x3_3"),
                reduce(192, "branch7x7x3_4"),
            ),
            halve(x),
        )


class MixedE(nn.Module):
    """Block at 8 x 8 positions: row and column kernels in parallel.

    Attributes:
        by_max: max pooling instead of average pooling; in the last block.
    """

    by_max: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h w o"]:
        """320 + 4 x 384 + 192 channels."""
        three = Unit(384, name="branch3x3_1")(x)
        twice = chain(x, Unit(448, name="branch3x3dbl_1"), square(384, 3, "branch3x3dbl_2"))
        pooled = max_pool(x) if self.by_max else mean_pool(x)
        return join(
            Unit(320, name="branch1x1")(x),
            row(384, 3, "branch3x3_2a")(three),
            column(384, 3, "branch3x3_2b")(three),
            row(384, 3, "branch3x3dbl_3a")(twice),
            column(384, 3, "branch3x3dbl_3b")(twice),
            Unit(192, name="branch_pool")(pooled),
        )


class Inception(nn.Module):
    """Images to pool3 features and logits."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b f"], Float[Array, "b k"]]:
        """Features and logits of images of any size.

        Args:
            x: [b, h, w, 3] in [0, 1], float32.

        Returns:
            (features [b, 2048], logits without bias [b, 1008]), float32.
        """
        x = 2.0 * resize(x) - 1.0
        x = Unit(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(x)
        x = Unit(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = halve(square(64, 3, "Conv2d_2b_3x3")(x))
        x = Unit(80, name="Conv2d_3b_1x1")(x)
        x = halve(Unit(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x))
        for letter, pooled in zip("bcd", (32, 64, 64), strict=True):
            x = MixedA(pooled, name=f"Mixed_5{letter}")(x)
        x = MixedB(name="Mixed_6a")(x)
        for letter, inner in zip("bcde", (128, 160, 160, 192), strict=True):
            x = MixedC(inner, name=f"Mixed_6{letter}")(x)
        x = MixedD(name="Mixed_7a")(x)
        x = MixedE(name="Mixed_7b")(x)
        x = MixedE(by_max=True, name="Mixed_7c")(x)
        features = x.mean(axis=(1, 2))
        return features, Dense(LOGITS, use_bias=False, name="fc")(features)
