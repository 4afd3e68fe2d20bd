"""Samplers against those of diffusers: the same denoiser, times, initial state and noise give the same samples.

Their training time k is our t = (k + 1) / 1000, and their tables are filled from our process. Methods in sigma / alpha
hold x / alpha. Not compared: DPM-Solver++ 3M, whose second difference they weight by one half, and DEIS beyond
order 1, which they extrapolate in log(sigma / alpha) and we in t, as in the paper.
"""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles_mixture import MixtureData

from genjax.core.types import named
from genjax.diffusion.process import VP, RectifiedFlow
from genjax.samplers.deis import DEIS
from genjax.samplers.dpm import DPMSolverPP, SDEDPMSolverPP
from genjax.samplers.edm import EDM
from genjax.samplers.ode import DDIM, Euler
from genjax.samplers.scan import sample
from genjax.samplers.sde import Ancestral
from genjax.samplers.unipc import UniPC

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
DATA, KEY, STEPS, SHAPE = MixtureData(), jax.random.key(0), 10, (6, 3)
LINEAR = {"num_train_timesteps": 1000, "prediction_type": "epsilon"}
INDEX = np.arange(999, -1, -1000 // STEPS)[:STEPS]  # trailing
NAMES = {
    "DDIMScheduler": "scheduling_ddim",
    "DDPMScheduler": "scheduling_ddpm",
    "EulerAncestralDiscreteScheduler": "scheduling_euler_ancestral_discrete",
}


@dataclass(frozen=True)
class Given:
    """A grid with explicit times."""

    values: tuple[float, ...]

    def times(self, process, steps):
        return jnp.asarray(self.values)


GRID = Given((*((INDEX + 1) / 1000).tolist(), 0.0))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def noise(i):
    """The noise of our step i."""
    return np.asarray(jax.random.normal(named(jax.random.fold_in(KEY, i), "noise"), SHAPE, jnp.float64))


def prior():
    """The initial state x_1."""
    return np.asarray(jax.random.normal(jax.random.key(7), SHAPE, jnp.float64))


def theirs(name, monkeypatch, *, divided=False, options=None, step=None, inject=False):
    """Their sampling loop over `INDEX`, to clean data.

    Args:
        name: of the scheduler.
        monkeypatch: replaces their normal draws by ours.
        divided: whether their state is x / alpha.
        options: of the scheduler.
        step: (index, torch) -> additional arguments of their step.
        inject: whether to replace the normal draws of their module.

    Returns:
        Samples, float64 [6, 3].
    """
    diffusers, torch = pytest.importorskip("diffusers"), pytest.importorskip("torch")
    process, position = VP(), {"i": 0}
    scheduler = getattr(diffusers, name)(**LINEAR, **(options or {}))
    square = np.asarray(process.alpha(jnp.arange(1, 1001) / 1000)) ** 2
    scheduler.alphas_cumprod = torch.tensor(square)
    scheduler.alphas = torch.tensor(square / np.append(1.0, square[:-1]))
    scheduler.betas = 1.0 - scheduler.alphas
    scheduler.alpha_t, scheduler.sigma_t = torch.tensor(square).sqrt(), torch.tensor(1 - square).sqrt()
    scheduler.lambda_t = torch.log(scheduler.alpha_t) - torch.log(scheduler.sigma_t)
    if inject:
        module = __import__(f"diffusers.schedulers.{NAMES[name]}", fromlist=["randn_tensor"])
        # their DDPM adds noise to clean data too, unless the last training time is 0
        draw = lambda *args, **kwargs: torch.tensor(noise(position["i"]) * (position["i"] < STEPS - 1))
        monkeypatch.setattr(module, "randn_tensor", draw)
    scheduler.set_timesteps(STEPS)
    alpha = lambda k: float(process.alpha(jnp.asarray((k + 1) / 1000)))
    x = torch.tensor(prior())
    x = x / alpha(999) if divided else x
    for k in scheduler.timesteps:
        k = float(k)
        state = x.numpy() * (alpha(k) if divided else 1.0)
        eps = DATA.denoise(process)(jnp.asarray(state), jnp.asarray((k + 1) / 1000)).eps
        if divided and hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, k)
        more = step(position["i"], torch) if step else {}
        x = scheduler.step(torch.tensor(np.asarray(eps)), k if divided else int(k), x, **more).prev_sample
        position["i"] += 1
    return x.numpy()


def ours(sampler, process=None):
    """Our sampling loop from the same initial state."""
    process = process or VP()
    sampler = dataclasses.replace(sampler, steps=STEPS, grid=GRID)
    start = jnp.asarray(prior())
    return np.asarray(
        jax.jit(lambda: sample(DATA.denoise(process), process, sampler, KEY, SHAPE, start=start))()
    )


def agree(mine, other):
    """Relative to the largest sample: their tables are float32."""
    assert np.abs(mine - other).max() / np.abs(other).max() < 1e-5
    assert other.std() > 0.3


TRAILING = {"timestep_spacing": "trailing"}
UNCLIPPED = {**TRAILING, "clip_sample": False}


def test_ddim(monkeypatch):
    agree(ours(DDIM()), theirs("DDIMScheduler", monkeypatch, options=UNCLIPPED))


def test_ddim_with_eta_one(monkeypatch):
    step = lambda i, torch: {"eta": 1.0, "variance_noise": torch.tensor(noise(i))}
    agree(ours(DDIM(eta=1.0)), theirs("DDIMScheduler", monkeypatch, options=UNCLIPPED, step=step))


@pytest.mark.parametrize(("variance", "kind"), [(0.0, "fixed_small"), (1.0, "fixed_large")])
def test_ddpm(monkeypatch, variance, kind):
    options = {**UNCLIPPED, "variance_type": kind}
    other = theirs("DDPMScheduler", monkeypatch, options=options, inject=True)
    agree(ours(Ancestral(variance=variance)), other)


def test_dpm_solver_2m(monkeypatch):
    options = {**TRAILING, "algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"}
    agree(ours(DPMSolverPP()), theirs("DPMSolverMultistepScheduler", monkeypatch, options=options))


def test_sde_dpm_solver_2m(monkeypatch):
    options = {**TRAILING, "algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "zero"}
    step = lambda i, torch: {"variance_noise": torch.tensor(noise(i))}
    other = theirs("DPMSolverMultistepScheduler", monkeypatch, options=options, step=step)
    agree(ours(SDEDPMSolverPP()), other)


@pytest.mark.parametrize("order", [2, 3])
def test_unipc(monkeypatch, order):
    options = {**TRAILING, "solver_order": order, "solver_type": "bh2", "final_sigmas_type": "zero"}
    agree(ours(UniPC(order=order)), theirs("UniPCMultistepScheduler", monkeypatch, options=options))


def test_deis_of_order_one(monkeypatch):
    options = {**TRAILING, "solver_order": 1}
    other = theirs("DEISMultistepScheduler", monkeypatch, options=options)
    end = ours(DEIS(order=1))
    assert np.abs(end - other).max() / np.abs(other).max() < 2e-2  # theirs stops at sigma_min > 0


def test_euler_in_sigma_is_ddim(monkeypatch):
    agree(ours(DDIM()), theirs("EulerDiscreteScheduler", monkeypatch, divided=True, options=TRAILING))


def test_heun_in_sigma_is_edm(monkeypatch):
    agree(ours(EDM()), theirs("HeunDiscreteScheduler", monkeypatch, divided=True, options=TRAILING))


def test_euler_ancestral_is_ddim_with_eta_one(monkeypatch):
    other = theirs(
        "EulerAncestralDiscreteScheduler", monkeypatch, divided=True, options=TRAILING, inject=True
    )
    agree(ours(DDIM(eta=1.0)), other)


def test_flow_matching_euler():
    diffusers, torch = pytest.importorskip("diffusers"), pytest.importorskip("torch")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=list(GRID.values[:-1]))
    process, x = RectifiedFlow(), torch.tensor(prior())
    for k in scheduler.timesteps:
        predicted = DATA.denoise(process)(jnp.asarray(x.numpy()), jnp.asarray(float(k) / 1000))
        x = scheduler.step(torch.tensor(np.asarray(predicted.eps - predicted.x0)), k, x).prev_sample
    agree(ours(Euler(), process), x.numpy())
