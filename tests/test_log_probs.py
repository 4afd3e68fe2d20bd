"""Likelihood reports: kind, dequantization and scale, on models with known likelihood."""

import dataclasses
import itertools
import math
import re
from dataclasses import dataclass
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rows import ROWS, SMALL, on_one_device

from genjax.core.errors import UserError
from genjax.core.objective import Aux, HasLogProb, Player, Sampling, levels_of
from genjax.data import Binarize, Data, Dequantize, Digits, Scale
from genjax.diffusion.ode_likelihood import OdeLikelihood
from genjax.distributions.likelihoods import Categorical, Gaussian
from genjax.evaluation.evaluate import evaluate, evaluation_context
from genjax.evaluation.kinds import BITS_PER_DIM, NATS, PERPLEXITY
from genjax.evaluation.likelihood import (
    ADDED,
    dequantization,
    describe_kind,
    likelihood_report,
    summary_line,
)
from genjax.metrics.likelihood import summarise
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.objectives.latent.latent import Latent
from genjax.objectives.latent.vae import VAE
from genjax.objectives.lora import LoRA
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import SGD
from genjax.training.pretrained import Pretrained

KIND = re.compile(
    r"exact(, given the first element)?"
    r"|lower bound \((ELBO|IWAE-\d+|VLB|its own codes|\w+ dequantization).*\)"
    r"|ODE estimate \((Heun|RK4), \d+ steps, .*\)( of a lower bound \(.*\))?"
    r"|ODE estimate \(Dopri5, adaptive to rtol .*, atol .*\)"
)
# Kinds for integers, with noise added to the data.
NOISY = re.compile(
    r"lower bound( \(.*\))? through uniform dequantization(, density exact(, given the first element)?)?"
    r"|ODE estimate \(.*\) of a lower bound( \(.*\))? through uniform dequantization"
)
# Dequantization of each row of digits; the rows of points are continuous.
UNITS = {unit.words: unit for unit in (NATS, BITS_PER_DIM, PERPLEXITY)}
INTEGERS = {
    "diffusion-digits": "none, though the data are integers",
    "vae-digits": "none, though the data are integers",
    "ladder-digits": "none, though the data are integers",
    "flow-digits": "variational noise of one level, within the model",
    "tokens-digits": "none: each integer",
    "autoregressive-digits": "none: each integer",
    "pixels-digits": "none: each integer",
    "autoregressive-packed": "none: each integer",
    "experts-digits": "none: each integer",
}


@pytest.mark.parametrize(
    "name", [name for name, row in ROWS.items() if isinstance(row.objective, HasLogProb)]
)
def test_each_family_reports_kind_and_dequantization(name):
    """For each row of the conformance table: exact, a named bound, or an ODE estimate with solver and steps."""
    objective, data = ROWS[name].objective, ROWS[name].data
    if not objective.log_prob_kind:  # no likelihood with these settings
        assert name in ("lora-points", "lora-gan-points", "reflow-points")
        return
    assert KIND.fullmatch(objective.log_prob_kind), objective.log_prob_kind
    done = dequantization(objective, data)
    assert done.startswith(INTEGERS.get(name, "none: the data are continuous"))
    assert describe_kind(objective.log_prob_kind, done) == objective.log_prob_kind
    noisy = describe_kind(objective.log_prob_kind, ADDED)
    assert NOISY.fullmatch(noisy), noisy
    assert noisy.startswith("ODE estimate") == objective.log_prob_kind.startswith("ODE estimate")
    if done.startswith("none, though the data are integers"):
        assert dequantization(objective, Data(data.source, (Dequantize(), *data.transforms))) == ADDED


def test_an_adaptive_solver_reports_its_tolerance():
    kind = OdeLikelihood(steps=1000, method="adaptive", rtol=1e-3, atol=1e-5, probes=0).kind
    assert KIND.fullmatch(kind)
    assert "rtol 0.001, atol 1e-05" in kind
    assert "exact trace" in kind


@pytest.mark.parametrize(
    ("objective", "transforms", "words"),
    [
        (
            VAE(SMALL, SMALL, (8, 8, 1), 2, likelihood=Gaussian()),
            (Dequantize(), Scale(0, 17)),
            "uniform noise",
        ),
        (
            VAE(SMALL, SMALL, (8, 8, 1), 2, likelihood=Categorical(17)),
            (Scale(0, 16),),
            "none: each integer's cell",
        ),
        (VAE(SMALL, SMALL, (8, 8, 1), 2, likelihood=Gaussian()), (Scale(0, 16),), "none, though"),
        (VAE(SMALL, SMALL, (8, 8, 1), 2), (Binarize(16),), "none: each bit"),
    ],
)
def test_dequantization_by_noise_cells_or_none(objective, transforms, words):
    assert dequantization(objective, Data(Digits(), transforms)).startswith(words)


def test_levels_are_found_inside_wrappers():
    weights = Pretrained("nowhere")
    for likelihood, levels in ((Categorical(17), 17), (Gaussian(), 0)):
        coder = VAE(SMALL, SMALL, (8, 8, 1), 2, likelihood=likelihood)
        prior = Latent(coder, weights, Diffusion(SMALL, (2,)))
        assert levels_of(LoRA(LoRA(coder, weights), weights)) == levels
        assert levels_of(LoRA(prior, weights)) == levels


@dataclass(frozen=True)
class Even:
    """The uniform density on [-1, 1]^64."""

    log_prob_kind, sampling = "exact", Sampling("direct")

    condition = None

    def init(self, key, batch):
        return {"even": {"w": jnp.zeros(())}}, {}

    def players(self):
        return {"even": Player(lambda params, extra, batch, ctx: (params["even"]["w"], Aux()))}

    def sample(self, params, extra, key, num, cond=None):
        return jnp.zeros((num, 8, 8, 1))

    def log_prob(self, params, extra, batch, key):
        return jnp.full(len(batch["x"]), -64 * math.log(2.0))


def test_a_uniform_density_of_dequantized_digits_has_log2_of_17_bits(monkeypatch):
    ticks, lines = itertools.count(0.0, 4.0), []
    monkeypatch.setattr("genjax.evaluation.likelihood.time", SimpleNamespace(monotonic=lambda: next(ticks)))
    data = Data(Digits(), (Dequantize(), Scale(0, 17)))
    run = on_one_device(
        Experiment(Even(), data, SGD(), batch_size=16, evaluation=Evaluation(likelihoods=64, batch_size=8))
    )
    found = likelihood_report(run.experiment, run.make_state(), run.mesh, report=lines.append)
    assert lines == ["likelihood: 24/64 examples", "likelihood: 48/64 examples"]
    assert found["bits_per_dim"] == pytest.approx(math.log2(17), rel=1e-6)
    assert found["examples"] == 64
    assert found["summary"].startswith(
        f"≤ {math.log2(17):.4f} ± 0.0000 bits/dim (lower bound through uniform dequantization, density exact; ±"
    )
    assert found["log_prob_kind"] == "exact"
    assert "over 64 test examples" in found["summary"]
    assert found["dequantization"].startswith("uniform noise")
    assert f"{64 * math.log(2 / 17):.6g} nats of Dequantize, Scale" in found["scale"]
    assert found["parameters_of"] == "moving average (EMA)"


def test_each_example_of_a_likelihood_draws_its_own_noise_in_any_batch():
    class Noisy(Even):
        def log_prob(self, params, extra, batch, key):
            return jax.random.normal(key, (len(batch["x"]),))

    def nats(batch_size: int) -> float:
        sizes = Evaluation(likelihoods=16, batch_size=batch_size)
        data = Data(Digits(), (Scale(0, 16),))
        run = on_one_device(Experiment(Noisy(), data, SGD(), batch_size=16, evaluation=sizes))
        return likelihood_report(run.experiment, run.make_state(), run.mesh)["nats"]

    first = nats(16)
    assert abs(first) > 0.01
    assert [nats(8), nats(5), nats(64)] == pytest.approx([first] * 3, rel=1e-6)


def test_non_finite_samples_raise_before_they_become_integers():
    class Broken(Even):
        def sample(self, params, extra, key, num, cond=None):
            return jnp.zeros((num, 8, 8, 1)).at[2:5, 3, 3].set(jnp.nan)

    run = on_one_device(Experiment(Broken(), Data(Digits(), (Scale(0, 16),)), SGD(), batch_size=16))
    with pytest.raises(UserError, match=r"\Asamples: 3 of 250 hold values that are NaN or infinite[^\n]*\Z"):
        evaluate(run.experiment, run.make_state(), run.mesh)


@pytest.mark.parametrize(
    ("kind", "unit", "start", "noisy_start", "noisy"),
    [
        ("lower bound (IWAE-5)", "bits/dim", "≤ ", "≤ ", "lower bound (IWAE-5) {}"),
        ("lower bound (ELBO)", "nats", "≥ ", "≥ ", "lower bound (ELBO) {}"),
        ("exact", "perplexity", "", "≤ ", "lower bound {}, density exact"),
        ("exact", "nats", "", "≥ ", "lower bound {}, density exact"),
        (
            "ODE estimate (Heun, 25 steps)",
            "nats",
            "",
            "",
            "ODE estimate (Heun, 25 steps) of a lower bound {}",
        ),
        (
            "ODE estimate (RK4, 9 steps) of a lower bound (ELBO)",
            "bits/dim",
            "",
            "",
            "ODE estimate (RK4, 9 steps) of a lower bound (ELBO) {}",
        ),
        (
            "lower bound (ELBO, continuous time, 16 times)",
            "perplexity",
            "≤ ",
            "≤ ",
            "lower bound (ELBO, continuous time, 16 times) {}",
        ),
    ],
)
def test_a_bound_has_its_sign(kind, unit, start, noisy_start, noisy):
    """For the density, and for integers with added noise."""
    result = summarise(np.array([-8.0, -10.0, -9.0]), 4, kind)
    value = {"nats": -9.0, "bits/dim": 9 / 4 / math.log(2), "perplexity": math.exp(9 / 4)}[unit]
    noisy = noisy.format("through uniform dequantization")
    for done, before, said in (("none", start, kind), (ADDED, noisy_start, noisy)):
        words = summary_line(result, UNITS[unit], "test", done)
        assert re.match(rf"{before}(-?[\d.]+) ± ([\d.]+) {unit} \({re.escape(said)}; ", words), words
        assert float(words.removeprefix(before).split()[0]) == pytest.approx(value, abs=1e-3)


def test_the_sampler_and_its_steps_are_reported():
    assert str(ROWS["diffusion-digits"].objective.sampling) == "DDIM, 3 steps, 3 evaluations per sample"
    assert str(ROWS["gan-points"].objective.sampling) == "direct, 1 step, 1 evaluation per sample"
    run = on_one_device(dataclasses.replace(ROWS["vae-points"], batch_size=16))
    said = evaluation_context(run.experiment, run.make_state())
    assert said["parameters_of"] == "moving average (EMA)"
    assert said["samples"] == run.experiment.evaluation.num
    assert {"step", "sample_seed", "sampler", "parameters", "examples_seen"} <= said.keys()
