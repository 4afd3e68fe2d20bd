"""Guidance and thresholds against closed forms of Gaussians, and their exact limits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import GaussianData

from genjax.core.errors import UserError
from genjax.diffusion import guidance
from genjax.diffusion.guidance import ClassifierFree, PlusPlus, Projected
from genjax.diffusion.prediction import score
from genjax.diffusion.process import VP, RectifiedFlow
from genjax.diffusion.threshold import Dynamic, NoThreshold, Static
from genjax.samplers.ode import DDIM
from genjax.samplers.scan import sample

PRIOR, NOISE, Y = GaussianData(mean=0.7, std=0.4), 0.3, -0.2
GIVEN, FREE = GaussianData(mean=1.0, std=0.4), GaussianData(mean=-0.5, std=0.9)
T = 0.4


def states(num: int = 64, dims: int = 5) -> jax.Array:
    return 1.5 * jax.random.normal(jax.random.key(0), (num, dims))


def pair(process):
    return GIVEN.denoise(process), FREE.denoise(process)


def log_prob(process):
    """log p(y | x_t), y = x_0 + noise: x_0 given x_t is Gaussian."""

    def logarithm(x, t):
        x0 = PRIOR.denoise(process)(x, t).x0
        left = PRIOR.std**2 * process.sigma(t) ** 2 / PRIOR.variance(process, t)
        return jnp.sum(-0.5 * (Y - x0) ** 2 / (left + NOISE**2), axis=1)

    return logarithm


def posterior() -> GaussianData:
    precision = PRIOR.std**-2 + NOISE**-2
    mean = (PRIOR.mean * PRIOR.std**-2 + Y * NOISE**-2) / precision
    return GaussianData(mean=mean, std=precision**-0.5)


@pytest.mark.parametrize("process", [VP(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_a_gaussian_classifier_gives_the_posteriors_denoiser(process):
    with jax.enable_x64(True):
        guided = guidance.classifier(PRIOR.denoise(process), log_prob(process), process)
        x = states().astype(jnp.float64)
        for t in (0.02, 0.5, 0.9):
            ours, exact = guided(x, jnp.asarray(t)), posterior().denoise(process)(x, jnp.asarray(t))
            np.testing.assert_allclose(ours.x0, exact.x0, rtol=1e-10, atol=1e-10)
            np.testing.assert_allclose(ours.eps, exact.eps, rtol=1e-10, atol=1e-10)
    last = guided(states(), jnp.asarray(1.0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(last)), "alpha = 0"


def test_guided_samples_follow_the_posterior():
    num = 20_000
    guided = guidance.classifier(PRIOR.denoise(VP()), log_prob(VP()), VP())
    x = jax.jit(lambda key: sample(guided, VP(), DDIM(steps=400), key, (num, 1)))(jax.random.key(1))
    x, exact = np.asarray(x, np.float64), posterior()
    assert abs(x.mean() - exact.mean) < 4 * exact.std / np.sqrt(num) + 2e-3
    assert abs(x.var() / exact.std**2 - 1) < 4 * np.sqrt(2 / num) + 1e-2


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_two_gaussians_guide_to_a_gaussian_of_combined_precision(scale):
    """At each time the guided score is that of p(x_t | c)^w p(x_t)^(1 - w)."""
    process = VP()
    with jax.enable_x64(True):
        x, t = states().astype(jnp.float64), jnp.asarray(T)
        guided = ClassifierFree(scale).apply(*pair(process), process)(x, t)
        given, free = 1 / GIVEN.variance(process, t), 1 / FREE.variance(process, t)
        precision = scale * given + (1 - scale) * free
        shift = process.alpha(t) * (scale * given * GIVEN.mean + (1 - scale) * free * FREE.mean)
        np.testing.assert_allclose(score(guided, process, t), shift - precision * x, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(process.marginal(guided.x0, guided.eps, t), x, rtol=1e-10)


@pytest.mark.parametrize("record_of", [ClassifierFree, Projected])
def test_scale_one_is_the_conditional_model_itself(record_of):
    given, free = pair(VP())
    assert record_of(1.0).apply(given, free, VP()) is given
    assert ClassifierFree(1.0, low=0.2, high=0.5, rescale=0.7).apply(given, free, VP()) is given
    assert ClassifierFree(0.0).apply(given, free, VP()) is free
    assert NoThreshold().constrain(given, VP()) is given


def test_interval_guides_inside_and_skips_the_evaluation_outside():
    process, x, calls = VP(), states(), []
    given, free = pair(process)

    def counted(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return free(x, t)

    guided = jax.jit(ClassifierFree(3.0, low=0.3, high=0.6).apply(given, counted, process))
    everywhere = jax.jit(ClassifierFree(3.0).apply(given, free, process))
    for t, same, evaluations in (
        (0.3, given, 0),
        (0.61, given, 0),
        (0.31, everywhere, 1),
        (0.6, everywhere, 2),
    ):
        now = jnp.asarray(t)
        ours, theirs = guided(x, now), jax.jit(same)(x, now)
        jax.block_until_ready(ours)
        jax.effects_barrier()
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), ours, theirs)
        assert len(calls) == evaluations


def test_rescaling_restores_the_conditional_standard_deviation():
    process, x, t = VP(), states(), jnp.asarray(T)
    given, free = pair(process)
    plain, std = ClassifierFree(4.0).apply(given, free, process)(x, t), lambda p: jnp.std(p.x0, axis=1)
    assert float(jnp.abs(std(plain) / std(given(x, t)) - 1).min()) > 0.1
    for share in (0.5, 1.0):
        ours = ClassifierFree(4.0, rescale=share).apply(given, free, process)(x, t)
        wanted = share * std(given(x, t)) + (1 - share) * std(plain)
        np.testing.assert_allclose(std(ours), wanted, rtol=1e-5)
        np.testing.assert_allclose(process.marginal(ours.x0, ours.eps, t), x, rtol=1e-5, atol=1e-5)


def test_autoguidance_extrapolates_from_the_worse_denoiser():
    """D = w D_1 + (1 - w) D_0 (Karras et al. 2024, eq. 3), and eps follows from x_t."""
    process, x, t, w = VP(), states(), jnp.asarray(T), 2.5
    good, bad = pair(process)
    ours = guidance.autoguidance(good, bad, w)(x, t)
    denoised = w * np.asarray(good(x, t).x0) + (1 - w) * np.asarray(bad(x, t).x0)
    np.testing.assert_allclose(ours.x0, denoised, rtol=1e-5, atol=1e-5)
    eps = (np.asarray(x) - float(process.alpha(t)) * denoised) / float(process.sigma(t))
    np.testing.assert_allclose(ours.eps, eps, rtol=1e-4, atol=1e-5)


def test_projection_removes_what_lies_along_the_conditional_estimate():
    process, x, t = VP(), states(), jnp.asarray(T)
    given, free = pair(process)
    whole = ClassifierFree(3.0).apply(given, free, process)(x, t)
    for ours, theirs in zip(
        jax.tree.leaves(Projected(3.0, 1.0).apply(given, free, process)(x, t)),
        jax.tree.leaves(whole),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    base = given(x, t).x0
    change = Projected(3.0, 0.0).apply(given, free, process)(x, t).x0 - base
    np.testing.assert_allclose(jnp.sum(change * base, axis=1), 0.0, atol=1e-4)
    beyond = whole.x0 - base - change  # lies along the estimate: all cross products vanish
    np.testing.assert_allclose(beyond[:, :1] * base[:, 1:], beyond[:, 1:] * base[:, :1], atol=1e-4)


def test_plus_plus_noises_the_guided_estimate_with_the_unconditional_noise():
    process, x, t, s, scale = VP(), states(), jnp.asarray(T), jnp.asarray(0.3), 0.6
    given, free = pair(process)
    state = DDIM().step(
        PlusPlus(scale).apply(given, free, process), process, DDIM().init(x), t, s, jax.random.key(0)
    )
    x0 = (1 - scale) * free(x, t).x0 + scale * given(x, t).x0
    np.testing.assert_allclose(
        state.x, process.alpha(s) * x0 + process.sigma(s) * free(x, t).eps, rtol=1e-5, atol=1e-6
    )


def test_dynamic_threshold_is_numpys_and_leaves_small_estimates_alone():
    process, t = VP(), jnp.asarray(T)
    wide, x = GaussianData(mean=0.0, std=2.0).denoise(process), states(16, 40)
    ours, plain = Dynamic(0.9).constrain(wide, process)(x, t), np.asarray(wide(x, t).x0, np.float64)
    s = np.maximum(np.quantile(np.abs(plain), 0.9, axis=1), 1.0)[:, None]
    assert s.max() > 1.2
    np.testing.assert_allclose(ours.x0, np.clip(plain, -s, s) / s, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(process.marginal(ours.x0, ours.eps, t), x, rtol=1e-5, atol=1e-5)
    bound = float(np.abs(plain).max()) + 0.1
    np.testing.assert_array_equal(Dynamic(0.9, bound).constrain(wide, process)(x, t).x0, wide(x, t).x0)
    half = Dynamic(0.9, 0.5).constrain(wide, process)(x, t).x0
    assert abs(float(jnp.abs(half).max()) - 0.5) < 1e-6


def test_static_threshold_clips_symmetrically():
    process, x, t = VP(), states(), jnp.asarray(0.8)
    wide = GaussianData(mean=0.0, std=3.0).denoise(process)
    np.testing.assert_array_equal(
        Static(0.7).constrain(wide, process)(x, t).x0, np.clip(np.asarray(wide(x, t).x0), -0.7, 0.7)
    )


def test_guidance_keeps_the_conditional_models_v():
    process, x, t = VP(), states(), jnp.asarray(T)

    def saying(data, number):
        return lambda x, t: dataclasses.replace(data.denoise(process)(x, t), v=number * jnp.ones_like(x))

    given, free = saying(GIVEN, 1.0), saying(FREE, 2.0)
    for how in (
        ClassifierFree(3.0, rescale=0.5),
        ClassifierFree(3.0, low=0.1),
        Projected(2.0),
        PlusPlus(0.5),
    ):
        for kept in (NoThreshold(), Static(), Dynamic()):
            out = kept.constrain(how.apply(given, free, process), process)(x, t)
            np.testing.assert_array_equal(out.v, 1.0)
    guided = guidance.classifier(given, lambda x, t: -jnp.sum(x**2, axis=1), process)
    np.testing.assert_array_equal(guided(x, t).v, 1.0)


WRONG = [
    (ClassifierFree(2.0, low=0.5, high=0.5), "low=0.5 must be less"),
    (ClassifierFree(2.0, rescale=1.5), "rescale=1.5 must be in"),
    (PlusPlus(2.0), "scale=2.0 must be in"),
    (Static(0.0), "bound=0.0 must be above"),
    (Dynamic(99.5), r"percentile=99.5 must be in \(0, 1\]"),
    (Dynamic(0.9, -1.0), "bound=-1.0 must be above"),
]


@pytest.mark.parametrize(("how", "line"), WRONG, ids=str)
def test_invalid_hyperparameters_raise(how, line):
    use = (
        how.apply
        if isinstance(how, ClassifierFree | PlusPlus)
        else lambda given, free, p: how.constrain(given, p)
    )
    with pytest.raises(UserError, match=line):
        use(*pair(VP()), VP())
