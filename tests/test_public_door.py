"""`import genjax as gx`: train, sample, evaluate, load without config file, command line or work directory."""

import dataclasses
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest
from documented import ROOT, blocks
from tiny import Joint

import genjax as gx

pytestmark = pytest.mark.xdist_group("door")  # the run is trained once, in one process
DATA = gx.Data(gx.data.GaussianMixture(512, 64), (gx.data.Scale(-2.0, 2.0),))


def experiment(net=None, **options):
    objective = gx.objectives.Diffusion(
        net or gx.networks.MLP(16, 1),
        DATA.shape,
        sampler=gx.samplers.DDIM(2),
        likelihood=gx.diffusion.OdeLikelihood(0),
    )
    sizes = gx.Evaluation(num=64, batch_size=64)
    options = {"steps": 12, "batch_size": 64, "log_every": 6, "evaluation": sizes, **options}
    return gx.Experiment(objective, DATA, gx.optimizers.AdamW(1e-2), **options)


@pytest.fixture(scope="module")
def run():
    return gx.train(experiment())


def test_every_name_of_the_table_of_contents_is_there():
    for name in gx.__all__:
        assert getattr(gx, name) is not None
    assert {"train", "sample", "evaluate", "load", "complete", "Experiment", "Data"} <= {*dir(gx)}
    assert gx.optimizers.AdamW(2e-3).learning_rate == 2e-3
    assert gx.conditioning.Labels(10).classes == 10
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gx.nothing  # noqa: B018


def test_the_standard_library_alone_imports_the_package():
    """The supervisor of the launchers runs where nothing is installed."""
    for module in ("genjax", "genjax.api.supervise"):
        subprocess.run([sys.executable, "-S", "-c", f"import {module}"], check=True)


def test_a_run_in_memory_samples_in_the_datas_units(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = gx.sample(run, 40, seed=3)
    assert (x.shape, x.dtype) == ((40, 2), np.float32)
    np.testing.assert_array_equal(gx.sample(run, 40, seed=3), x)
    assert not np.array_equal(gx.sample(run, 40, seed=4), x)
    assert np.abs(x).max() > 1.0  # the data reach 2, the model's scale ends at 1
    assert (run.taken, int(run.state.step), run.workdir) == (12, 12, None)
    assert "in memory" in repr(run)
    assert not [*tmp_path.iterdir()]


def test_a_work_directory_holds_the_same_model_and_needs_no_config_file(run, tmp_path, capsys):
    there = tmp_path / "run"
    first = gx.train(dataclasses.replace(run.experiment, steps=6), there)
    assert (first.taken, int(first.state.step)) == (6, 6)
    capsys.readouterr()
    resumed = gx.train(run.experiment, there)
    assert "after step 6" in capsys.readouterr().out
    assert resumed.taken == 6
    loaded = gx.load(there, {"objective.sampler.steps": 3})
    assert loaded.experiment.objective.sampler.steps == 3
    jax.tree.map(np.testing.assert_array_equal, gx.load(there).state.ema, run.state.ema)
    again = gx.train(run.experiment, there)
    assert again.taken == 0
    np.testing.assert_array_equal(gx.sample(again, 8), gx.sample(run, 8))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda run: gx.sample(run, 0), "^num=0 must be at least 1$"),
        (lambda run: gx.sample(run, 1, label=3), "^label=3: this model has no classes$"),
        (lambda run: gx.complete(run, "a"), "^prompts need an autoregressive model, this is Diffusion$"),
        (lambda run: gx.evaluate(run, reference="x.npz"), "^reference=x.npz holds statistics"),
        (lambda run: gx.train(experiment(steps=0)), "^config.steps=0 must be at least 1$"),
        (lambda run: gx.train(experiment(), "x", overfit_one_batch=True), "^workdir=x: overfitting"),
        (lambda run: gx.train(experiment(), profiled=(1, 2)), "give a workdir too$"),
        (lambda run: gx.load("nowhere"), "^nowhere is not the work directory"),
    ],
)
def test_errors_speak_of_python_arguments(run, call, words):
    with pytest.raises(gx.UserError, match=words):
        call(run)


@pytest.mark.optimised
def test_a_run_in_memory_is_evaluated(run):
    report = gx.evaluate(run)
    assert (report["step"], report["samples"]) == (12, 64)
    assert np.isfinite(report["held_out"]["net/loss"])
    assert report["seconds_to_train"] > 0
    assert "trained_on" in report


def test_the_best_state_of_a_monitor_is_returned_from_memory():
    """With learning rate 0 nothing improves on the first evaluation: training stops after two more."""
    monitored = gx.train(
        dataclasses.replace(
            experiment(steps=12, monitor=gx.Monitor(every=2, num=64, patience=2), ema=0.0),
            optimizer=gx.optimizers.SGD(0.0),
        )
    )
    assert int(monitored.state.step) == 2
    assert monitored.taken == 6


class Blocked(nn.Module):
    """Two layers; no gradient reaches the first one, or one that is not finite."""

    how: str = "zero"

    @nn.compact
    def __call__(self, x, t=None, cond=None, *, out, train=False):
        inner = nn.Dense(8, name="first")(x)
        if self.how == "zero":
            inner = jax.lax.stop_gradient(inner)
        if self.how == "nan":
            inner = jax.numpy.sqrt(inner - inner)  # 0, with the derivative inf * 0
        return nn.Dense(out[-1], name="last")(inner)


def test_one_batch_is_overfitted(capsys):
    trained = gx.train(experiment(), overfit_one_batch=True)
    assert "net: the loss of one batch fell from" in capsys.readouterr().out
    assert int(trained.state.step) == 12


@pytest.mark.parametrize(
    ("net", "rate", "words"),
    [
        (Blocked("nan"), 1e-2, r"player 'net' did not .* the gradient is not finite in params/first/bias"),
        (Blocked("zero"), -1e-1, r"player 'net' did not .* zero in params/first/bias, params/first/kernel$"),
        (Blocked("none"), -1e-1, "all its parameters have a gradient"),
    ],
)
def test_a_batch_that_is_not_overfitted_names_the_player_and_the_layers(net, rate, words):
    """A negative learning rate climbs."""
    wrong = dataclasses.replace(experiment(net), optimizer=gx.optimizers.SGD(rate, momentum=0.0))
    with pytest.raises(gx.UserError, match=words) as error:
        gx.train(wrong, overfit_one_batch=True)
    assert "\n" not in str(error.value)


def test_a_game_is_judged_player_by_player():
    """Each player against the trained others: losses of a GAN need not fall."""
    net = gx.networks.MLP(16, 1)
    game = gx.objectives.GAN(net, net, DATA.shape, 2)
    trained = dataclasses.replace(experiment(steps=40), objective=game)
    gx.train(trained, overfit_one_batch=True)
    frozen = {"generator": gx.optimizers.SGD(0.0), "discriminator": gx.optimizers.Adam(1e-2)}
    with pytest.raises(gx.UserError, match="player 'generator' did not overfit one batch"):
        gx.train(dataclasses.replace(trained, optimizer=frozen), overfit_one_batch=True)


def small(given, **changes):
    """An experiment with few steps, samples and network evaluations."""
    objective = given.objective
    if isinstance(objective, gx.objectives.Diffusion):
        changes["objective"] = dataclasses.replace(
            objective,
            net=Joint(),
            sampler=gx.samplers.DDIM(2),
            likelihood=gx.diffusion.OdeLikelihood(1),
        )
    sizes = gx.Evaluation(num=32, batch_size=32, pictured=4, likelihoods=8)
    return dataclasses.replace(given, steps=2, batch_size=32, evaluation=sizes, **changes)


@pytest.mark.slow
def test_the_page_on_python_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    """Its experiments are made small before they are trained."""
    monkeypatch.chdir(tmp_path)
    train = gx.train

    def train_small(experiment, *args, **options):
        steps = 8 if options.get("overfit_one_batch") else 2
        return train(dataclasses.replace(small(experiment), steps=steps), *args, **options)

    monkeypatch.setattr(gx, "train", train_small)
    names: dict = {}
    for block in blocks(ROOT / "docs" / "python.md", "python"):
        exec(block, names)
    assert names["x"].shape == (16, 8, 8, 1)
    assert names["x"].max() <= 16
    assert len(names["both"]) == 2
    assert capsys.readouterr().out.rstrip().endswith("num=0 must be at least 1")
