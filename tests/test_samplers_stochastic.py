"""EDM, ancestral, reverse-diffusion, Langevin and predictor-corrector sampling against closed forms."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import GaussianData
from oracles_mixture import MixtureData
from test_samplers_table import with_steps

from genjax.core.types import named
from genjax.diffusion.process import VE, VP
from genjax.samplers.deis import DEIS
from genjax.samplers.dpm import DPMSolverPP, SDEDPMSolverPP
from genjax.samplers.edm import EDM
from genjax.samplers.grids import Karras, LogSNR, ThenZero, Uniform
from genjax.samplers.langevin import AnnealedLangevin, LangevinCorrector, PredictorCorrector, langevin
from genjax.samplers.ode import DDIM, Heun
from genjax.samplers.scan import sample
from genjax.samplers.sde import Ancestral, ReverseDiffusion
from genjax.samplers.unipc import UniPC

pytestmark = pytest.mark.optimised

DATA, MIXTURE = GaussianData(), MixtureData()
named_class = lambda value: type(value).__name__


@pytest.mark.parametrize("churn", [pytest.param(0.0, marks=pytest.mark.slow), 6.0])
def test_edm_is_the_papers_algorithm(churn):
    """Karras et al. 2022, alg. 2 written out in sigma for VE, with the same noise, float64."""
    process, steps, key = VE(sigma_min=0.002, sigma_max=80.0), 12, jax.random.key(2)
    sampler = EDM(steps, Karras(start=0.95, end=0.05), churn, churn_min=0.05, churn_max=30.0, noise=1.003)
    denoise = MIXTURE.denoise(process)
    with jax.enable_x64(True):
        x = np.linspace(-60.0, 60.0, 10).reshape(5, 2)
        end = sample(denoise, process, sampler, key, x.shape, start=jnp.asarray(x))
        sigmas = np.asarray(process.sigma(sampler.times(process)))
        time = lambda sigma: jnp.asarray(np.log(sigma / 0.002) / np.log(80.0 / 0.002))
        slope = lambda x, sigma: (x - np.asarray(denoise(jnp.asarray(x), time(sigma)).x0)) / sigma
        for i, (sigma, after) in enumerate(pairwise(sigmas)):
            gamma = min(churn / steps, np.sqrt(2) - 1) if 0.05 <= sigma <= 30.0 else 0.0
            noise = jax.random.normal(named(jax.random.fold_in(key, i), "churn"), x.shape, jnp.float64)
            raised = sigma * (1 + gamma)
            x = x + np.sqrt(raised**2 - sigma**2) * 1.003 * np.asarray(noise)
            here = slope(x, raised)
            guess = x + (after - raised) * here
            x = x + (after - raised) * (here + slope(guess, after)) / 2
    np.testing.assert_allclose(end, x, rtol=1e-8)


def test_ancestral_variances():
    """v = 0 is DDIM's eta = 1; v = 1 is exact for data N(0, 1) under VP, for any number of steps."""
    arguments = (DATA.denoise(VP()), VP())
    small = sample(*arguments, Ancestral(steps=7, variance=0.0), jax.random.key(0), (16, 2))
    ddpm = sample(*arguments, DDIM(steps=7, eta=1.0), jax.random.key(0), (16, 2))
    np.testing.assert_allclose(small, ddpm, rtol=1e-4, atol=1e-5)
    normal, sampler, num = GaussianData(0.0, 1.0), Ancestral(steps=4, grid=Uniform(1.0, 0.05)), 100_000
    x = np.asarray(sample(normal.denoise(VP()), VP(), sampler, jax.random.key(1), (num, 1)), np.float64)
    assert abs(x.mean()) < 4 / np.sqrt(num)
    assert abs(x.var() - 1) < 4 * np.sqrt(2 / num)


@pytest.mark.parametrize("process", [VP(), VE()], ids=named_class)
def test_reverse_diffusion_is_the_papers_predictor(process):
    """Song et al. 2021, alg. 2 (VE) and 3 (VP) with the same noise."""
    x, key, (t, s) = jnp.linspace(-2.0, 2.0, 10)[:, None], jax.random.key(4), map(jnp.asarray, (0.6, 0.55))
    z = np.asarray(jax.random.normal(named(key, "noise"), x.shape))
    out = ReverseDiffusion().step(DATA.denoise(process), process, ReverseDiffusion().init(x), t, s, key).x
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    gradient = -(np.asarray(x) - alpha * DATA.mean) / (alpha**2 * DATA.std**2 + sigma**2)
    if isinstance(process, VE):
        square = sigma**2 - float(process.sigma(s)) ** 2
        exact = x + square * gradient + np.sqrt(square) * z
    else:
        beta = 1 - (alpha / float(process.alpha(s))) ** 2
        exact = (2 - np.sqrt(1 - beta)) * x + beta * gradient + np.sqrt(beta) * z
    np.testing.assert_allclose(out, exact, rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("relative", [0.1, 0.8])
def test_langevin_is_stationary_with_its_bias(relative):
    """Mean m, variance v / (1 - e / (2 v)), lag-one correlation 1 - e / v."""
    mean, variance, num = 0.7, 0.16, 50_000
    size = relative * variance
    sampler = jax.jit(
        lambda key: langevin(
            lambda x: -(x - mean) / variance, jnp.zeros((num, 1)), key, steps=100, step_size=size, trace=True
        )
    )
    path = np.asarray(sampler(jax.random.key(0)), np.float64)[:, :, 0]
    assert path.shape == (101, num)
    assert not path[0].any()
    biased = variance / (1 - relative / 2)
    assert abs(path[-1].mean() - mean) < 4 * np.sqrt(biased / num) + (1 - relative) ** 100
    assert abs(path[-1].var() / biased - 1) < 4 * np.sqrt(2 / num)
    assert abs(np.corrcoef(path[-2], path[-1])[0, 1] - (1 - relative)) < 4 / np.sqrt(num)


def test_corrector_converges_to_the_marginal():
    """From a wrong mean and variance; |z| / |score| = std makes e = 2 r^2 v, so the variance is v / (1 - r^2)."""
    process, t, ratio = VP(), jnp.asarray(0.4), 0.3
    corrector = LangevinCorrector(steps=100, signal_to_noise=ratio)
    wrong = 3.0 * jax.random.normal(jax.random.key(0), (4_000, 16))
    x = corrector.correct(DATA.denoise(process), process, wrong, t, jax.random.key(1))
    x = np.asarray(x, np.float64)
    exact = float(DATA.variance(process, t)) / (1 - ratio**2)
    assert abs(x.mean() - float(process.alpha(t)) * DATA.mean) < 4 * np.sqrt(exact / x.size) + 1e-3
    assert abs(x.var() / exact - 1) < 4 * np.sqrt(2 / x.size) + 0.01


@pytest.mark.slow
def test_predictor_corrector_wraps_one_step_of_its_predictor():
    """Predictor, then corrector at s; a multistep predictor keeps its memory; no correction at sigma = 0."""
    pair = PredictorCorrector(DPMSolverPP(steps=6), LangevinCorrector(steps=2))
    denoise, key, t, s = DATA.denoise(VP()), jax.random.key(0), jnp.asarray(0.5), jnp.asarray(0.4)
    state = pair.init(jnp.linspace(-1.0, 1.0, 8)[:, None])
    alone = pair.predictor.step(denoise, VP(), state, t, s, key)
    both = pair.step(denoise, VP(), state, t, s, key)
    np.testing.assert_array_equal(both.x, pair.corrector.correct(denoise, VP(), alone.x, s, key))
    np.testing.assert_array_equal(both.memory.estimates[0], alone.memory.estimates[0])
    path = sample(denoise, VP(), pair, key, (8, 1), trace=True)
    np.testing.assert_allclose(path[-1], denoise(path[-2], pair.times(VP())[-2]).x0, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "process", [VP(), pytest.param(VE(0.05, 10.0), marks=pytest.mark.slow)], ids=named_class
)
def test_annealed_langevin_has_the_recursions_mean_and_variance(process):
    """On Gaussian data every step is affine: m <- mu + (1 - e / v) (m - mu), var <- (1 - e / v)^2 var + 2 e."""
    sampler, num = AnnealedLangevin(steps=20, inner=50, step_size=0.05, grid=LogSNR(end=0.01)), 20_000
    draw = jax.jit(lambda key: sample(DATA.denoise(process), process, sampler, key, (num, 1)))
    x = np.asarray(draw(jax.random.key(0)), np.float64)
    alphas, sigmas = (
        np.asarray(f(sampler.times(process)), np.float64) for f in (process.alpha, process.sigma)
    )
    mean, variance = 0.0, sigmas[0] ** 2
    for before, alpha, sigma in zip(alphas[:-1], alphas[1:], sigmas[1:], strict=True):
        mean, variance = mean * alpha / before, variance * (alpha / before) ** 2
        marginal, size = (alpha * DATA.std) ** 2 + sigma**2, 0.05 * sigma**2
        for _ in range(50):
            mean = alpha * DATA.mean + (1 - size / marginal) * (mean - alpha * DATA.mean)
            variance = (1 - size / marginal) ** 2 * variance + 2 * size
    assert abs(x.mean() - mean) < 4 * np.sqrt(variance / num) + 1e-4
    assert abs(x.var() / variance - 1) < 4 * np.sqrt(2 / num) + 1e-3
    assert abs(mean / DATA.mean - 1) < 0.05, "the recursion itself arrives at the data"
    assert abs(variance / DATA.std**2 - 1) < 0.25


@pytest.mark.slow
def test_annealed_langevin_finds_the_weights_of_far_modes():
    """Plain Langevin dynamics from one mode stays there; annealed finds both (Song & Ermon 2019, sec. 3.2.2)."""
    far, process = MixtureData((0.2, 0.8), (-4.0, 4.0), (0.4, 0.4)), VE(0.05, 10.0)
    sampler = AnnealedLangevin(steps=20, inner=60, grid=LogSNR(end=0.0))
    draw = jax.jit(lambda key: sample(far.denoise(process), process, sampler, key, (4_000, 1)))
    x = np.asarray(draw(jax.random.key(0)))[:, 0]
    assert abs(np.mean(x < 0) - 0.2) < 0.05
    assert abs(np.abs(x).mean() - 4.0) < 0.05
    gradient = lambda x: -far.denoise(process)(x, jnp.asarray(0.0)).eps / 0.05
    stuck = langevin(gradient, jnp.full((200, 1), 4.0), jax.random.key(0), steps=1200, step_size=0.005)
    assert float(stuck.min()) > 1.0


COUNTED = [
    EDM(),
    EDM(churn=30.0),
    EDM(grid=LogSNR(), churn=5.0, churn_min=0.05, churn_max=50.0),
    DPMSolverPP(grid=ThenZero(LogSNR())),
    DPMSolverPP(order=3),
    SDEDPMSolverPP(),
    UniPC(order=3),
    DEIS(),
    Ancestral(),
    ReverseDiffusion(),
    PredictorCorrector(),
    AnnealedLangevin(inner=5),
    Heun(),
    DDIM(),
]
SMALL = [with_steps(sampler, 3) for sampler in COUNTED]


@pytest.mark.parametrize("sampler", SMALL, ids=named_class)
def test_evaluations_are_counted_and_the_path_ends_at_the_samples(sampler):
    calls = []

    def counted(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return DATA.denoise(VP())(x, t)

    path = jax.jit(lambda key: sample(counted, VP(), sampler, key, (2, 1), trace=True))(jax.random.key(0))
    jax.effects_barrier()
    assert len(calls) == sampler.evaluations
    assert path.shape == (4, 2, 1)
    with jax.enable_x64(True):
        wide = jax.eval_shape(lambda key: sample(counted, VP(), sampler, key, (2, 1)), jax.random.key(0))
    assert (path.dtype, wide.dtype) == (jnp.float32, jnp.float64)
