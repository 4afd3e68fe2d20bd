"""The operations of all networks: `conv`, `dense`, `group_norm`, `attention`, and resizing.

Each is a pure function of arrays. GPUs and TPUs run the compiler's own operations (`plain_ops`), CPUs run equivalent
forms that are faster there (`cpu_ops`); the choice is made when a function is traced. Images are
[b, h, w, c]; spatial operations take any number of spatial axes between batch and channels.
"""

import math
from types import ModuleType

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from genjax.core.errors import UserError
from genjax.core.sharding_rules import AXES, num_splits
from genjax.core.types import Array
from genjax.networks.layers import cpu_ops, plain_ops
from genjax.networks.layers.plain_ops import Window, wide

Padding = str | tuple[tuple[int, int], ...]


def _forms() -> ModuleType:
    """The forms for this platform; they differ in speed and rounding only.

    Those for CPUs support one device, or a batch split over several; with other mesh axes the plain forms are used,
    which the compiler can partition.
    """
    return cpu_ops if jax.default_backend() == "cpu" and num_splits(AXES[1:]) == 1 else plain_ops


def along_last(vector: Float[Array, " c"], ndim: int) -> Array:
    """Gives a vector [c] leading axes of size 1, up to `ndim` axes."""
    return vector.reshape((1,) * (ndim - 1) + vector.shape)


def dense(x: Float[Array, "b *n i"], kernel: Float[Array, "i o"]) -> Float[Array, "b *n o"]:
    """Multiplies the last axis of x by a matrix, in the dtype of the arguments."""
    return _forms().dense(x, kernel)


def conv(
    x: Float[Array, "b *n i"],
    kernel: Float[Array, "*k j o"],
    *,
    strides: int = 1,
    padding: Padding = "SAME",
    dilation: int = 1,
    groups: int = 1,
) -> Float[Array, "b *m o"]:
    """Convolves (cross-correlates): y[p, o] = sum_{q, i} x[strides p + dilation q - low, i] kernel[q, i, o].

    Args:
        x: input with the channels last, any number of spatial axes.
        kernel: [*k, i / groups, o].
        strides: step of the output grid along every spatial axis.
        padding: "SAME" (output size ceil(n / strides)), "VALID", "CIRCULAR" (as SAME, on a torus), or one
            (low, high) pair for each spatial axis.
        dilation: distance between taps along every spatial axis.
        groups: number of independent groups of channels.

    Returns:
        The output in the dtype of the arguments.

    Raises:
        UserError: `padding` is an unknown name.
    """
    spatial = x.shape[1:-1]
    if padding == "CIRCULAR":
        pads = _pads(spatial, kernel.shape, strides, "SAME", dilation)
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)), mode="wrap")
        padding = "VALID"
    pads = _pads(x.shape[1:-1], kernel.shape, strides, padding, dilation)
    return _forms().conv(x, kernel, Window(strides, pads, dilation, groups))


def _pads(
    spatial: tuple[int, ...], kernel: tuple[int, ...], strides: int, padding: Padding, dilation: int
) -> tuple[tuple[int, int], ...]:
    """Resolves a padding's name into (low, high) pairs."""
    if not isinstance(padding, str):
        return padding
    if padding not in ("SAME", "VALID"):
        raise UserError(f"padding {padding!r} is unknown (one of: SAME, VALID, CIRCULAR)")
    extents = [dilation * (k - 1) + 1 for k in kernel[: len(spatial)]]
    return tuple(jax.lax.padtype_to_pads(spatial, extents, (strides,) * len(spatial), padding))


def group_norm(
    x: Float[Array, "b *n c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    groups: int,
    epsilon: float = 1e-5,
) -> Float[Array, "b *n c"]:
    """Normalises each example over space and over the channels of each group (Wu & He 2018, equation 7).

    With mean and variance over all positions and the c / groups channels of a group,

        y = (x - mean) / sqrt(variance + epsilon) * scale + bias.

    The sums are taken per channel first, relative to the channel's first value: one pass over x, without
    cancellation when the mean is large; mean and variance fold into one multiply-add per channel.

    Args:
        x: input with the channels last.
        scale: factor per channel, float32.
        bias: offset per channel, float32.
        groups: number of groups; divides c. 1 without spatial axes is layer normalisation.
        epsilon: added to the variance.

    Returns:
        The normalised x, in its dtype; statistics are float32.
    """
    b, c = x.shape[0], x.shape[-1]
    z = x.reshape(b, -1, c).astype(jnp.float32)
    origin = jax.lax.stop_gradient(z[:, :1])
    shifted = z - origin
    first = shifted.mean(axis=1)
    within = (shifted * shifted).mean(axis=1) - first * first  # variance of each channel
    mean_c = (first + origin[:, 0]).reshape(b, groups, c // groups)
    mean = mean_c.mean(axis=-1, keepdims=True)
    between = ((mean_c - mean) ** 2).mean(axis=-1, keepdims=True)
    variance = within.reshape(b, groups, c // groups).mean(axis=-1, keepdims=True) + between
    inverse = jax.lax.rsqrt(jnp.maximum(variance, 0.0) + epsilon)

    def per_channel(statistic: Array) -> Array:
        return jnp.broadcast_to(statistic, (b, groups, c // groups)).reshape(b, c)

    factor = per_channel(inverse) * scale[None]
    offset = bias[None] - per_channel(mean) * factor
    return (z * factor[:, None] + offset[:, None]).astype(x.dtype).reshape(x.shape)


def attention(
    q: Float[Array, "b n heads d"],
    k: Float[Array, "b m groups d"],
    v: Float[Array, "b m groups d"],
    *,
    causal: bool = False,
    mask: Bool[Array, "b n m"] | None = None,
    window: int = 0,
) -> Float[Array, "b n heads d"]:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1); logits and softmax in float32.

    Args:
        q: queries.
        k: keys; `groups` divides `heads`, and head i of the queries sees group i groups / heads.
        v: values.
        causal: position i sees positions j <= i only.
        mask: whether query n sees key m, for each example; every query must see at least one key.
        window: position i sees positions j > i - window only; 0 for no limit. Requires `causal`.

    Returns:
        For each query the mean of the visible values, weighted by softmax(q k / sqrt(d)).
    """
    # jax.nn.dot_product_attention computes its softmax in float32 for every dtype
    forms = cpu_ops if q.dtype == jnp.float64 else _forms()
    return forms.attention(q, k, v, causal, mask, window)


@jax.custom_jvp
def gelu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """x/2 (1 + tanh(c (x + 0.044715 x^3))), c = sqrt(2 / pi) (Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2).

    Its derivative is defined as one expression of x, so that only x is kept for the backward pass.
    """
    return jax.nn.gelu(x)


@gelu.defjvp
def _gelu_jvp(primals: tuple, tangents: tuple) -> tuple:
    (x,), (dx,) = primals, tangents
    c = (2.0 / math.pi) ** 0.5
    tanh = jnp.tanh(c * (x + 0.044715 * x**3))
    slope = 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * c * (1.0 + 3.0 * 0.044715 * x * x)
    return gelu(x), slope * dx


def layer_norm(
    x: Float[Array, "b *n c"], epsilon: float = 1e-6, centre: bool = True
) -> Float[Array, "b *n c"]:
    """Normalises the last axis, without scale or bias: (x - mean) / sqrt(variance + epsilon).

    Args:
        x: input.
        epsilon: added to the variance.
        centre: subtract the mean (Ba et al. 2016); without, x / sqrt(mean x^2 + epsilon) (Zhang & Sennrich 2019).

    Returns:
        The normalised x, in its dtype; statistics are float32.
    """
    z = wide(x)
    z = z - z.mean(axis=-1, keepdims=True) if centre else z
    return (z * jax.lax.rsqrt(jnp.square(z).mean(axis=-1, keepdims=True) + epsilon)).astype(x.dtype)


def upsample(x: Float[Array, "b *n c"], factor: int = 2) -> Float[Array, "b *m c"]:
    """Repeats each position `factor` times along every spatial axis (nearest neighbour)."""
    for axis in range(1, x.ndim - 1):
        x = jnp.repeat(x, factor, axis=axis)
    return x


def average_pool(x: Float[Array, "b *n c"], factor: int = 2) -> Float[Array, "b *m c"]:
    """Averages blocks of `factor` positions along every spatial axis; `factor` must divide the sizes."""
    for axis in range(1, x.ndim - 1):
        shape = (*x.shape[:axis], x.shape[axis] // factor, factor, *x.shape[axis + 1 :])
        x = x.reshape(shape).mean(axis=axis + 1)
    return x


def depth_to_space(x: Float[Array, "b h w c"], factor: int = 2) -> Float[Array, "b hf wf d"]:
    """Rearranges channels into space: y[f h + i, f w + j, d] = x[h, w, (i f + j) c / f^2 + d]."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, factor, factor, c // factor**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * factor, w * factor, c // factor**2)


def space_to_depth(x: Float[Array, "b h w c"], factor: int = 2) -> Float[Array, "b hf wf d"]:
    """Inverse of `depth_to_space`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // factor, factor, w // factor, factor, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // factor, w // factor, c * factor**2)
