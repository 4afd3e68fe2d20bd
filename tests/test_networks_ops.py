"""The operations of networks: the CPU's forms equal the compiler's, and both equal their definitions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy.signal import correlate

from genjax.core.errors import UserError
from genjax.networks.layers import cpu_ops, ops, plain_ops
from genjax.networks.layers.blocks import Modulation
from genjax.networks.layers.linen import Conv, Dense
from genjax.networks.layers.plain_ops import Window


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def run(function, *args):
    """Calls a function under `jit`, which is faster for many small operations."""
    return jax.jit(function)(*args)


def close(actual, expected, tolerance=2e-5):
    """Equal up to `tolerance` of the largest entry, leaf by leaf."""
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * (1e-3 + np.abs(e).max()))


def window(x, kernel, strides=1, padding="SAME", dilation=1, groups=1):
    pads = ops._pads(x[1:-1], kernel, strides, padding, dilation)
    return x, kernel, Window(strides, pads, dilation, groups)


CONVOLUTIONS = {
    "3x3": window((16, 6, 5, 3), (3, 3, 3, 4)),
    "3x3, a prime batch": window((5, 6, 5, 3), (3, 3, 3, 4)),
    "3x3, several images in a chunk": window((80, 10, 9, 2), (3, 3, 2, 3)),
    "3x3 valid": window((6, 7, 6, 3), (3, 3, 3, 4), padding="VALID"),
    "3x3 stride 2, even": window((8, 8, 6, 3), (3, 3, 3, 4), strides=2),
    "3x3 stride 2, odd": window((3, 9, 7, 3), (3, 3, 3, 4), strides=2),
    "4x4 stride 2": window((8, 8, 6, 3), (4, 4, 3, 2), strides=2),
    "5x5 dilated": window((4, 9, 8, 2), (5, 5, 2, 3), dilation=2),
    "3x1 valid, stride 2": window((4, 9, 8, 2), (3, 1, 2, 3), strides=2, padding="VALID"),
    "1x1": window((4, 5, 6, 3), (1, 1, 3, 4)),
    "1x1 stride 2": window((4, 5, 6, 3), (1, 1, 3, 4), strides=2),
    "groups": window((4, 6, 5, 4), (3, 3, 2, 6), groups=2),
    "depthwise": window((4, 6, 5, 4), (3, 3, 1, 4), groups=4),
    "depthwise, twofold, stride 2, dilated": window(
        (4, 9, 7, 3), (3, 3, 1, 6), strides=2, dilation=2, groups=3
    ),
    "one channel to three": window((6, 6, 5, 1), (3, 3, 1, 3)),
    "causal in one dimension": window((4, 9, 3), (4, 3, 5), padding=((6, 0),), dilation=2),
    "cropped": window((4, 9, 3), (3, 3, 5), padding=((2, -1),)),
    "three dimensions": window((3, 4, 3, 5, 2), (3, 3, 3, 2, 3)),
}


def sine(function):
    return lambda x, kernel: jnp.sin(function(x, kernel)).sum()


def first_derivatives(function, x, kernel):
    """Value, forward derivative, and both gradients."""
    moved = jax.jvp(function, (x, kernel), (jnp.cos(x), jnp.sin(kernel)))
    return moved, jax.grad(sine(function), (0, 1))(x, kernel)


def further_derivatives(function, x, kernel):
    """Both gradients of a penalty on both gradients, a forward derivative of one, and a vmap of one."""

    def penalty(x, kernel):
        return sum(jnp.cos(g).sum() for g in jax.grad(sine(function), (0, 1))(x, kernel))

    one = jax.grad(sine(function), 1)
    moved = jax.jvp(one, (x, kernel), (jnp.cos(x), jnp.sin(kernel)))[1]
    return (
        jax.grad(penalty, (0, 1))(x, kernel),
        moved,
        jax.vmap(one, (None, 0))(x, jnp.stack([kernel, -kernel])),
    )


def check(name, derivatives):
    x, kernel, w = CONVOLUTIONS[name]
    args = normal(0, *x), normal(1, *kernel) / 3
    ours, theirs = (
        jax.jit(lambda x, kernel, conv=conv: derivatives(lambda x, kernel: conv(x, kernel, w), x, kernel))(
            *args
        )
        for conv in (cpu_ops.conv, plain_ops.conv)
    )
    close(ours, theirs, 1e-4)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_on_the_cpu_equals_the_compilers_with_its_derivatives(name):
    check(name, first_derivatives)


@pytest.mark.parametrize("name", ["3x3 stride 2, odd", "1x1", "depthwise", "causal in one dimension"])
def test_convolution_on_the_cpu_can_be_differentiated_again(name):
    check(name, further_derivatives)


def test_dense_on_the_cpu_equals_the_compilers_with_all_its_derivatives():
    x, kernel = normal(0, 5, 3, 7), normal(1, 7, 4)
    for derivatives in (first_derivatives, further_derivatives):
        ours, theirs = run(
            lambda *a, d=derivatives: [d(form, *a) for form in (cpu_ops.dense, plain_ops.dense)], x, kernel
        )
        close(ours, theirs)


def test_cpus_run_the_cpu_forms():
    x, kernel = jnp.zeros((4, 6, 6, 3)), jnp.zeros((3, 3, 3, 4))
    gradient = jax.grad(lambda kernel: ops.conv(x, kernel).sum())
    assert "scan" in str(jax.make_jaxpr(gradient)(kernel))
    assert "optimization_barrier" in str(jax.make_jaxpr(ops.dense)(x, kernel[0, 0]))


@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_convolution_is_correlation(strides, dilation):
    x, kernel = normal(0, 2, 9, 8, 3), normal(1, 3, 3, 3, 2)
    spread = np.zeros((2 * dilation + 1, 2 * dilation + 1, 3, 2))
    spread[::dilation, ::dilation] = kernel
    expected = np.stack(
        [
            sum(correlate(np.float64(image[..., i]), spread[..., i, o], "valid") for i in range(3))
            for image, o in itertools.product(x, range(2))
        ]
    )
    expected = np.moveaxis(expected.reshape(2, 2, *expected.shape[1:]), 1, -1)[:, ::strides, ::strides]
    ours = run(lambda *args: ops.conv(*args, strides=strides, dilation=dilation, padding="VALID"), x, kernel)
    close(ours, expected)


def test_circular_convolution_is_a_sum_of_rolls():
    x, kernel = normal(0, 2, 6, 5, 3), normal(1, 3, 3, 3, 2)
    taps = itertools.product(range(3), range(3))
    expected = sum(np.roll(x, (1 - i, 1 - j), (1, 2)) @ np.asarray(kernel[i, j]) for i, j in taps)
    close(run(lambda *args: ops.conv(*args, padding="CIRCULAR"), x, kernel), expected)


def test_an_unknown_padding_raises():
    with pytest.raises(UserError, match="VALID"):
        ops.conv(jnp.zeros((1, 4, 4, 1)), jnp.zeros((3, 3, 1, 1)), padding="SMAE")


def test_the_backward_pass_of_a_convolution_keeps_its_input_and_no_patches():
    x, kernel, w = normal(0, 16, 8, 8, 4), normal(1, 3, 3, 4, 4), window((16, 8, 8, 4), (3, 3, 4, 4))[2]
    pullback = lambda *args: jax.vjp(lambda x, kernel: cpu_ops.conv(x, kernel, w), *args)[1]
    kept = jax.tree.leaves(jax.eval_shape(pullback, x, kernel))
    assert sum(a.size for a in kept) <= 2 * (x.size + kernel.size)


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (Conv(1), 1),  # images this large are processed one at a time, 32 in each block
        (Conv(2, groups=2), 2),
        (Dense(1), 1),
        (Modulation(), 1),
        (Modulation("add"), 1),
    ],
)
def test_gradients_in_bfloat16_do_not_drift_over_long_sums(layer, channels):
    x = jnp.asarray(1 + normal(0, 256, 24, 24, channels)).astype(jnp.bfloat16)
    e = (jnp.ones((256, 1)),) if isinstance(layer, Modulation) else ()
    leaves, tree = jax.tree.flatten(jax.eval_shape(layer.init, jax.random.key(0), x, *e))
    params = jax.tree.unflatten(tree, [jnp.full(a.shape, 0.25) for a in leaves])

    def gradient(dtype):
        y = lambda params: layer.clone(dtype=dtype).apply(params, x.astype(dtype), *e).astype(jnp.float32)
        return run(jax.grad(lambda params: jnp.square(y(params)).sum()), params)

    close(gradient("bfloat16"), gradient("float32"), 2.0**-8)


def compile_sharded(function, batch, *rest):
    """Compiles for 8 devices with the batch over all of them; returns the program and its result."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    over, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    args = jax.device_put(batch, over), *jax.device_put(rest, everywhere)
    program = jax.jit(function).lower(*args).compile()
    return program.as_text(), program(*args)


@pytest.mark.parametrize("strides", [1, 2])
def test_a_sharded_batch_gives_the_same_gradients_and_is_never_gathered(strides):
    x, kernel = normal(0, 32, 8, 8, 3), normal(1, 3, 3, 3, 4)

    def gradients(x, kernel):
        return jax.grad(lambda x, kernel: jnp.sin(ops.conv(x, kernel, strides=strides)).sum(), (0, 1))(
            x, kernel
        )

    text, result = compile_sharded(gradients, x, kernel)
    close(result, run(gradients, x, kernel), 1e-5)
    assert "while" in text
    assert not any(word in text for word in ("all-gather", "all-to-all", "collective-permute"))


def test_convolution_inside_shard_map():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x, kernel = normal(0, 16, 8, 8, 3), normal(1, 3, 3, 3, 4)
    loss = lambda x, kernel: jnp.sin(ops.conv(x, kernel)).sum()
    local = jax.shard_map(
        lambda x, kernel: jax.lax.psum(loss(x, kernel), "data"),
        mesh=mesh,
        in_specs=(PartitionSpec("data"), PartitionSpec()),
        out_specs=PartitionSpec(),
    )
    close(run(jax.grad(local, (0, 1)), x, kernel), run(jax.grad(loss, (0, 1)), x, kernel), 1e-5)


def textbook_group_norm(x, scale, bias, groups, epsilon):
    z = x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean, variance = z.mean((1, 3), keepdims=True), z.var((1, 3), keepdims=True)
    return ((z - mean) / np.sqrt(variance + epsilon)).reshape(x.shape) * scale + bias


@pytest.mark.parametrize("mean", [0.0, 3000.0])
@pytest.mark.parametrize(("shape", "groups"), [((3, 5, 4, 6), 2), ((3, 7, 6), 6), ((3, 8), 1)])
def test_group_norm_is_the_textbooks_even_far_from_zero(shape, groups, mean):
    x = mean + normal(0, *shape)
    scale, bias = normal(1, shape[-1]), normal(2, shape[-1])
    expected = textbook_group_norm(*(np.float64(a) for a in (x, scale, bias)), groups, 1e-5)
    # float32 resolves numbers near 3000 to 1.2e-4, which limits the accuracy.
    close(
        run(lambda *args: ops.group_norm(*args, groups, 1e-5), x, scale, bias),
        expected,
        1e-5 if mean == 0 else 5e-4,
    )


def test_group_norm_has_the_textbooks_gradient():
    x, scale, bias = normal(0, 3, 5, 4, 6), normal(1, 6), normal(2, 6)

    def textbook(x, scale, bias):
        z = x.reshape(3, -1, 2, 3)
        variance = jnp.square(z - z.mean((1, 3), keepdims=True)).mean((1, 3), keepdims=True)
        z = (z - z.mean((1, 3), keepdims=True)) / jnp.sqrt(variance + 1e-5)
        return z.reshape(x.shape) * ops.along_last(scale, 4) + ops.along_last(bias, 4)

    def gradients(function):
        return run(jax.grad(lambda *args: jnp.sin(function(*args)).sum(), (0, 1, 2)), x, scale, bias)

    close(gradients(lambda *args: ops.group_norm(*args, 2)), gradients(textbook))


def test_attention_is_softmax_of_scaled_products():
    q, k, v = normal(0, 2, 5, 3, 4), normal(1, 2, 6, 3, 4), normal(2, 2, 6, 3, 4)
    logits = np.einsum("bnhd,bmhd->bhnm", q, k) / 2.0
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    close(run(ops.attention, q, k, v), np.einsum("bhnm,bmhd->bnhd", weights, v))


@pytest.mark.parametrize("window", [0, 3])
def test_attention_on_cpus_equals_the_librarys(window):
    q, k, v = normal(0, 2, 6, 4, 3), normal(1, 2, 6, 2, 3), normal(2, 2, 6, 2, 3)
    mask = jnp.asarray(np.random.default_rng(3).random((2, 6, 6)) < 0.7) | jnp.eye(6, dtype=bool)[None]

    def with_gradients(attention):
        loss = lambda q, k, v: jnp.sin(attention(q, k, v, True, mask, window)).sum()
        return run(jax.value_and_grad(loss, (0, 1, 2)), q, k, v)

    close(with_gradients(cpu_ops.attention), with_gradients(plain_ops.attention))


def test_attention_on_cpus_can_be_differentiated_again():
    """Forward over reverse, as mean flow and gradient penalties need it."""
    q, k, v = normal(0, 2, 5, 2, 3), normal(1, 2, 5, 2, 3), normal(2, 2, 5, 2, 3)

    def along(attention):
        loss = lambda q, k, v: jnp.sin(attention(q, k, v, False, None, 0)).sum()
        return run(lambda *x: jax.jvp(jax.grad(loss, (0, 1, 2)), x, (v, q, k)), q, k, v)

    close(along(cpu_ops.attention), along(plain_ops.attention))


def test_gelu_has_the_librarys_derivatives():
    x = 3.0 * normal(0, 64)
    for order in (lambda f: f, jax.grad, lambda f: jax.grad(jax.grad(f))):
        close(run(jax.vmap(order(ops.gelu)), x), run(jax.vmap(order(jax.nn.gelu)), x))


def test_resampling_up_is_adjoint_to_averaging_down():
    x, y = normal(0, 2, 3, 4, 5), normal(1, 2, 6, 8, 5)
    up, down, back = run(
        lambda x, y: (ops.upsample(x), ops.average_pool(y), ops.average_pool(ops.upsample(x))), x, y
    )
    close((up * y).sum(), 4 * (x * down).sum(), 1e-4)
    np.testing.assert_array_equal(back, x)


def test_depth_to_space_places_channels_as_its_formula_says():
    x = normal(0, 2, 3, 4, 8)
    y = run(ops.depth_to_space, x)
    np.testing.assert_array_equal(run(ops.space_to_depth, y), x)
    for i, j, d in itertools.product(range(2), range(2), range(2)):
        np.testing.assert_array_equal(y[:, i::2, j::2, d], x[..., (2 * i + j) * 2 + d])
