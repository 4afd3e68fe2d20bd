"""Convolution and matrix product for XLA on CPUs, which is slow at some of their derivatives.

Convolution, y = x * w, is bilinear, so its derivative is dy = dx * w + x * dw. The compiler's own transpose
of dw -> x * dw, the gradient of the kernel, is several times slower than the convolution itself. Here
x * dw is written as a product with the matrix of patches, for a few images at a time:

    (x * dw)[p, o] = sum_q patch(x)[p, q] dw[q, o],   p: positions,   q: taps x input channels,

whose transpose is the matrix product sum_p dy[p, o] patch(x)[p, q], accumulated over images while their
patches are in cache. Inside loops and branches (`scan`, `cond`) it is up to a hundred times as fast. As a `custom_jvp`
of ordinary operations it supports every mode of differentiation, to any order; only the first reverse derivative
is fast, a second one partly uses the compiler's transposes.

A sharded batch stays sharded: the images are split into as many blocks as there are devices,
the loop processes all blocks in parallel, and each block has its own partial sum.
"""

import functools
import itertools
import math
import operator

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from genjax.core.types import Array
from genjax.networks.layers import plain_ops
from genjax.networks.layers.plain_ops import Window, wide

_ROWS = 512  # positions per block of patches: large enough for the product, small enough for the cache


def dense(x: Array, kernel: Array) -> Array:
    """Multiplies x [..., i] by kernel [i, o].

    The gradient of the kernel is a sum over all leading axes: as one axis the compiler reads both factors in
    place, with several it transposes one of them and recomputes the element-wise operations before it. The
    barriers keep element-wise operations on both sides from being fused into the product.
    """
    y = jax.lax.optimization_barrier(x).reshape(-1, x.shape[-1]) @ kernel
    return _gradient_barrier(y.reshape(*x.shape[:-1], -1))


def attention(q: Array, k: Array, v: Array, causal: bool, mask: Array | None, window: int) -> Array:
    """Two products and a softmax in float32 at least; for arguments and result see `ops.attention`."""
    b, n, heads, d = q.shape
    m, groups = k.shape[1:3]
    precise = jnp.promote_types(q.dtype, jnp.float32)
    q = q.reshape(b, n, groups, heads // groups, d).transpose(0, 2, 3, 1, 4).reshape(b, groups, -1, d)
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    logits = jnp.matmul(q, k.swapaxes(2, 3), preferred_element_type=precise) / d**0.5
    back = jnp.arange(n)[:, None] - jnp.arange(m)[None]
    seen = jnp.broadcast_to((back >= 0) if causal else True, (n, m))
    seen = (seen & (back < window) if window else seen)[None]
    seen = seen if mask is None else seen & mask
    logits = logits.reshape(b, groups, -1, n, m)
    logits = jnp.where(seen[:, None, None], logits, jnp.finfo(precise).min).reshape(b, groups, -1, m)
    y = _average(logits, v)
    return y.reshape(b, groups, -1, n, d).transpose(0, 3, 1, 2, 4).reshape(b, n, heads, d)


@jax.custom_jvp
def _average(logits: Array, v: Array) -> Array:
    """Means y = P v of the values v [..., m, d], weighted by P = softmax(logits [..., n, m])."""
    return jnp.matmul(jax.nn.softmax(logits).astype(v.dtype), v)


@_average.defjvp
def _average_jvp(primals: tuple, tangents: tuple) -> tuple:
    """dy = (P ds) v - sum(P ds) y + P dv.

    Its transpose sums over features where that of softmax sums over keys (Dao et al. 2022, arXiv:2205.14135, B.4), and
    P is kept for it.
    """
    (logits, v), (ds, dv) = primals, tangents
    weights = jax.lax.optimization_barrier(jax.nn.softmax(logits))
    y = jnp.matmul(weights.astype(v.dtype), v)
    moved = weights * ds
    mean = moved.sum(axis=-1, keepdims=True) * wide(y)
    dy = jnp.matmul(moved.astype(v.dtype), v) - mean.astype(v.dtype)
    return y, dy + jnp.matmul(weights.astype(v.dtype), dv)


@jax.custom_jvp
def _gradient_barrier(y: Array) -> Array:
    """y itself; its cotangent is materialised before it is used."""
    return y


@_gradient_barrier.defjvp
def _gradient_barrier_jvp(primals: tuple, tangents: tuple) -> tuple:
    return primals[0], jax.lax.optimization_barrier(tangents[0])


def conv(x: Array, kernel: Array, window: Window) -> Array:
    """Convolves x [b, *n, i] with kernel [*k, i / groups, o]; for arguments and result see `plain_ops.conv`.

    Kernels of one tap are a matrix product, depthwise kernels a sum of shifted products; other grouped
    convolutions use the plain form.
    """
    *taps, inputs, _ = kernel.shape
    if window.groups == 1 and math.prod(taps) == 1:
        return dense(_shifts(x, taps, window)[0], kernel.reshape(inputs, -1))
    if window.groups > 1 and inputs == 1:
        return _depthwise(x, kernel, window)
    if window.groups > 1:
        return plain_ops.conv(x, kernel, window)
    return _conv(x, kernel, window, False)


def _shifts(x: Array, taps: list[int], window: Window) -> list[Array]:
    """For each tap of the kernel, its input at every output position: views [b, *m, i] of padded x."""
    stride = window.strides
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*p, 0) for p in window.pads), (0, 0, 0)))
    extents = [window.dilation * (k - 1) for k in taps]
    counts = [(n - e - 1) // stride + 1 for n, e in zip(x.shape[1:-1], extents, strict=True)]
    views = []
    for tap in itertools.product(*map(range, taps)):
        starts = [window.dilation * i for i in tap]
        index = [slice(s, s + (m - 1) * stride + 1, stride) for s, m in zip(starts, counts, strict=True)]
        views.append(x[:, *index])
    return views


def _depthwise(x: Array, kernel: Array, window: Window) -> Array:
    """Depthwise convolution as a sum over taps of shifted products."""
    *taps, _, outputs = kernel.shape
    views = _shifts(jnp.repeat(wide(x), outputs // x.shape[-1], axis=-1), taps, window)
    weights = wide(kernel).reshape(-1, *(1,) * (x.ndim - 1), outputs)
    products = [view * weight for view, weight in zip(views, weights, strict=True)]
    return functools.reduce(operator.add, products).astype(x.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _conv(x: Array, kernel: Array, window: Window, tangent: bool) -> Array:
    """The convolution, of a tangent of x (to be transposed) or of x itself.

    Transposing swaps the roles of the kernel's channels. Inside loops and branches the compiler is 7 times
    slower with the transposed layout, so kernels that will be transposed are stored transposed.
    """
    if tangent:
        return plain_ops.conv(x, jnp.swapaxes(kernel, -1, -2), window, "OI")
    return plain_ops.conv(x, kernel, window)


@functools.partial(_conv.defjvp, symbolic_zeros=True)
def _conv_jvp(window: Window, tangent: bool, primals: tuple, tangents: tuple) -> tuple:
    (x, kernel), (dx, dkernel) = primals, tangents
    parts = []
    if not isinstance(dx, SymbolicZero):
        parts.append(_conv(dx, kernel, window, True))
    if not isinstance(dkernel, SymbolicZero):
        parts.append(_by_patches(x, dkernel, window))
    y = _conv(x, kernel, window, tangent)
    return y, sum(parts[1:], parts[0]) if parts else jnp.zeros_like(y)


def _by_patches(x: Array, kernel: Array, window: Window) -> Array:
    """The convolution as products with matrices of patches, to be transposed with respect to the kernel."""
    *taps, inputs, outputs = kernel.shape
    shape = jax.eval_shape(functools.partial(plain_ops.conv, window=window), x, kernel).shape
    positions = math.prod(shape[1:-1])
    blocks = math.gcd(shape[0], jax.device_count())
    images = _divisor(shape[0] // blocks, max(1, _ROWS // positions))
    matrix = wide(kernel).reshape(-1, outputs).T
    matrix = jnp.broadcast_to(matrix[None], (blocks, *matrix.shape))

    @jax.checkpoint  # otherwise the patches of the whole batch are kept for the backward pass
    def product(matrix: Array, part: Array) -> Array:
        flat = wide(part).reshape(blocks * images, *x.shape[1:])
        views = [v.reshape(blocks, images * positions, inputs) for v in _shifts(flat, taps, window)]
        y = jnp.einsum("noq,npq->npo", matrix, jnp.concatenate(views, axis=-1))
        return y.astype(x.dtype)

    parts = jnp.moveaxis(x.reshape(blocks, -1, images, *x.shape[1:]), 1, 0)
    _, y = jax.lax.scan(lambda _, part: (None, product(matrix, part)), None, parts)
    return jnp.moveaxis(y, 0, 1).reshape(shape)


def _divisor(n: int, most: int) -> int:
    """Largest divisor of n not above `most`."""
    return next(d for d in range(min(n, most), 0, -1) if n % d == 0)
