"""Samplers of tokens with the exact denoiser of a known distribution, by the shared sampling loop."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles_tokens import Joint, index, product, sequences
from scipy import stats

from genjax.core.errors import UserError
from genjax.diffusion.discrete import Absorbing, CosineNoise, UniformNoise
from genjax.parallel.mesh import batch_sharding, make_mesh
from genjax.samplers.scan import sample
from genjax.samplers.tokens import Confidence, TokenAncestral, nucleus

pytestmark = pytest.mark.optimised

JOINT = Joint(3, 2)
NUM = 20_000
PROCESSES = [Absorbing(3, CosineNoise()), pytest.param(UniformNoise(3), marks=pytest.mark.slow)]
by_name = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)


def drawn(process, sampler, num=NUM, joint=JOINT, trace=False, seed=0):
    """Samples from the prior on, or their paths."""

    @jax.jit
    def draw_samples(key):
        shape = (num, joint.length)
        start = process.prior(jax.random.fold_in(key, 99), shape)
        return sample(joint.denoise(process), process, sampler, key, shape, start=start, trace=trace)

    return np.asarray(draw_samples(jax.random.key(seed)))


def predicted(process, steps: int) -> np.ndarray:
    """The distribution of samples after `steps` ancestral steps, by matrices over all sequences."""
    with jax.enable_x64(True):
        noisy = sequences(process.symbols, JOINT.length)
        law = product(np.exp(np.asarray(process_prior(process))))
        times = np.linspace(1.0, 0.0, steps + 1)
        for t, s in itertools.pairwise(times):
            log_p = jnp.log(jnp.asarray(np.maximum(JOINT.posterior(process, t), 1e-300)))
            back = process.log_backward(jnp.asarray(noisy), log_p, jnp.asarray(t), jnp.asarray(s))
            law = law @ product(np.exp(np.asarray(back)))
        return law[index(JOINT.clean, process.symbols)]


def process_prior(process) -> np.ndarray:
    """Log-probabilities of x_1 at each position."""
    first = np.full((JOINT.length, process.symbols), -np.inf)
    first[:, process.vocab if isinstance(process, Absorbing) else slice(None)] = 0.0
    return first - np.log(np.exp(first).sum(-1, keepdims=True))


def p_value(x: np.ndarray, law: np.ndarray) -> float:
    counts = np.bincount(index(x, JOINT.values), minlength=law.size)
    return float(stats.chisquare(counts, len(x) * law / law.sum()).pvalue)


@by_name
def test_few_steps_have_the_predicted_distribution(process):
    """It differs strongly from that of the data."""
    x, law = drawn(process, TokenAncestral(3)), predicted(process, 3)
    np.testing.assert_allclose(law.sum(), 1.0, rtol=1e-9)
    assert p_value(x, law) > 1e-3
    assert p_value(x, JOINT.p) < 1e-6


@pytest.mark.slow
@by_name
def test_many_steps_draw_the_data(process):
    """The bias of T steps falls like 1 / T; with enough steps samples follow the data."""
    bias = [np.abs(predicted(process, steps) - JOINT.p).sum() for steps in (8, 16, 32)]
    assert 1.7 < bias[0] / bias[1] < 2.3
    assert 1.7 < bias[1] / bias[2] < 2.3
    assert p_value(drawn(process, TokenAncestral(150)), JOINT.p) > 1e-3


def test_revealed_tokens_do_not_change():
    path = drawn(Absorbing(3), TokenAncestral(12), num=500, trace=True)
    before, after = path[:-1], path[1:]
    assert (path[0] == 3).all()
    assert (path[-1] < 3).all()
    assert (after[before < 3] == before[before < 3]).all()
    hidden = (path == 3).mean(axis=(1, 2))
    np.testing.assert_allclose(hidden, np.linspace(1, 0, 13), atol=4 * 0.5 / np.sqrt(1000))


def test_one_token_a_step_in_random_order_is_exact():
    """Any-order sampling; the same number of ancestral steps is not exact."""
    random = Confidence(steps=2, choice=1e6)
    assert p_value(drawn(Absorbing(3), random), JOINT.p) > 1e-3
    assert np.abs(predicted(Absorbing(3), 2) - JOINT.p).sum() > 0.05


def test_confidence_reveals_the_most_confident_as_scheduled():
    joint, process = Joint(2, 6, seed=4), Absorbing(2, CosineNoise())
    path = drawn(process, Confidence(steps=5, choice=0.0), num=64, joint=joint, trace=True)
    noise = np.sin(np.pi / 2 * np.linspace(1, 0, 6))
    hidden = (path == 2).sum(-1)
    assert (hidden == np.floor(6 * noise + 1e-4).astype(int)[:, None]).all()
    kept = path[:-1] < 2
    assert (path[1:][kept] == path[:-1][kept]).all()
    with jax.enable_x64(True):
        p = joint.posterior(process, 0.5)[index(path, 3)]  # [steps + 1, b, n, K]
    compared = 0
    for now, then, law in zip(path[:-1], path[1:], p[:-1], strict=True):
        new = (now == 2) & (then < 2)
        sureness = np.take_along_axis(law, np.minimum(then, 1)[..., None], -1)[..., 0]
        least = np.where(new, sureness, np.inf).min(-1)
        left = (then == 2).any(-1) & new.any(-1)
        other = np.where(then == 2, law.min(-1), -np.inf).max(-1)  # each hidden draw was at least this sure
        assert (least[left] >= other[left] - 1e-6).all()
        compared += left.sum()
    assert compared > 100


@pytest.mark.slow
def test_temperature_and_nucleus_change_the_distribution_of_one_step():
    process = Absorbing(3)
    law = JOINT.posterior(process, 1.0)[-1]
    cold = law**2.0 / (law**2.0).sum(-1, keepdims=True)
    assert p_value(drawn(process, TokenAncestral(1, temperature=0.5)), product(cold)) > 1e-3
    kept = np.asarray(
        jnp.exp(nucleus(jnp.log(jnp.asarray([[0.5, 0.1, 0.3, 0.1], [0.2, 0.05, 0.05, 0.7]])), 0.75))
    )
    np.testing.assert_allclose(kept, [[0.625, 0, 0.375, 0], [2 / 9, 0, 0, 7 / 9]], rtol=1e-5)
    greedy = drawn(process, TokenAncestral(1, top_p=1e-6), num=100)
    assert (greedy == law.argmax(-1)).all()


@pytest.mark.parametrize("sampler", [TokenAncestral(2), Confidence(2)], ids=lambda s: type(s).__name__)
def test_sharded_equals_one_device(sampler):
    process, mesh = Absorbing(3), make_mesh("data:8")

    def draw_samples(key):
        start = process.prior(key, (64, 2))
        return sample(JOINT.denoise(process), process, sampler, key, (64, 2), start=start)

    compiled = jax.jit(draw_samples, out_shardings=batch_sharding(mesh)).lower(jax.random.key(0)).compile()
    sharded = compiled(jax.random.key(0))
    assert {shard.data.shape for shard in sharded.addressable_shards} == {(8, 2)}
    np.testing.assert_array_equal(sharded, jax.jit(draw_samples)(jax.random.key(0)))
    assert "all-gather" not in compiled.as_text()


def test_temperature_is_the_inverse_power_and_the_nucleus_the_smallest_set():
    log_p = jnp.log(jnp.asarray([[0.3, 0.5, 0.2]]))
    root = np.sqrt([[0.3, 0.5, 0.2]])
    for sampler in (TokenAncestral, Confidence):
        np.testing.assert_allclose(
            jnp.exp(sampler(temperature=2.0)._sharpened(log_p)), root / root.sum(), rtol=1e-5
        )
    for share, kept in ((0.5, [0, 1, 0]), (0.6, [0.375, 0.625, 0]), (0.81, [0.3, 0.5, 0.2])):
        np.testing.assert_allclose(jnp.exp(nucleus(log_p, share)), [kept], rtol=1e-5)


def test_invalid_settings_raise():
    process = UniformNoise(3)
    x, times = jnp.zeros((1, 2), jnp.int32), (jnp.asarray(1.0), jnp.asarray(0.5))
    sampler = Confidence(2)
    with pytest.raises(UserError, match="Confidence is for Absorbing, not UniformNoise"):
        sampler.step(JOINT.denoise(process), process, sampler.init(x), *times, jax.random.key(0))
    for wrong in ({"steps": 0}, {"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            TokenAncestral(**wrong)
