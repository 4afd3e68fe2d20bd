"""Transformers: blocks against their equations, the scan against a loop, positions, causality."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from test_networks import COND, KEY, T, filled, normal

from genjax.core.errors import UserError
from genjax.networks import DiT, TokenTransformer
from genjax.networks.layers import ops, positions
from genjax.networks.layers.linen import Norm
from genjax.networks.transformers.attention import Block
from genjax.networks.transformers.dit import dit
from genjax.networks.transformers.transformer import Transformer

pytestmark = pytest.mark.xdist_group("networks_transformer")  # one process builds the shared fixtures


class Body(Transformer):
    """The body alone: x + positions, then the blocks."""

    @nn.compact
    def __call__(self, x, e=None, shape=None):
        return self.body(x, e, shape or x.shape[1:-1])


SMALL = {"width": 8, "depth": 3, "heads": 2, "mlp_ratio": 1.5}
X, E = normal(0, 2, 6, 8), normal(1, 2, 8)


def norm64(z, centre):
    z = z - z.mean(-1, keepdims=True) * centre
    return z / np.sqrt((z**2).mean(-1, keepdims=True) + 1e-6)


def gelu64(z):
    return 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))


def block64(p, x, e, mlp, centre, see):
    """The equations of a block with 2 heads of 4 features, in float64."""
    b, n, c = x.shape
    dense = lambda name, z: z @ p[name]["kernel"] + p[name].get("bias", 0.0)
    affine = lambda name, z: norm64(z, centre) * p[name]["scale"] + p[name].get("bias", 0.0)
    if e is None:
        first, second, g1, g2 = (lambda z: affine("norm1", z)), (lambda z: affine("norm2", z)), 1.0, 1.0
    else:
        m1, s1, g1, m2, s2, g2 = np.split(dense("modulate", e / (1 + np.exp(-e))), 6, -1)
        g1, g2 = g1[:, None], g2[:, None]
        first = lambda z: norm64(z, centre) * (1 + s1[:, None]) + m1[:, None]
        second = lambda z: norm64(z, centre) * (1 + s2[:, None]) + m2[:, None]
    q, k, v = (z.reshape(b, n, 2, 4) for z in np.split(dense("qkv", first(x)), 3, -1))
    if "q_norm" in p:
        q, k = norm64(q, False) * p["q_norm"]["scale"], norm64(k, False) * p["k_norm"]["scale"]
    weights = np.exp(np.einsum("bnhd,bmhd->bhnm", q, k) / 2.0) * see
    h = np.einsum("bhnm,bmhd->bnhd", weights / weights.sum(-1, keepdims=True), v).reshape(b, n, c)
    x = x + g1 * dense("out", h)
    h = dense("mlp_in", second(x))
    if mlp == "swiglu":
        gate, h = np.split(h, 2, -1)
        h = gate / (1 + np.exp(-gate)) * h
    else:
        h = gelu64(h)
    return x + g2 * dense("mlp_out", h)


@pytest.mark.parametrize(
    ("options", "e"),
    [
        ({}, E),
        ({"mlp": "swiglu", "norm": "rms", "qk_norm": True, "causal": True, "bias": False}, None),
        ({"norm": "layer", "causal": True}, None),
        ({"mlp": "swiglu", "norm": "rms", "qk_norm": True}, E),
    ],
)
def test_a_block_is_its_equations(options, e):
    block = Block(heads=2, hidden=12, **options)
    params = filled(block, X, e)
    flat = jax.tree.map(np.float64, params["params"])
    assert not options or options.get("bias", True) or "bias" not in flat["qkv"]
    see = np.tri(6) if block.causal else np.ones((6, 6))
    wide = None if e is None else np.float64(e)
    expected = block64(flat, np.float64(X), wide, block.mlp, block.norm == "layer", see)
    np.testing.assert_allclose(jax.jit(block.apply)(params, X, e), expected, atol=2e-5, rtol=1e-5)


@functools.cache
def value_and_gradients(remat, position="rotary"):
    net = Body(**SMALL, position=position, qk_norm=True, remat=remat)
    params = filled(net, X, E)

    def scanned(params, x, e):
        return jnp.sin(net.apply(params, x, e)).sum()

    def looped(params, x, e):
        angles = positions.angles(positions.grid((6,)), 4)
        for layer in range(net.depth):
            own = jax.tree.map(lambda a, layer=layer: a[layer], params["params"]["blocks"])
            x = net.block().apply({"params": own}, x, e, angles)
        return jnp.sin(x).sum()

    both = (scanned, looped) if remat == "none" else (scanned,)
    return [jax.jit(jax.value_and_grad(f, (0, 1, 2)))(params, X, E) for f in both]


def close(actual, expected, tolerance=2e-5):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * (1e-2 + np.abs(e).max()))


def test_the_scan_over_layers_is_the_loop_over_the_slices_of_its_parameters():
    scanned, looped = value_and_gradients("none")
    close(scanned, looped)


@pytest.mark.parametrize("remat", ["dots", "full"])
@pytest.mark.slow
def test_remat_changes_neither_values_nor_gradients(remat):
    close(value_and_gradients(remat), value_and_gradients("none")[:1], 1e-5)
    net = Body(**SMALL, remat=remat)
    program = str(jax.make_jaxpr(lambda p: net.apply(p, X, E))(filled(net, X, E)))
    assert "checkpoint" in program or "remat" in program


@pytest.mark.slow
def test_adaln_zero_starts_as_the_identity_and_the_diffusion_transformer_as_zero():
    net = Body(**SMALL, position="none")
    np.testing.assert_array_equal(jax.jit(lambda: net.apply(net.init(KEY, X, E), X, E))(), X)
    net, x = DiT(width=8, depth=1, heads=2, time_features=8), normal(0, 8, 4, 4, 1)

    @jax.jit
    def start():
        params = net.init(KEY, x, T, COND, out=1)
        loss = lambda params: jnp.square(net.apply(params, x, T, COND, out=1) - x).mean()
        return net.apply(params, x, T, COND, out=1), jax.grad(loss)(params)

    y, gradient = start()
    np.testing.assert_array_equal(y, jnp.zeros_like(x))
    assert jnp.all(jnp.abs(gradient["params"]["out"]["kernel"]).max(0) > 0)


@pytest.mark.parametrize("position", ["none", "learned", "sinusoidal", "rotary"])
def test_the_body_commutes_with_permutations_unless_it_has_positions(position):
    net, order = Body(**SMALL, position=position), np.random.default_rng(0).permutation(6)
    params = filled(net, X, E)
    apply = jax.jit(net.apply)
    error = jnp.abs(apply(params, X[:, order], E) - apply(params, X, E)[:, order]).max()
    assert error < 2e-5 if position == "none" else error > 1e-2


def test_rotary_logits_depend_on_differences_of_positions_only_as_complex_numbers_do():
    q, k = normal(0, 1, 12, 1, 8), normal(1, 1, 12, 1, 8)
    places = positions.grid((3, 1, 4))
    np.testing.assert_array_equal(places, [[i, j] for i in range(3) for j in range(4)])
    angles = positions.angles(places, 8, base=100.0)
    turned = lambda z: np.asarray(positions.rotate(z, angles), np.float64)[0, :, 0]
    omega = np.asarray([1.0, 0.1])
    as_complex = lambda z: np.float64(z[0, :, 0, :4]) + 1j * np.float64(z[0, :, 0, 4:])
    apart = np.asarray(places)[:, None] - np.asarray(places)[None]
    phase = np.exp(1j * (apart[..., None] * omega).reshape(12, 12, 4))
    expected = np.einsum("ip,jp,ijp->ij", as_complex(q), as_complex(k).conj(), phase).real
    np.testing.assert_allclose(turned(q) @ turned(k).T, expected, atol=1e-5)


def test_sinusoidal_positions_give_each_axis_half_and_differ_everywhere():
    waves = np.asarray(positions.sinusoidal(positions.grid((5, 7)), 16)).reshape(5, 7, 16)
    assert np.ptp(waves[..., :8], axis=1).max() == np.ptp(waves[..., 8:], axis=0).max() == 0
    np.testing.assert_allclose(waves[3, :, [0, 4]].T, np.tile([np.cos(3), np.sin(3)], (7, 1)), atol=1e-6)
    np.testing.assert_allclose(waves[:, 6, [9, 13]], np.tile([np.cos(0.6), np.sin(0.6)], (5, 1)), atol=1e-6)


TOKENS = {"width": 8, "depth": 2, "heads": 2, "time_features": 8}


@pytest.mark.parametrize("causal", [True, False])
def test_causal_logits_do_not_depend_on_later_tokens(causal):
    net = TokenTransformer(**TOKENS, causal=causal, position="rotary", mlp="swiglu", norm="rms", qk_norm=True)
    x = normal(0, 1, 5, 4)
    params = filled(net, x, out=3)
    jacobian = jax.jit(jax.jacrev(lambda x: jnp.sin(net.apply(params, x, out=3)[0]).sum(-1)))(x)[:, 0]
    size = np.abs(jacobian).max(-1)
    assert np.all((size > 1e-6) == (np.tri(5) if causal else np.ones((5, 5))))
    np.testing.assert_array_equal(size[np.triu_indices(5, 1)] == 0, causal)


@pytest.mark.slow
def test_tokens_equal_one_hot_weights():
    net = TokenTransformer(**TOKENS, extra=2)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 5, (8, 2, 3)))
    params = filled(net, x, T, out=3)
    apply = jax.jit(functools.partial(net.apply, out=(2, 3, 3)))
    logits = apply(params, x, T)
    assert logits.shape == (8, 2, 3, 3)
    np.testing.assert_allclose(logits, apply(params, jax.nn.one_hot(x, 5), T), atol=1e-5)
    swapped = {
        "params": {**params["params"], "tokens": params["params"]["tokens"][jnp.asarray([1, 0, 2, 3, 4])]}
    }
    np.testing.assert_array_equal(apply(swapped, jnp.where(x < 2, 1 - x, x), T), logits)
    assert jnp.abs(apply(params, jnp.where(x < 2, 1 - x, x), T) - logits).max() > 1e-2


@pytest.mark.parametrize("qk_norm", [True, False])
def test_normalised_queries_and_keys_have_no_scale(qk_norm):
    block = Block(heads=2, hidden=8, qk_norm=qk_norm)
    params = filled(block, X)
    factor = jnp.asarray([5.0] * 8 + [0.3] * 8 + [1.0] * 8)
    scaled = {
        name: a * (factor[None] if a.ndim == 2 else factor) for name, a in params["params"]["qkv"].items()
    }
    apply = jax.jit(block.apply)
    error = jnp.abs(apply(params, X) - apply({"params": {**params["params"], "qkv": scaled}}, X)).max()
    assert error < 1e-4 if qk_norm else error > 1e-2


def test_a_diffusion_transformer_without_positions_commutes_with_shifts_by_patches():
    net, x = DiT(width=8, depth=1, heads=2, position="none", patch=2), normal(0, 2, 4, 6, 3)
    params = filled(net, x, T[:2], out=2)
    apply = jax.jit(functools.partial(net.apply, out=(4, 6, 2)))
    shift = lambda x, by: jnp.roll(x, (by, -by), (1, 2))
    y = apply(params, x, T[:2])
    np.testing.assert_allclose(apply(params, shift(x, 2), T[:2]), shift(y, 2), atol=2e-5)
    assert jnp.abs(apply(params, shift(x, 1), T[:2]) - shift(y, 1)).max() > 1e-2


@pytest.mark.parametrize(("size", "millions"), [("S", 33), ("B", 130), ("L", 458), ("XL", 675)])
def test_the_published_sizes_have_the_published_numbers_of_parameters(size, millions):
    x, cond = jnp.zeros((1, 32, 32, 4)), jnp.zeros((1, 1000))
    params = jax.eval_shape(functools.partial(dit(size).init, out=8), KEY, x, T[:1], cond)
    assert abs(sum(a.size for a in jax.tree.leaves(params)) / (millions * 1e6) - 1) < 0.01


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norms_are_the_textbooks(kind):
    norm, x = Norm(kind, epsilon=0.1), 2 + normal(0, 3, 4, 5)
    params = filled(norm, x)
    scale, bias = (np.float64(params["params"].get(name, 0.0)) for name in ("scale", "bias"))
    z = np.float64(x)
    deviation = z - z.mean(-1, keepdims=True) if kind == "layer" else z
    expected = deviation / np.sqrt((deviation**2).mean(-1, keepdims=True) + 0.1) * scale + bias
    np.testing.assert_allclose(jax.jit(norm.apply)(params, x), expected, atol=1e-5)


def test_masked_keys_have_no_effect():
    q, k, v = normal(0, 2, 4, 2, 3), normal(1, 2, 4, 2, 3), normal(2, 2, 4, 2, 3)
    mask = jnp.broadcast_to(jnp.arange(4) < 3, (2, 4, 4))
    y, few = jax.jit(lambda *a: (ops.attention(*a, mask=mask), ops.attention(q, *(z[:, :3] for z in a[1:]))))(
        q, k, v
    )
    np.testing.assert_allclose(y, few, atol=1e-6)
    causal = jax.jit(lambda *a: ops.attention(*a, causal=True))(q, k, v)
    below = jnp.broadcast_to(jnp.tri(4, dtype=bool), (2, 4, 4))
    np.testing.assert_allclose(causal, jax.jit(lambda *a: ops.attention(*a, mask=below))(q, k, v), atol=1e-6)


IDS = jnp.zeros((1, 6), jnp.int32)


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("heads=3", lambda: Block(heads=3).init(KEY, X)),
        ("patch=3", lambda: DiT(patch=3).init(KEY, normal(0, 1, 4, 4, 1), T[:1], out=1)),
        (r"\(4, 4, 2\)", lambda: DiT().init(KEY, normal(0, 1, 4, 4, 1), T[:1], out=(2, 4, 2))),
        (r"\(6, 5\)", lambda: TokenTransformer().init(KEY, IDS, out=(3, 5))),
        ("extra=1", lambda: TokenTransformer().init(KEY, normal(0, 1, 4, 3), out=3)),
        ("divisible by 4", lambda: DiT(width=6, heads=1).init(KEY, normal(0, 1, 4, 4, 1), T[:1], out=1)),
    ],
)
def test_wrong_sizes_raise_one_line_with_the_remedy(words, call):
    with pytest.raises(UserError, match=words) as error:
        jax.eval_shape(call)
    assert "\n" not in str(error.value)
