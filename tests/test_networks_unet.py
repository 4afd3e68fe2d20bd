"""Resampling against its filters and their adjoints; the options of the U-Net against the papers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import convolve2d
from test_networks import KEY, SMALL, T, filled, normal

from genjax.networks import UNet
from genjax.networks.convolutional.unet import adm, ddpmpp, ncsnpp
from genjax.networks.layers import resample
from genjax.networks.layers.blocks import ResBlock

KERNEL = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def run(function, *args):
    return jax.jit(function)(*args)


def test_smooth_resampling_is_convolution_with_the_binomial_kernel():
    x = normal(0, 1, 6, 8, 1)
    down, up, blur = run(lambda x: (resample.down(x, "fir"), resample.up(x, "fir"), resample.blur(x)), x)
    image = np.float64(x[0, :, :, 0])
    full = convolve2d(image, KERNEL)  # starts one place before the image
    np.testing.assert_allclose(blur[0, :, :, 0], full[1:-1, 1:-1], atol=1e-6)
    np.testing.assert_allclose(down[0, :, :, 0], full[2:-1:2, 2:-1:2], atol=1e-6)
    spread = np.zeros((12, 16))
    spread[::2, ::2] = image
    np.testing.assert_allclose(up[0, :, :, 0], 4 * convolve2d(spread, KERNEL)[1:-2, 1:-2], atol=1e-6)


@pytest.mark.parametrize("padding", ["SAME", "CIRCULAR"])
@pytest.mark.parametrize("kind", ["box", "fir"])
def test_up_is_adjoint_to_down_and_both_keep_constants(kind, padding):
    x, y = normal(0, 2, 6, 8, 3), normal(1, 2, 3, 4, 3)
    both = jax.jit(lambda x, y: (resample.down(x, kind, padding), resample.up(y, kind, padding)))
    down, up = both(x, y)
    np.testing.assert_allclose((down * y).sum(), (x * up).sum() / 4, rtol=1e-4)
    inner = (slice(None), slice(1, -1), slice(1, -1)) if (kind, padding) == ("fir", "SAME") else ...
    for constant in both(jnp.ones_like(x), jnp.ones_like(y)):
        np.testing.assert_allclose(constant[inner], 1, atol=1e-6)


def test_smooth_resampling_on_a_torus_commutes_with_shifts():
    x = normal(0, 2, 6, 8, 1)
    both = jax.jit(lambda x: (resample.down(x, "fir", "CIRCULAR"), resample.up(x, "fir", "CIRCULAR")))
    down, up = both(x)
    moved_down, moved_up = both(jnp.roll(x, (2, -4), (1, 2)))
    np.testing.assert_allclose(moved_down, jnp.roll(down, (1, -2), (1, 2)), atol=1e-6)
    np.testing.assert_allclose(moved_up, jnp.roll(up, (4, -8), (1, 2)), atol=1e-6)


@pytest.mark.parametrize("kind", ["box", "fir"])
@pytest.mark.parametrize("change", ["down", "up"])
def test_a_block_of_identities_that_changes_space_is_twice_the_resampling(kind, change):
    x = jnp.abs(normal(0, 2, 4, 6, 3))  # positive, so that relu is an identity too
    block = ResBlock(3, "none", "relu", change=change, filter=kind, project=True)
    shapes = jax.eval_shape(block.init, KEY, x)

    def identity(a):
        if a.ndim == 1:
            return jnp.zeros(a.shape)
        middle = tuple(n // 2 for n in a.shape[:-2])
        return jnp.zeros(a.shape).at[middle].set(jnp.eye(3))

    params = jax.tree.map(identity, shapes)
    expected = 2 * getattr(resample, change)(x, kind)
    np.testing.assert_allclose(run(block.apply, params, x), expected, atol=1e-6)


def tiny(**options):
    return UNet(channels=4, blocks=1, attention=(), **options)


@pytest.mark.parametrize("kind", ["pool", pytest.param("fir", marks=pytest.mark.slow)])
def test_skip_outputs_sum_the_images_of_all_levels(kind):
    net, x = (
        tiny(multipliers=(1, 1, 1), outputs="skip", padding="CIRCULAR", resample=kind),
        normal(0, 1, 8, 8, 1),
    )
    params = filled(net, x, T[:1], out=2)["params"]
    for level in range(3):  # constants, which are preserved on a torus
        params[f"write{level}"] = {
            "kernel": jnp.zeros((3, 3, 4, 2)),
            "bias": jnp.asarray([10.0**level, -(3.0**level)]),
        }
    y = run(lambda p: net.apply({"params": p}, x, T[:1], out=2), params)
    np.testing.assert_allclose(y, jnp.broadcast_to(jnp.asarray([111.0, -13.0]), y.shape), rtol=1e-5)


@pytest.mark.slow
def test_skip_inputs_read_the_image_downsampled_to_each_level():
    net, x = tiny(multipliers=(1, 1, 1), inputs="skip", resample="fir"), normal(0, 1, 8, 8, 2)
    params = filled(net, x, T[:1], out=1)
    chosen = lambda module, _: (module.name or "").startswith("read")
    image = x
    _, seen = run(
        lambda p: net.apply(p, x, T[:1], out=1, capture_intermediates=chosen, mutable=["intermediates"]),
        params,
    )
    for level in range(2):
        image, own = resample.down(image, "fir"), params["params"][f"read{level}"]
        expected = image @ own["kernel"][0, 0] + own["bias"][None, None, None]
        np.testing.assert_allclose(seen["intermediates"][f"read{level}"]["__call__"][0], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("inputs", ["skip", pytest.param("residual", marks=pytest.mark.slow)])
def test_inputs_that_are_read_as_zero_change_nothing(inputs):
    net, x = tiny(multipliers=(1, 1), inputs=inputs, skip_rescale=False), normal(0, 1, 4, 4, 2)
    params = filled(net, x, T[:1], out=1)["params"]
    silent = {**params, "read0": jax.tree.map(jnp.zeros_like, params["read0"])}
    plain = {name: value for name, value in params.items() if name != "read0"}
    reads, none, heard = run(
        lambda: (
            net.apply({"params": silent}, x, T[:1], out=1),
            net.clone(inputs="none").apply({"params": plain}, x, T[:1], out=1),
            net.apply({"params": params}, x, T[:1], out=1),
        )
    )
    np.testing.assert_allclose(reads, none, atol=1e-5)
    assert jnp.abs(heard - none).max() > 1e-3


@pytest.mark.parametrize(
    "options",
    [
        {"resample": "fir", "inputs": "skip", "outputs": "residual"},
        {"resample": "pool", "updown": "block", "inputs": "residual", "head_channels": 4},
        pytest.param(
            {
                "resample": "fir",
                "updown": "projected",
                "outputs": "skip",
                "attend_up": "last",
                "time": "fourier",
            },
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.slow
def test_gradients_reach_every_parameter(options):
    net, x = UNet(**SMALL, **options), normal(0, 2, 4, 4, 2)
    params = filled(net, x, T[:2], out=2)
    gradient = run(jax.grad(lambda p: jnp.sin(net.apply(p, x, T[:2], out=2)).sum()), params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert jnp.abs(leaf).max() > 1e-6, jax.tree_util.keystr(path)


@pytest.mark.slow
def test_heads_can_be_given_by_their_size_and_attention_kept_for_the_last_block():
    net, x = UNet(**SMALL), normal(0, 2, 4, 4, 2)
    params = filled(net, x, T[:2], out=2)
    program = lambda net: str(jax.make_jaxpr(lambda p: net.apply(p, x, T[:2], out=2))(params))
    assert program(net.clone(heads=1, head_channels=8)) == program(net) != program(net.clone(heads=4))
    last = jax.eval_shape(functools.partial(net.clone(attend_up="last").init, out=2), KEY, x, T[:2])
    assert set(params["params"]) - set(last["params"]) == {"up1_0_attention"}


@pytest.mark.parametrize(
    ("net", "side", "classes", "out", "millions"),
    [
        (ddpmpp(), 32, 0, 3, 61.8),
        pytest.param(ncsnpp(), 32, 0, 3, 62.8, marks=pytest.mark.slow),
        pytest.param(adm(), 64, 1000, 6, 295.9, marks=pytest.mark.slow),
    ],
)
def test_the_published_networks_have_the_published_numbers_of_parameters(net, side, classes, out, millions):
    x, cond = jnp.zeros((1, side, side, 3)), jnp.zeros((1, classes)) if classes else None
    params = jax.eval_shape(functools.partial(net.init, out=out), KEY, x, T[:1], cond)
    assert abs(sum(a.size for a in jax.tree.leaves(params)) / (millions * 1e6) - 1) < 0.002


@pytest.mark.slow
def test_remat_changes_neither_parameters_nor_gradients():
    nets = [
        UNet(channels=8, multipliers=(1, 2), blocks=1, dropout=0.3, remat=remat) for remat in (False, True)
    ]
    x, t = normal(0, 2, 4, 4, 1), jnp.ones(2)
    params = [filled(net, x, t, out=1) for net in nets]

    def gradient(net, params):
        rngs = {"dropout": KEY}
        loss = lambda params: (net.apply(params, x, t, out=1, train=True, rngs=rngs) ** 2).sum()
        return jax.grad(loss)(params)

    plain, again = (run(functools.partial(gradient, net), p) for net, p in zip(nets, params, strict=True))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), plain, again)
    assert "remat" in str(jax.make_jaxpr(functools.partial(gradient, nets[1]))(params[1]))
