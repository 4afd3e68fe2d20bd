"""Periodic evaluation: signs of collapse, the best state, early stopping."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.api import train
from genjax.core.errors import UserError
from genjax.data import Data, GaussianMixture, Scale
from genjax.evaluation import monitor
from genjax.evaluation.distances import compare_samples, load_split
from genjax.evaluation.held_out import held_out_losses
from genjax.metrics.distances.collapse import NEAR, collapse, near_duplicate_report
from genjax.metrics.distances.modes import Mixture, mode_report
from genjax.metrics.report import make_reference
from genjax.networks import MLP
from genjax.objectives.adversarial.gan import GAN
from genjax.training import pretrained
from genjax.training import workdir as workdirs
from genjax.training.checkpoint import Checkpoints
from genjax.training.experiment import Evaluation, Experiment, Monitor
from genjax.training.optimizers import SGD
from genjax.training.writers import METRICS

RING = GaussianMixture(1024, 256)


def test_near_duplicates_are_as_frequent_as_in_real_data_unless_samples_repeat():
    """In the plane the nearest of n uniform points is within r with probability 1 - exp(-n pi r^2)."""
    rng = np.random.default_rng(0)
    x, y = (rng.uniform(size=(4000, 2)).astype(np.float32) for _ in range(2))
    found, expected = near_duplicate_report(x, y), 1.0 - 0.5 ** (NEAR**2)
    assert found["near_duplicates"] == pytest.approx(expected, abs=0.01)
    assert found["near_duplicates_reference"] == pytest.approx(expected, abs=0.01)
    assert near_duplicate_report(np.repeat(x[:2000], 2, axis=0), y)["near_duplicates"] == 1.0
    few = near_duplicate_report(y[:1000], y[:1000])
    assert near_duplicate_report(y[:1000], y)["near_duplicates"] == few["near_duplicates_reference"]


def test_collapse_to_three_modes_is_described_and_the_true_mixture_is_not():
    rng, truth = np.random.default_rng(0), Mixture(*RING.modes())
    part = Mixture(truth.centres[:3], truth.std)
    signs = lambda mixture: collapse(mode_report(mixture.draw(rng, 800), truth))
    assert signs(truth) == ""
    assert signs(part) == "3 of 8 modes are covered"
    reference = {"recall_reference": 0.6, "near_duplicates_reference": 0.03}
    low = reference | {"recall": 0.1, "near_duplicates": 0.5}
    assert collapse(low) == "recall is 0.10, that of real data 0.60; 50% of the samples have a near-duplicate"
    assert collapse(reference | {"recall": 0.4, "near_duplicates": 0.1}) == ""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run with learning rate 0, whose samples do not change: no evaluation improves on the first."""
    net, workdir = MLP(width=8, depth=1), tmp_path_factory.mktemp("runs") / "stopped"
    run = Experiment(
        GAN(net, net, (2,), 2),
        Data(RING, (Scale(-2.0, 2.0),)),
        SGD(learning_rate=0.0),
        steps=12,
        batch_size=16,
        ema=0.0,
        checkpoint_every=12,
        evaluation=Evaluation(num=64, batch_size=64),
        monitor=Monitor(every=2, num=64, patience=2),
    )
    train.train_and_evaluate(run, "gan_mixture", workdir)
    return run, workdir


@pytest.mark.slow
def test_a_run_without_improvement_stops_and_its_best_state_is_used(stopped, capsys):
    run, workdir = stopped
    rows = [json.loads(line) for line in (workdir / METRICS).read_text().splitlines()]
    evaluated = [row["step"] for row in rows if "monitor/frechet_ratio" in row]
    assert evaluated == [2, 4, 6]
    assert len({row["monitor/frechet_ratio"] for row in rows if "monitor/frechet_ratio" in row}) == 1
    with Checkpoints(workdir / "best") as best, Checkpoints(workdir / "checkpoints") as last:
        assert (best.steps(), last.steps()) == ([2], [6])
    found = json.loads((workdir / workdirs.EVALUATION).read_text())
    assert found["step"] == 2
    assert "modes are covered" in found["collapse"]
    train.train_and_evaluate(run, "gan_mixture", workdir)
    said = capsys.readouterr().out
    assert "is finished: 6 of 12 steps" in said
    assert "2 evaluations did not improve on frechet_ratio" in said


@pytest.mark.slow
def test_a_resumed_run_restores_earlier_evaluations(stopped, monkeypatch):
    """`largest`, ties and patience, on given numbers."""
    run, workdir = stopped
    ready = train.prepare(dataclasses.replace(run, monitor=Monitor(every=2, patience=2, largest=True)))
    evaluations = monitor.PeriodicEvaluation(ready, workdir, 4, print, lambda state: (ready, state))
    assert [row["step"] for row in evaluations.rows] == [2, 4]
    evaluations.rows = []
    state = ready.make_state()
    monkeypatch.setattr(monitor, "Checkpoints", lambda *_, **__: Checkpoints(workdir / "tried", keep_last=9))
    ratios = iter([1.0, 3.0, 3.0, 2.0])
    monkeypatch.setattr(evaluations, "_measure", lambda state: {"frechet_ratio": next(ratios)})
    ends = []
    for step in (2, 4, 6, 8):
        evaluations.evaluate(step, state)
        ends.append(evaluations.should_stop())
    assert ends == [False, False, False, True]
    assert evaluations.best()["step"] == 4
    assert Checkpoints(workdir / "tried").steps() == [2, 4]
    monkeypatch.setattr(evaluations, "_measure", lambda state: {"recall": 0.5})
    with pytest.raises(UserError, match="no 'frechet_ratio'"):
        evaluations.evaluate(10, state)


@pytest.mark.slow
def test_evaluations_are_restored_from_the_metrics_and_nan_ranks_last(stopped, tmp_path):
    run, _ = stopped
    lines = [{"monitor/recall": 0.5, "monitor/frechet_ratio": word} for word in ("nan", "inf", 9.0)]
    rows = [{"step": step, "time": 1.0, **line} for step, line in enumerate(lines)]
    (tmp_path / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def evaluations(**how):
        ready = train.prepare(dataclasses.replace(run, monitor=Monitor(every=2, **how)))
        return monitor.PeriodicEvaluation(ready, tmp_path, 2, print, lambda state: (ready, state))

    assert evaluations().best() == {"step": 2, "recall": 0.5, "frechet_ratio": 9.0}
    assert evaluations(metric="recall", largest=True).best()["step"] == 0
    with pytest.raises(UserError, match="no 'recal': did you mean 'recall'"):
        evaluations(metric="recal")


@pytest.mark.slow
def test_collapse_to_one_point_is_reported_and_training_continues(stopped, tmp_path):
    run, _ = stopped
    ready, said = train.prepare(run), []
    evaluations = monitor.PeriodicEvaluation(ready, tmp_path, 0, said.append, lambda state: (ready, state))
    state = ready.make_state()
    flat = dataclasses.replace(state, ema=jax.tree.map(jnp.zeros_like, state.ema))
    found = evaluations.evaluate(2, flat)
    assert found["monitor/frechet_ratio"] == np.inf
    assert "100% of the samples have a near-duplicate" in said[0]
    evaluations.evaluate(4, state)
    assert evaluations.best()["step"] == 4


@pytest.mark.slow
def test_evaluations_share_the_compiled_losses(stopped):
    run, _ = stopped
    traced = []

    class Counted(GAN):
        def generator_loss(self, *args):
            traced.append(args)
            return super().generator_loss(*args)

    net = MLP(width=8, depth=1)
    ready = train.prepare(dataclasses.replace(run, objective=Counted(net, net, (2,), 2)))
    state = ready.make_state()
    first, again = (held_out_losses(ready.experiment, state, ready.mesh) for _ in range(2))
    assert first == again
    assert len(traced) == 1


@pytest.mark.slow
def test_an_incomplete_first_best_state_is_skipped(stopped, tmp_path):
    run, workdir = stopped
    shutil.copytree(workdir / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "best" / "2.orbax-checkpoint-tmp").mkdir(parents=True)
    assert int(workdirs.load_state(train.prepare(run), tmp_path).step) == 6
    assert int(workdirs.load_state(train.prepare(run), workdir).step) == 2


@pytest.mark.slow
def test_the_best_state_is_used_only_with_a_monitor(stopped):
    run, workdir = stopped
    assert pretrained.checkpoint_folder(workdir, run) == workdir / "best"
    assert (
        pretrained.checkpoint_folder(workdir, dataclasses.replace(run, monitor=Monitor()))
        == workdir / "checkpoints"
    )


def test_equal_samples_are_a_collapse_not_an_error():
    reference = make_reference(
        train=load_split(Data(RING), "train")["x"], test=load_split(Data(RING), "test")["x"]
    )
    found = compare_samples(reference, Data(RING), np.zeros((64, 2), np.float32), None)
    assert found["collapse"] == "all samples are equal"
    assert found["distribution"]["near_duplicates"] == 1.0
    assert found["modes"]["modes_covered"] == 0.0
