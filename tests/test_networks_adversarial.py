"""Exact properties of the networks of StyleGAN2, Pix2Pix and CycleGAN."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d
from test_networks import filled, normal

from genjax.core.errors import UserError
from genjax.networks import PatchGAN, StyleDiscriminator, StyleMapping, StyleSynthesis
from genjax.networks.layers.equalised import EqualConv, EqualDense, leaky, modulated_conv

pytestmark = pytest.mark.xdist_group("networks_adversarial")  # one process builds the shared fixtures

KEY = jax.random.key(0)


@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_convolution_uses_each_examples_own_kernel(demodulate):
    """Karras et al. 2020, equations 1 and 3: kernels built one by one in float64, convolved by SciPy."""
    x, kernel, style = normal(0, 3, 6, 5, 4), normal(1, 3, 3, 4, 2), 1 + normal(2, 3, 4)
    y = np.asarray(modulated_conv(x, kernel, style, demodulate))
    for image, s, ours in zip(*(np.asarray(a, np.float64) for a in (x, style, y)), strict=True):
        own = np.asarray(kernel, np.float64) * s[None, None, :, None]
        if demodulate:
            own = own / np.sqrt((own**2).sum((0, 1, 2)) + 1e-8)
        for o in range(2):
            expected = sum(correlate2d(image[..., i], own[..., i, o], "same") for i in range(4))
            np.testing.assert_allclose(ours[..., o], expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("multiplier", [1.0, 0.01])
def test_an_equalised_layer_keeps_unit_variance_for_any_multiplier(multiplier):
    """Parameters are N(0, 1) / m and outputs have variance 1; a step of size r changes the output by m r of itself."""
    layer, x = EqualDense(400, multiplier), normal(0, 50, 300)
    params = layer.init(KEY, x)
    kernel = params["params"]["kernel"]
    assert abs(np.std(kernel) * multiplier - 1) < 0.01
    y = layer.apply(params, x)
    assert abs(np.std(y) - 1) < 0.02
    np.testing.assert_allclose(y, multiplier * 300**-0.5 * (x @ kernel), atol=1e-4)
    conv = EqualConv(64, use_bias=False)
    image = normal(1, 4, 10, 10, 32)
    inside = conv.apply(conv.init(KEY, image), image)[:, 1:-1, 1:-1]
    assert abs(np.std(inside) - 1) < 0.05


def test_the_rectifier_keeps_the_mean_square():
    x = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    assert abs(np.mean(np.asarray(leaky(jnp.asarray(x))) ** 2) - (1 + 0.2**2)) < 0.01


def test_a_mapping_depends_on_directions_only():
    net, z = StyleMapping(width=8, depth=2), normal(0, 3, 5)
    params = net.init(KEY, z, out=6)
    np.testing.assert_allclose(
        net.apply(params, z, out=6), net.apply(params, 7 * z, out=6), atol=1e-6, rtol=1e-5
    )


SYNTHESIS, SHAPE = StyleSynthesis(channels=(8, 8)), (6, 6, 2)


@functools.cache
def synthesis():
    w = normal(0, 2, 4, 5)
    return filled(SYNTHESIS, w, out=SHAPE), w, jax.jit(functools.partial(SYNTHESIS.apply, out=SHAPE))


def test_without_a_key_for_noise_an_image_is_a_function_of_its_styles():
    params, w, apply = synthesis()
    silent = apply(params, w)
    np.testing.assert_array_equal(silent, apply(params, w))
    noisy = [apply(params, w, rngs={"noise": jax.random.key(i)}) for i in (0, 0, 1)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert np.abs(noisy[0] - noisy[2]).max() > 0.1
    mute = jax.tree_util.tree_map_with_path(
        lambda path, a: 0 * a if "noise" in jax.tree_util.keystr(path) else a, params
    )
    np.testing.assert_array_equal(apply(mute, w, rngs={"noise": KEY}), apply(mute, w))
    off = SYNTHESIS.clone(noise=False)
    assert not [name for name in filled(off, w, out=SHAPE)["params"] if "noise" in name]


def test_one_style_equals_equal_styles_and_each_acts():
    params, w, apply = synthesis()
    one = apply(params, w[:, 0])
    np.testing.assert_array_equal(one, apply(params, jnp.repeat(w[:, :1], 4, axis=1)))
    acts = [np.abs(apply(params, w.at[:, i].add(1.0)) - apply(params, w)).max() for i in range(4)]
    assert min(acts) > 1e-3


def test_the_last_style_acts_on_the_last_output_alone():
    """Its image is linear in the style: skip outputs are not demodulated and have no non-linearity after them."""
    params, w, apply = synthesis()
    at = lambda c: apply(params, w.at[:, 3].multiply(c))
    np.testing.assert_allclose(at(3.0) - at(1.0), 2 * (at(2.0) - at(1.0)), atol=1e-4)
    inner = lambda c: apply(params, w.at[:, 1].multiply(c))
    assert np.abs((inner(3.0) - inner(1.0)) - 2 * (inner(2.0) - inner(1.0))).max() > 1e-2


def test_a_discriminator_with_groups_detects_equal_images():
    net, x = StyleDiscriminator(channels=(4, 8), width=8, group=4), normal(0, 4, 6, 6, 1)
    params = filled(net, x, out=1)
    apply = jax.jit(functools.partial(net.apply, out=1))
    alike = jnp.repeat(x[:1], 4, axis=0)
    assert np.abs(apply(params, x)[0] - apply(params, alike)[0]).max() > 1e-5


@pytest.mark.parametrize(("channels", "size", "patch"), [((4, 4, 4, 4), 4, 70), ((4, 4), 3, 11)])
def test_a_logit_depends_on_its_patch_alone(channels, size, patch):
    """By gradient: the pixels that one logit in the middle depends on are a square of `patch` pixels."""
    net, x = PatchGAN(channels=channels, size=size, norm="none"), normal(0, 1, 96, 96, 1)
    assert net.patch == patch
    params = filled(net, x)

    def middle(x):
        logits = net.apply(params, x)
        return logits[0, logits.shape[1] // 2, logits.shape[2] // 2, 0]

    seen = np.asarray(jax.jit(jax.grad(middle))(x))[0, ..., 0] != 0
    for axis in (0, 1):
        rows = np.flatnonzero(seen.any(axis))
        assert rows[-1] - rows[0] + 1 == patch


def test_wrong_shapes_raise():
    w = normal(0, 1, 3, 5)
    with pytest.raises(UserError, match="1 or 4 styles, not 3"):
        SYNTHESIS.init(KEY, w, out=SHAPE)
    with pytest.raises(UserError, match=r"\(h, w, c\)"):
        SYNTHESIS.init(KEY, w, out=3)
