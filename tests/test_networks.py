"""Properties of all networks, and of single ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from genjax.core.errors import UserError
from genjax.core.objective import Network
from genjax.networks import (
    MADE,
    MLP,
    ConvDecoder,
    ConvEncoder,
    DCGANDiscriminator,
    DCGANGenerator,
    DiT,
    FeedForward,
    PatchGAN,
    ResDiscriminator,
    ResGenerator,
    ResNet,
    ResNetGenerator,
    StyleDiscriminator,
    StyleMapping,
    StyleSynthesis,
    TokenTransformer,
    UNet,
    UNetGenerator,
)
from genjax.networks.layers.blocks import ResBlock, SelfAttention
from genjax.networks.layers.linen import GroupNorm
from genjax.networks.layers.resample import Downsample, Upsample

pytestmark = pytest.mark.xdist_group("networks")  # one process builds the shared fixtures

KEY = jax.random.key(0)


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


BATCH = 8
T = jnp.linspace(0.1, 0.9, BATCH)
COND = jax.nn.one_hot(jnp.arange(BATCH) % 3, 3)
SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "heads": 2}

# name: network, input, out
NETWORKS = {
    "mlp": (MLP(width=16, depth=2), normal(0, BATCH, 5), (2, 3)),
    "mlp, fourier": (MLP(width=16, depth=1, time="fourier", time_scale=1.0), normal(0, BATCH, 2, 2), 3),
    "made": (MADE(width=16, depth=1), normal(0, BATCH, 5), (5, 3)),
    "resnet": (ResNet(width=8, depth=1), normal(0, BATCH, 4, 6, 2), 2),
    "feedforward": (FeedForward((16, 12)), normal(0, BATCH, 5, 2), (2, 3)),
    "unet": (UNet(**SMALL), normal(0, BATCH, 4, 6, 2), 2),
    "unet, other options": (
        UNet(**SMALL, modulation="add", skip_rescale=False, resample="pool", padding="CIRCULAR"),
        normal(0, BATCH, 4, 1),
        (4, 3),
    ),
    "unet, progressive": (
        UNet(**SMALL, resample="fir", updown="projected", inputs="residual", outputs="skip", time_features=6),
        normal(0, BATCH, 4, 4, 2),
        2,
    ),
    "encoder": (ConvEncoder(channels=(8, 8), width=12), normal(0, BATCH, 7, 6, 1), 3),
    "critic": (
        ConvEncoder(channels=(8,), width=12, norm="none", activation="leaky_relu"),
        normal(0, BATCH, 6, 6, 1),
        1,
    ),
    "encoder to maps": (ConvEncoder(channels=(8, 8)), normal(0, BATCH, 7, 6, 1), (2, 2, 3)),
    "decoder": (ConvDecoder(channels=(8, 8)), normal(0, BATCH, 4), (7, 6, 1)),
    "decoder of maps": (ConvDecoder(channels=(8,), norm="none"), normal(0, BATCH, 4, 3, 4), (7, 6, 1)),
    "dcgan generator": (DCGANGenerator((8, 8)), normal(0, BATCH, 4), (7, 6, 1)),
    "dcgan discriminator": (DCGANDiscriminator((8, 8)), normal(0, BATCH, 7, 6, 1), (2, 3)),
    "resgan generator": (ResGenerator((8, 8)), normal(0, BATCH, 4), (7, 6, 1)),
    "resgan discriminator": (ResDiscriminator((8, 8)), normal(0, BATCH, 8, 4, 1), 3),
    "dit": (DiT(width=16, depth=2, heads=2, time_features=16), normal(0, BATCH, 4, 6, 2), 2),
    "tokens": (TokenTransformer(width=16, depth=1, heads=2, norm="rms"), normal(0, BATCH, 5, 4), (5, 3)),
    "style mapping": (StyleMapping(width=8, depth=2, multiplier=1.0), normal(0, BATCH, 5), 6),
    "style synthesis": (StyleSynthesis(channels=(8, 4)), normal(0, BATCH, 4, 6), (7, 6, 2)),
    "style discriminator": (
        StyleDiscriminator(channels=(4, 8), width=8, group=0),
        normal(0, BATCH, 7, 6, 2),
        3,
    ),
    "patchgan": (PatchGAN(channels=(8, 8)), normal(0, BATCH, 8, 6, 2), 1),
    "unet generator": (UNetGenerator(channels=(8, 8, 8)), normal(0, BATCH, 7, 6, 2), (7, 6, 3)),
    "resnet generator": (ResNetGenerator(channels=(8, 8), depth=1), normal(0, BATCH, 7, 6, 2), 3),
}


OPTIONAL = {"unet, other options", "unet, progressive", "dcgan discriminator", "resgan generator"}
OPTIONAL |= {"dcgan generator", "resgan discriminator"}  # half a minute each: `-m slow`
OPTIONAL |= {"style synthesis", "unet generator", "resnet generator"}
EACH = [pytest.param(name, marks=pytest.mark.slow) if name in OPTIONAL else name for name in NETWORKS]
DROPPING = [
    each
    for each, (net, _, _) in zip(EACH, NETWORKS.values(), strict=True)
    if "dropout" in net.__dataclass_fields__
]


def filled(net, *inputs, **options):
    """Random parameters without zeros: layers initialised to zero would hide earlier ones."""
    leaves, tree = jax.tree.flatten(jax.eval_shape(functools.partial(net.init, **options), KEY, *inputs))
    scales = [np.prod(a.shape[:-1]) ** -0.5 if a.ndim > 1 else 1.0 for a in leaves]
    return jax.tree.unflatten(
        tree, [c * normal(i, *a.shape) for i, (c, a) in enumerate(zip(scales, leaves, strict=True))]
    )


@functools.cache
def made(name):
    net, x, out = NETWORKS[name]
    apply = jax.jit(net.apply, static_argnames=("out", "features"))
    return filled(net, x, T, COND, out=out), x, functools.partial(apply, out=out)


@pytest.mark.parametrize("name", EACH)
def test_cond_of_zeros_is_no_cond_and_labels_and_times_matter(name):
    params, x, apply = made(name)
    assert isinstance(NETWORKS[name][0], Network)
    plain = apply(params, x, T, jnp.zeros_like(COND))
    np.testing.assert_array_equal(plain, apply(params, x, T, None))
    for other in (apply(params, x, T, COND), apply(params, x, T + 0.05, jnp.zeros_like(COND))):
        assert np.all(np.abs(other - plain).reshape(BATCH, -1).max(1) > 1e-5)


@pytest.mark.parametrize("name", ["mlp", "critic"])
def test_cond_of_zeros_is_no_cond_without_times_too(name):
    params, x, apply = made(name)
    np.testing.assert_array_equal(apply(params, x, None, jnp.zeros_like(COND)), apply(params, x, None, None))
    assert jnp.abs(apply(params, x, None, COND) - apply(params, x, None, None)).max() > 1e-5


@pytest.mark.parametrize("name", EACH)
def test_no_example_depends_on_another(name):
    params, x, apply = made(name)
    others = (jnp.arange(BATCH) != 3).astype(jnp.float32)
    moved = x + others.reshape(-1, *(1,) * (x.ndim - 1)), T + 0.01 * others, COND * (1 - others)[:, None]
    before, after = apply(params, x, T, COND), apply(params, *moved)
    np.testing.assert_array_equal(before[3], after[3])
    assert np.all(np.abs(before - after).reshape(BATCH, -1).max(1)[others == 1] > 1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "mlp",
        pytest.param("unet", marks=pytest.mark.slow),
        "critic",
        "encoder to maps",
        "decoder",
        "dit",
        "tokens",
    ],
)
def test_bfloat16_computes_near_float32_from_float32_parameters(name):
    params, x, apply = made(name)
    net, _, out = NETWORKS[name]
    low = net.clone(dtype="bfloat16")
    own = jax.eval_shape(functools.partial(low.init, out=out), KEY, x, T, COND)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), own) == jax.tree.map(
        lambda a: (a.shape, a.dtype), params
    )
    expected, actual = (
        apply(params, x, T, COND),
        jax.jit(functools.partial(low.apply, out=out))(params, x, T, COND),
    )
    assert {expected.dtype, actual.dtype, *(a.dtype for a in jax.tree.leaves(own))} == {jnp.dtype("float32")}
    # bfloat16 rounds to 2^-9; some dozen layers later the error is a few per cent of the output, and not 0.
    error = jnp.abs(actual - expected).max() / jnp.abs(expected).max()
    assert 1e-6 < error < 0.06


@pytest.mark.parametrize("name", DROPPING)
def test_dropout_draws_in_training_and_changes_nothing_else(name):
    params, x, _ = made(name)
    net, _, out = NETWORKS[name]
    noisy = net.clone(dropout=0.3)

    def program(net, train):
        return str(
            jax.make_jaxpr(lambda x: net.apply(params, x, T, out=out, train=train, rngs={"dropout": KEY}))(x)
        )

    assert program(noisy, False) == program(net, False) == program(net, True)
    assert "random_bits" in program(noisy, True)
    assert "random_bits" not in program(noisy, False)


def test_dropout_follows_its_key():
    params, x, _ = made("mlp")
    net, _, out = NETWORKS["mlp"]
    train = functools.partial(net.clone(dropout=0.3).apply, out=out, train=True)
    call = jax.jit(lambda key: train(params, x, T, rngs={"dropout": key}))
    np.testing.assert_array_equal(call(KEY), call(KEY))
    assert jnp.abs(call(KEY) - call(jax.random.key(1))).max() > 1e-3


@pytest.mark.parametrize("name", ["mlp", "unet", "encoder", "encoder to maps", "decoder", "dit", "tokens"])
def test_the_output_layer_starts_at_zero_if_requested(name):
    net, x, out = NETWORKS[name]
    for zero in (True, False):
        init = functools.partial(net.clone(zero_out=zero).init, out=out)
        last = jax.jit(lambda init=init: init(KEY, x, T, COND)["params"]["out"])()
        assert jnp.all(last["kernel"] == 0) == zero
        assert jnp.all(last["bias"] == 0)


def test_a_zero_residual_block_starts_as_its_skip():
    x = normal(0, 2, 4, 4, 8)
    block = ResBlock(8, rescale=False)
    np.testing.assert_array_equal(jax.jit(lambda x: block.apply(block.init(KEY, x), x))(x), x)


def test_a_circular_unet_commutes_with_shifts_by_its_coarsest_pixel():
    net, x = UNet(**SMALL, padding="CIRCULAR"), normal(0, 2, 8, 8, 1)
    params = filled(net, x, T[:2], out=1)
    apply = jax.jit(functools.partial(net.apply, out=1))
    shift = lambda x, by: jnp.roll(x, (by, -by), (1, 2))
    before, after = apply(params, shift(x, 2), T[:2]), shift(apply(params, x, T[:2]), 2)
    np.testing.assert_allclose(before, after, atol=2e-5)
    assert jnp.abs(apply(params, shift(x, 1), T[:2]) - shift(apply(params, x, T[:2]), 1)).max() > 1e-2


def test_self_attention_commutes_with_permutations_of_positions():
    x, order = normal(0, 2, 12, 8), np.random.default_rng(0).permutation(12)
    attend = SelfAttention(heads=2)
    params = filled(attend, x)
    apply = jax.jit(attend.apply)
    y = apply(params, x)
    assert jnp.abs(y - x).max() > 0.1
    np.testing.assert_allclose(apply(params, x[:, order]), y[:, order], atol=2e-5)


def test_a_sharded_batch_takes_the_same_gradient_step_and_is_never_gathered():
    net, x = (
        nn.Sequential([ResBlock(4), Downsample(), SelfAttention(), Upsample(4)]),
        normal(0, BATCH, 6, 6, 4),
    )
    params = filled(net, x)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    over, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())

    def gradient(params, x):
        return jax.grad(lambda params: jnp.square(net.apply(params, x) - x).mean())(params)

    program = (
        jax.jit(gradient, in_shardings=(everywhere, over), out_shardings=everywhere)
        .lower(params, x)
        .compile()
    )
    for word in ("all-gather", "all-to-all", "collective-permute"):
        assert word not in program.as_text()
    ours, theirs = (
        program(jax.device_put(params, everywhere), jax.device_put(x, over)),
        jax.jit(gradient)(params, x),
    )
    for a, e in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-5 * (1e-2 + np.abs(e).max()))


@pytest.mark.parametrize(("width", "depth", "k", "d", "m"), [(16, 2, 3, 5, 6), (10, 1, 4, 2, 2)])
def test_the_number_of_parameters_of_an_mlp(width, depth, k, d, m):
    x, cond = jnp.zeros((1, d)), jnp.zeros((1, k))
    params = jax.eval_shape(functools.partial(MLP(width, depth).init, out=m), KEY, x, T[:1], cond)
    square, norm = width * (width + 1), 2 * width
    embedding = 2 * square + k * width
    block = 2 * square + 2 * norm + 2 * width * width
    expected = embedding + (d + 1) * width + depth * block + norm + (width + 1) * m
    assert sum(a.size for a in jax.tree.leaves(params)) == expected


def test_the_encoders_output_is_affine_in_its_features():
    params, x, apply = made("encoder")
    features = apply(params, x, T, COND, features=True)
    last = params["params"]["out"]
    np.testing.assert_allclose(
        features @ last["kernel"] + last["bias"][None], apply(params, x, T, COND), atol=1e-5
    )


def test_every_pixel_of_a_decoder_depends_on_the_code():
    params, x, apply = made("decoder")
    assert jnp.all(apply(params, x, T, COND) != apply(params, x + 1, T, COND))


@pytest.mark.parametrize(
    ("channels", "groups"), [(2, 1), (8, 2), (10, 2), (12, 3), (7, 1), (128, 32), (256, 32)]
)
def test_group_norm_takes_the_most_groups_that_divide_with_four_channels_each(channels, groups):
    x = normal(0, 1, 3, channels)
    y = GroupNorm(epsilon=0.0).bind({"params": {"scale": jnp.ones(channels), "bias": jnp.zeros(channels)}})(x)
    means = np.asarray(y).reshape(3, groups, channels // groups).mean((0, 2))
    np.testing.assert_allclose(means, 0, atol=1e-5)
    assert np.std(np.asarray(y).mean(1)) > 1e-3  # not each channel separately


X = jnp.zeros((1, 6, 6, 1))


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("pad the data to 8 x 8", lambda: UNet().init(KEY, X, out=1)),
        (r"\(6, 6, 2\)", lambda: UNet(multipliers=(1, 1)).init(KEY, X, out=(5, 6, 2))),
        ("0 to 1", lambda: UNet(multipliers=(1, 1), attention=(2,)).init(KEY, X, out=1)),
        ("heads=3", lambda: SelfAttention(heads=3).init(KEY, jnp.zeros((1, 2, 8)))),
        (r"\(3, 3, 4\)", lambda: ConvEncoder(channels=(8,)).init(KEY, X, out=(2, 2, 4))),
        (r"\(h, w, c\)", lambda: ConvDecoder().init(KEY, X[:, 0, :, 0], out=3)),
        (r"\(1, 1\)", lambda: ConvDecoder().init(KEY, X, out=(6, 6, 1))),
        ("even", lambda: MLP(time="fourier").clone(width=1).init(KEY, X, T[:1], out=1)),
    ],
)
def test_wrong_sizes_raise_one_line_with_the_remedy(words, call):
    with pytest.raises(UserError, match=words) as error:
        jax.eval_shape(call)
    assert "\n" not in str(error.value)
