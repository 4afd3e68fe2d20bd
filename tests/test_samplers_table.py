"""Every process with every sampler: distribution of the samples, memory, sharding.

One compiled program per sampler serves all processes and data. The denoiser is exact, so errors of the samples are the
sampler's and, where noise is drawn, Monte Carlo errors.
"""

import dataclasses
import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import GaussianData, Switched
from oracles_mixture import MixtureData
from scipy import stats

import genjax.samplers
from genjax.diffusion import process as processes
from genjax.diffusion.process import VE, VP, Cosine, RectifiedFlow, SubVP, Trigonometric
from genjax.parallel.mesh import batch_sharding, make_mesh
from genjax.samplers.adaptive import AdaptiveODE, AdaptiveSDE
from genjax.samplers.deis import DEIS
from genjax.samplers.dpm import DPMSolverPP, SDEDPMSolverPP
from genjax.samplers.edm import EDM
from genjax.samplers.grids import LogSNR
from genjax.samplers.langevin import AnnealedLangevin, LangevinCorrector, PredictorCorrector
from genjax.samplers.ode import DDIM, Euler, Heun
from genjax.samplers.scan import Stepper, sample
from genjax.samplers.sde import Ancestral, EulerMaruyama, ReverseDiffusion
from genjax.samplers.self_conditioned import SelfConditioned
from genjax.samplers.unipc import UniPC

pytestmark = pytest.mark.optimised

PROCESSES = (VP(), SubVP(), VE(), Cosine(), processes.EDM(), RectifiedFlow(), Trigonometric())
NORMAL = MixtureData((0.5, 0.5), (0.7, 0.7), (0.4, 0.4))
LAWS = (NORMAL, MixtureData())
GRID = LogSNR(0.999, 1e-3)

# Sampler, and tolerances: relative error of the variance; Kolmogorov-Smirnov distance.
ODE = {
    "Euler": (Euler(200, GRID), 0.28, 0.045),
    "Heun": (Heun(60, GRID), 0.1, 0.02),
    "DDIM": (DDIM(100, GRID), 0.08, 0.015),
    "DPMSolverPP1": (DPMSolverPP(100, GRID, order=1), 0.08, 0.015),
    "DPMSolverPP2": (DPMSolverPP(40, GRID), 0.02, 0.006),
    "DPMSolverPP3": (DPMSolverPP(40, GRID, order=3), 0.006, 0.003),
    "UniPC2": (UniPC(40, GRID), 0.01, 0.004),
    "UniPC3": (UniPC(40, GRID, order=3), 0.006, 0.003),
    "EDM": (EDM(40, GRID), 0.04, 0.008),
    "DEIS1": (DEIS(100, GRID, order=1), 0.08, 0.015),
    "DEIS2": (DEIS(60, GRID, order=2), 0.05, 0.01),
    "DEIS3": (DEIS(60, GRID), 0.05, 0.01),
    "DEIS4": (DEIS(60, GRID, order=4), 0.05, 0.01),
    "AdaptiveODE": (AdaptiveODE(1, GRID), 0.001, 0.001),
    "AdaptiveODE, order 8": (AdaptiveODE(2, GRID, solver="dopri8"), 0.001, 0.001),
    "SelfConditioned": (SelfConditioned(DPMSolverPP(40, GRID), lambda previous: None), 0.02, 0.006),
}
SDE = {
    "DDIM, eta 0.5": (DDIM(100, GRID, eta=0.5), 0.05, 0.01),
    "EulerMaruyama": (EulerMaruyama(100, GRID), 0.15, 0.015),
    "ReverseDiffusion": (ReverseDiffusion(100, GRID), 0.25, 0.02),
    "Ancestral": (Ancestral(100, GRID), 0.2, 0.015),
    "Ancestral, v 0": (Ancestral(100, GRID, variance=0.0), 0.12, 0.015),
    "SDEDPMSolverPP1": (SDEDPMSolverPP(100, GRID, order=1), 0.12, 0.015),
    "SDEDPMSolverPP2": (SDEDPMSolverPP(60, GRID), 0.05, 0.01),
    "EDM, churn": (EDM(60, GRID, churn=10.0), 0.05, 0.01),
    "AdaptiveSDE": (AdaptiveSDE(1, GRID, rtol=3e-2, atol=3e-2), 0.05, 0.015),
    "AnnealedLangevin": (AnnealedLangevin(40, GRID, inner=5, step_size=0.3), 0.33, 0.04),
    "PredictorCorrector": (
        PredictorCorrector(ReverseDiffusion(100, GRID), LangevinCorrector(signal_to_noise=0.1)),
        0.15,
        0.02,
    ),
}
TABLE = ODE | SDE
POINTS, DRAWS = 1000, 6000


def with_denoiser(sampler, denoise):
    """The sampler, with the denoiser set if it holds one."""
    return (
        dataclasses.replace(sampler, given=lambda previous: denoise) if hasattr(sampler, "given") else sampler
    )


def with_steps(sampler, steps):
    """The sampler with another number of steps."""
    inner = next((name for name in ("predictor", "sampler") if hasattr(sampler, name)), None)
    if inner:
        return dataclasses.replace(sampler, **{inner: with_steps(getattr(sampler, inner), steps)})
    return dataclasses.replace(sampler, steps=steps)


def compiled(sampler, num):
    """(index of the process, the mixture's three fields, key) -> samples [num], started at the prior's quantiles."""
    quantiles = jnp.asarray(stats.norm.ppf((np.arange(num) + 0.5) / num)[:, None], jnp.float32)

    def draw(index, weights, means, stds, key):
        process = Switched(PROCESSES, index)
        denoise = MixtureData(weights, means, stds).denoise(process)
        method = with_denoiser(sampler, denoise)
        start = process.sigma(method.times(process)[0]) * quantiles
        return sample(denoise, process, method, key, (num, 1), start=start)[:, 0]

    pair = jnp.zeros(2)
    return jax.jit(draw).lower(jnp.int32(0), pair, pair, pair, jax.random.key(0)).compile()


LONG = {
    "Ancestral",
    "AdaptiveODE",
    "SDEDPMSolverPP2",
    "Ancestral, v 0",
    "DDIM, eta 0.5",
    "UniPC3",
    "DEIS3",
    "AnnealedLangevin",
    "EDM, churn",
    "DPMSolverPP1",
    "UniPC2",
    "SelfConditioned",
    "ReverseDiffusion",
    "AdaptiveSDE",
    "DEIS1",
    "DEIS2",
    "DEIS4",
    "AdaptiveODE, order 8",
    "PredictorCorrector",
    "SDEDPMSolverPP1",
}
ROWS = [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in TABLE]


@pytest.mark.parametrize("row", ROWS)
def test_all_processes_reproduce_all_data(row):
    """Mean, variance and distribution of N(0.7, 0.4^2) and of two modes; memory independent of the steps."""
    sampler, variance, distance = TABLE[row]
    num = POINTS if row in ODE else 1500 if row == "AdaptiveSDE" else DRAWS
    noise = 4.0 / np.sqrt(num) if row in SDE else 0.0
    draw = compiled(sampler, num)
    for index, process in enumerate(PROCESSES):
        for data in LAWS:
            fields = (jnp.asarray(field) for field in (data.weights, data.means, data.stds))
            x = np.asarray(draw(jnp.int32(index), *fields, jax.random.key(3)), np.float64)
            means = abs(x.mean() - data.mean) / np.sqrt(data.variance)
            spread = abs(x.var() / data.variance - 1)
            law = stats.kstest(x, data.cdf).statistic
            found = f"{type(process).__name__}: mean {means:.4f}, variance {spread:.4f}, law {law:.4f}"
            print(row, found)
            assert means < noise + 0.03, found
            assert spread < noise * np.sqrt(2) + variance + 0.004, found
            assert law < 0.5 * noise + distance + 0.006, found
    states = 48 if row.startswith("Adaptive") else 12  # a Runge-Kutta step's stages; a Brownian path's levels
    assert draw.memory_analysis().temp_size_in_bytes < states * 4 * num


def test_the_table_holds_every_sampler():
    """Every sampler class of genjax.samplers for a `Process` has a row, and every process a column."""
    found = set()
    wrappers = ("editing", "inverse")  # change another sampler's steps by a measurement
    for module in pkgutil.iter_modules(genjax.samplers.__path__, "genjax.samplers."):
        if module.name.rpartition(".")[2] in wrappers:
            continue
        for name, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if dataclasses.is_dataclass(kind) and hasattr(kind, "step") and issubclass(kind, Stepper):
                takes = inspect.get_annotations(kind.step, eval_str=True)["process"]
                if takes is processes.Process and not name.startswith("_"):
                    found.add(kind)
    assert {type(sampler) for sampler, *_ in TABLE.values()} == found
    concrete = {
        kind
        for _, kind in inspect.getmembers(processes, inspect.isclass)
        if issubclass(kind, processes.Process) and not inspect.isabstract(kind)
    }
    assert {type(process) for process in PROCESSES} == concrete


@pytest.mark.parametrize("row", ROWS)
def test_sharded_equals_one_device_and_noise_is_drawn_in_place(row):
    """Eight devices give the samples of one; no device holds all samples, and none are communicated."""
    data, process = GaussianData(), VP()
    sampler = with_steps(with_denoiser(TABLE[row][0], data.denoise(process)), 3)
    draw = lambda key: sample(data.denoise(process), process, sampler, key, (64, 3))
    program = (
        jax.jit(draw, out_shardings=batch_sharding(make_mesh("data:8"))).lower(jax.random.key(0)).compile()
    )
    sharded = program(jax.random.key(0))
    assert len(sharded.sharding.device_set) == 8
    assert {shard.data.shape for shard in sharded.addressable_shards} == {(8, 3)}
    rounding = 2e-4 if row == "AdaptiveSDE" else 2e-5  # its step sizes follow errors of rounding
    np.testing.assert_allclose(sharded, jax.jit(draw)(jax.random.key(0)), rtol=rounding, atol=rounding)
    text = program.as_text()
    assert "all-gather" not in text
    assert "[64,3]" not in text, "some device holds all samples"


@pytest.mark.parametrize(
    "sampler",
    [DDIM(grid=GRID), *(pytest.param(s, marks=pytest.mark.slow) for s in (EulerMaruyama(), UniPC(order=3)))],
    ids=lambda s: type(s).__name__,
)
def test_memory_does_not_grow_with_the_steps(sampler):
    """The program's temporary memory is that of one step; only a trace needs memory per step."""
    data, sizes = GaussianData(), {}
    for steps, trace in ((10, False), (1000, False), (1000, True)):
        method = dataclasses.replace(sampler, steps=steps)
        draw = lambda key, method=method, trace=trace: sample(
            data.denoise(VP()), VP(), method, key, (4096, 1), trace=trace
        )
        memory = jax.jit(draw).lower(jax.random.key(0)).compile().memory_analysis()
        sizes[steps, trace] = memory.temp_size_in_bytes + memory.output_size_in_bytes
    state, grid = 4 * 4096, 8 * 4 * 1000  # the times and their like, not the states, are as many as the steps
    assert sizes[1000, False] - sizes[10, False] < grid + state
    assert sizes[1000, True] > 1000 * state


def test_forward_sdes_have_the_processes_moments():
    """dx = f x dt + g dw simulated from x_0 ~ N(0.7, 0.4^2), to t = 0.9: mean and variance of alpha x_0 + sigma eps."""
    num, data, times = 10_000, GaussianData(), jnp.linspace(0.01, 0.9, 401)

    @jax.jit
    def simulate(index):
        process = Switched(PROCESSES, index)
        x0, eps = (jax.random.normal(jax.random.key(seed), (num, 1)) for seed in (0, 1))
        key = jax.random.key(2)
        x = process.marginal(data.mean + data.std * x0, eps, times[0])

        def step(x, now):
            t, s, i = now
            h, noise = s - t, jax.random.normal(jax.random.fold_in(key, i), x.shape)
            return x + process.drift(t) * x * h + jnp.sqrt(process.diffusion_squared(t) * h) * noise, None

        x, _ = jax.lax.scan(step, x, (times[:-1], times[1:], jnp.arange(400)))
        return x[:, 0], process.alpha(times[-1]), data.variance(process, times[-1])

    for index, process in enumerate(PROCESSES):
        x, alpha, variance = (np.asarray(part, np.float64) for part in simulate(jnp.int32(index)))
        found = (
            f"{type(process).__name__}: mean {x.mean()} {alpha * data.mean}, variance {x.var()} {variance}"
        )
        print(found)
        assert abs(x.mean() - alpha * data.mean) < 4 * np.sqrt(variance / num) + 0.01, found
        assert abs(x.var() / variance - 1) < 4 * np.sqrt(2 / num) + 0.02, found
