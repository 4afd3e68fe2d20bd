"""Noising of tokens and the bounds on their log-probability, against enumeration of all short sequences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles_tokens import Joint, cumulative, enumerated, sequences

from genjax.core.errors import UserError
from genjax.diffusion.discrete import (
    Absorbing,
    CosineNoise,
    Geometric,
    Polynomial,
    UniformNoise,
    classifier_free_tokens,
    log_at,
    one_hot_log,
)
from genjax.diffusion.token_bounds import ContinuousTime, DiscreteTime

SCHEDULES = [Polynomial(), Polynomial(2.0), CosineNoise(), Geometric()]
PROCESSES = [Absorbing(3), UniformNoise(3), Absorbing(3, CosineNoise()), UniformNoise(3, Geometric())]
by_name = pytest.mark.parametrize(
    "process", PROCESSES, ids=lambda p: f"{type(p).__name__}-{type(p.schedule).__name__}"
)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_schedules_increase_from_0_to_1(schedule):
    """Ends exact in float32, monotone, and with small relative error near 0."""
    t = jnp.linspace(0.0, 1.0, 1001)
    noise = np.asarray(schedule.noise(t))
    assert noise[0] == 0.0
    assert abs(noise[-1] - 1.0) <= 1.2e-7
    assert noise.max() <= 1.0 + 1.2e-7
    assert (np.diff(noise) >= 0.0).all()
    early = np.geomspace(1e-7, 1e-3, 9)
    with jax.enable_x64(True):
        exact = np.asarray(schedule.noise(jnp.asarray(early)))
    np.testing.assert_allclose(schedule.noise(jnp.asarray(early, jnp.float32)), exact, rtol=1e-6)


def test_the_schedules_are_the_papers():
    """-log alpha of the geometric schedule grows by equal factors in equal times; the cosine matches MaskGIT."""
    with jax.enable_x64(True):
        t = jnp.linspace(0.0, 1.0, 7)
        ends = np.exp(-1e-3), np.exp(-20.0)
        alpha = (1.0 - np.asarray(Geometric().noise(t))) * (ends[0] - ends[1]) + ends[1]
        np.testing.assert_allclose(np.diff(np.log(-np.log(alpha))), np.log(2e4) / 6, rtol=1e-9)
        np.testing.assert_allclose(
            CosineNoise().noise(t), np.cos(np.pi / 2 * (1 - np.asarray(t))), atol=1e-15
        )


@by_name
def test_reverse_transition_matches_bayes_rule_by_matrices(process):
    """q(x_s | x_t, x_0) and its mean over p(x_0 | x_t), from products of transition matrices."""
    with jax.enable_x64(True):
        symbols, steps, back = process.symbols, 5, jax.jit(process.log_backward)
        times = np.arange(steps + 1) / steps
        levels = [cumulative(process, t) for t in times]
        x, x0 = (a.ravel() for a in np.meshgrid(np.arange(symbols), np.arange(3), indexing="ij"))
        p = np.random.default_rng(1).dirichlet(np.ones(3), symbols)
        for i in range(1, steps + 1):
            step = np.linalg.solve(levels[i - 1], levels[i])  # Q_t, D3PM's eq. 2
            np.testing.assert_allclose(step.sum(1), 1.0)
            assert (step > -1e-12).all()
            joint = levels[i - 1][:3, :, None] * step[None]  # q(x_s, x_t | x_0)
            total = joint.sum(1)
            bayes = joint / np.where(total > 0, total, np.inf)[:, None]
            t, s = (jnp.full(len(x), value) for value in times[[i, i - 1]])
            ours = np.exp(back(jnp.asarray(x)[:, None], one_hot_log(jnp.asarray(x0)[:, None], 3), t, s))
            possible = total[x0, x] > 0
            np.testing.assert_allclose(ours[possible, 0], bayes[x0, :, x][possible], atol=1e-12)
            mixed = back(jnp.arange(symbols)[:, None], jnp.log(p)[:, None], t[0], s[0])
            known = p * (total.T > 0)  # p(x_0 | x_t), impossible x_0 removed, in the rows of possible x_t
            can = known.sum(1) > 0
            mean = np.einsum("tz,zst->ts", known, bayes)[can] / known[can].sum(1, keepdims=True)
            np.testing.assert_allclose(np.exp(mixed)[can, 0], mean, atol=1e-12)


@by_name
def test_corrupted_tokens_have_the_marginal_distribution(process):
    """Chi-square of draws against q(x_t | x_0), with a time for each example."""
    t = jnp.repeat(jnp.asarray([0.25, 0.7]), 30_000)
    x0 = jnp.broadcast_to(jnp.asarray([0, 2]), (60_000, 2))
    x = np.asarray(process.corrupt(jax.random.key(0), x0, t))
    assert x.dtype == np.int32
    for half, time in enumerate((0.25, 0.7)):
        for place, token in enumerate((0, 2)):
            counts = np.bincount(x[half * 30_000 : (half + 1) * 30_000, place], minlength=process.symbols)
            expected = 30_000 * cumulative(process, time)[token]
            assert (counts[expected == 0] == 0).all()
            seen = expected > 0
            assert (
                np.sum((counts - expected)[seen] ** 2 / expected[seen]) < 22.0
            )  # 3 degrees of freedom: 1e-4
    np.testing.assert_array_equal(process.corrupt(jax.random.key(0), x0, jnp.zeros(60_000)), x0)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_continuous_bound_of_the_exact_denoiser_is_the_log_probability(schedule):
    """For every sequence, by the any-order identity, for every schedule."""
    with jax.enable_x64(True):
        joint = Joint(2, 3)
        process = Absorbing(joint.values, schedule)
        exact = np.log(np.maximum(joint.posterior(process, 0.5), 1e-300))
        nodes = 400 if isinstance(schedule, Geometric) else 40
        bound = enumerated(ContinuousTime(), process, lambda t: exact, joint.clean, nodes)
        np.testing.assert_allclose(-bound, np.log(joint.p), atol=1e-7)


def test_the_exact_posterior_of_masks_does_not_depend_on_time():
    with jax.enable_x64(True):
        joint, process = Joint(3, 2), Absorbing(3)
        early, late = joint.posterior(process, 0.1), joint.posterior(process, 0.9)
        np.testing.assert_allclose(early, late, atol=1e-12)


def wrong_log_p(process, length, seed=3):
    """An inexact denoiser: one table for all times."""
    logits = np.random.default_rng(seed).normal(size=(process.symbols**length, length, process.vocab))
    return np.asarray(jax.nn.log_softmax(jnp.asarray(1.5 * logits)))


def test_bounds_of_any_denoiser_are_normalised_and_independent_of_the_schedule():
    """sum_x exp(-bound) <= 1; the continuous bound is equal for all schedules, and the limit of T steps."""
    with jax.enable_x64(True):
        clean = sequences(3, 2)
        table = wrong_log_p(Absorbing(3), 2)
        nodes = [40, 40, 40, 400]  # Geometric is steep near both ends
        values = [
            enumerated(ContinuousTime(), Absorbing(3, schedule), lambda t: table, clean, count)
            for schedule, count in zip(SCHEDULES, nodes, strict=True)
        ]
        for value in values[1:]:
            np.testing.assert_allclose(value, values[0], rtol=1e-6)
        assert 0.5 < np.exp(-values[0]).sum() < 1.0
        for process in (Absorbing(3), UniformNoise(3)):
            table = wrong_log_p(process, 2)
            steps = [1, 4, 64]
            bounds = [
                enumerated(DiscreteTime(n), process, lambda t, table=table: table, clean) for n in steps
            ]
            assert all(np.exp(-bound).sum() <= 1.0 + 1e-9 for bound in bounds)
            if isinstance(process, Absorbing):
                gaps = [np.abs(bound - values[0]).max() for bound in bounds]
                assert gaps[1] < 0.5 * gaps[0]
                assert gaps[2] < 0.1 * gaps[1]


def test_one_step_is_the_independent_model_exactly():
    """T = 1 from all masks: the bound is the product of the first predictions, and the model sums to 1."""
    with jax.enable_x64(True):
        process, clean = Absorbing(3), sequences(3, 2)
        table = wrong_log_p(process, 2)
        bound = enumerated(DiscreteTime(1), process, lambda t, table=table: table, clean)
        first = table[-1]
        np.testing.assert_allclose(-bound, first[0, clean[:, 0]] + first[1, clean[:, 1]], atol=1e-12)
        np.testing.assert_allclose(np.exp(-bound).sum(), 1.0)


@pytest.mark.parametrize("process", [Absorbing(3), UniformNoise(3)], ids=lambda p: type(p).__name__)
def test_the_bound_of_t_steps_falls_to_the_entropy(process):
    """With the exact denoiser the mean bound exceeds the entropy by about 1 / T, decreasing in T."""
    with jax.enable_x64(True):
        joint = Joint(3, 2)

        def gap(steps):
            exact = lambda t: np.log(np.maximum(joint.posterior(process, t), 1e-300))
            return joint.p @ enumerated(DiscreteTime(steps), process, exact, joint.clean) - joint.entropy

        gaps = [gap(steps) for steps in (1, 8, 32, 64)]
        assert all(0 < later < earlier for earlier, later in itertools.pairwise(gaps))
        marginals = [joint.p @ (joint.clean[:, i][:, None] == np.arange(3)) for i in range(2)]
        independent = -sum(np.sum(m * np.log(m)) for m in marginals)
        np.testing.assert_allclose(gaps[0], independent - joint.entropy, rtol=1e-9)
        assert 1.7 < gaps[-2] / gaps[-1] < 2.1


def test_absorbing_steps_have_the_closed_form():
    """T KL = T (1 - noise(s) / noise(t)) times the cross-entropy of masked tokens, in float32 and for the gradient."""
    process, bound = Absorbing(5, CosineNoise()), DiscreteTime(10)
    keys = jax.random.split(jax.random.key(0), 3)
    x0 = jax.random.randint(keys[0], (64, 7), 0, 5)
    t = bound.time((jnp.arange(64) + 1.0) / 64)
    x = process.corrupt(keys[1], x0, t)
    logits = jax.random.normal(keys[2], (64, 7, 5))

    def closed(logits):
        log_p = log_at(jax.nn.log_softmax(logits), x0)
        share = 10.0 * (1.0 - process.noise(t - 0.1) / process.noise(t))
        return -share * jnp.sum(jnp.where(x == 5, log_p, 0.0), axis=1)

    ours = lambda logits: bound.nats(process, x0, x, t, jax.nn.log_softmax(logits))
    np.testing.assert_allclose(ours(logits), closed(logits), rtol=2e-5, atol=1e-5)
    slope = [jax.grad(lambda logits, f=f: jnp.sum(f(logits)))(logits) for f in (ours, closed)]
    np.testing.assert_allclose(*slope, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_gradients_of_uniform_noise_are_finite_where_a_prediction_is_certain():
    process, bound = UniformNoise(3), DiscreteTime(4)
    x0, x = jnp.asarray([[0, 1], [0, 1]]), jnp.asarray([[0, 2], [1, 1]])
    logits = jnp.asarray([[[200.0, 0.0, 0.0]] * 2] * 2)
    for time in (0.25, 1.0):
        nats = lambda logits, t: jnp.sum(
            bound.nats(process, x0, x, jnp.full(2, t), jax.nn.log_softmax(logits))
        )
        value, slope = jax.value_and_grad(nats)(logits, time)
        assert np.isfinite(value)
        assert np.isfinite(slope).all()


def test_discrete_times_are_uniform():
    u = (jnp.arange(1000) + 0.5) / 1000
    times, counts = np.unique(np.asarray(DiscreteTime(8).time(u)), return_counts=True)
    np.testing.assert_allclose(times, np.arange(1, 9) / 8)
    assert (counts == 125).all()
    np.testing.assert_allclose(DiscreteTime(8).time(jnp.asarray([0.0, 1e-9, 1.0])), [1 / 8, 1 / 8, 1.0])


def test_guidance_tilts_and_normalises():
    given, free = (np.log(np.random.default_rng(i).dirichlet(np.ones(4), (2, 3))) for i in range(2))
    conditional, unconditional = (lambda x, t, v=v: jnp.asarray(v, jnp.float32) for v in (given, free))
    assert classifier_free_tokens(conditional, unconditional, 1.0) is conditional
    assert classifier_free_tokens(conditional, unconditional, 0.0) is unconditional
    tilted = np.exp(free) * (np.exp(given) / np.exp(free)) ** 2.5
    ours = classifier_free_tokens(conditional, unconditional, 2.5)(jnp.zeros((2, 3)), jnp.asarray(0.5))
    np.testing.assert_allclose(np.exp(ours), tilted / tilted.sum(-1, keepdims=True), rtol=1e-4)


def test_invalid_settings_raise():
    x, t, log_p = jnp.zeros((1, 2), jnp.int32), jnp.ones(1), jnp.zeros((1, 2, 3))
    with pytest.raises(UserError, match="ContinuousTime requires Absorbing, got UniformNoise"):
        ContinuousTime().nats(UniformNoise(3), x, x, t, log_p)
    with pytest.raises(UserError, match="vocab=1 must be at least 2"):
        Absorbing(1)
    with pytest.raises(UserError, match="steps=0 must be at least 1"):
        DiscreteTime(0)
