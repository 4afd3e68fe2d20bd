"""A kind of data, and a metric, that are not genjax's own: one file with a record is drawn, written and evaluated."""

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from rows import POINTS, SMALL, on_one_device

from genjax.core.errors import UserError
from genjax.core.objective import Aux, Player, Sampling
from genjax.core.overrides import overrides
from genjax.core.tree import override
from genjax.data import Data, Table
from genjax.data.source import Kind, OwnKind
from genjax.evaluation.evaluate import evaluate
from genjax.evaluation.kinds import NATS, Unit, evaluation_of
from genjax.evaluation.sample_quality import measure
from genjax.metrics.own import SlicedWasserstein
from genjax.objectives.latent.vae import VAE
from genjax.reports.exports import export
from genjax.reports.kinds import KINDS, drawing_of
from genjax.reports.sampling_paths import show, show_path
from genjax.training import experiment as experiments
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import SGD


@dataclasses.dataclass(frozen=True)
class SeriesKind:
    """Several numbers at each of several times."""

    name: str = "series"
    unit: Unit = NATS
    compared: bool = False
    monitored: bool = False
    shown: int = 3

    def evaluate(self, data, samples, labels, seed):
        real = data.load("test")[np.arange(4)]["x"]
        return {"series": {"mean_error": float(np.abs(samples.mean(0) - real.mean(0)).max())}}

    def draw(self, data, samples, row=False):
        return Image.new("RGB", (len(samples), data.shape[0]))

    def write(self, stem, data, samples):
        np.savetxt(f"{stem}.csv", samples.reshape(len(samples), -1))
        return f"wrote {stem}.csv"


@dataclasses.dataclass(frozen=True)
class Series:
    """A source of the kind; its record stands beside it."""

    kind: ClassVar[OwnKind | Kind] = SeriesKind()
    shape = (5, 2)
    dtype = "float32"
    classes = 0
    levels = 0
    splits = ("train", "test")

    def load(self, split):
        return Table({"x": np.ones((8, *self.shape), np.float32)})


@dataclasses.dataclass(frozen=True)
class Constant:
    """Draws zeros."""

    condition = None
    sampling = Sampling("direct")
    log_prob_kind = "exact"

    def init(self, key, batch):
        return {"net": {"w": jnp.zeros(())}}, {}

    def players(self):
        return {"net": Player(lambda params, extra, batch, ctx: (params["net"]["w"], Aux()))}

    def sample(self, params, extra, key, num, cond=None):
        return jnp.zeros((num, *Series.shape))

    def log_prob(self, params, extra, batch, key):
        return -jnp.sum(batch["x"] ** 2, (1, 2))


@dataclasses.dataclass(frozen=True)
class Largest:
    """A metric of one's own."""

    name: str = "largest"

    def measure(self, samples, test, labels):
        return {"drawn": float(samples.max()), "real": float(test["x"].max())}


def run_of(**changes):
    settings = Evaluation(num=6, batch_size=4)
    experiment = Experiment(Constant(), Data(Series()), SGD(), batch_size=4, evaluation=settings)
    return on_one_device(dataclasses.replace(experiment, **changes))


def test_a_fifth_kind_is_drawn_written_and_evaluated(tmp_path: Path):
    run = run_of()
    state, data = run.make_state(), run.experiment.data
    report, samples = evaluate(run.experiment, state, run.mesh)
    assert report["series"] == {"mean_error": 1.0}
    assert "-10.000 ± 0.000 nats (exact" in report["likelihood"]["summary"]
    assert show(data, samples).size == (6, 5)
    assert show_path(run, state, np.zeros(2), np.stack([samples, samples])).size[0] > 4
    assert export(tmp_path / "drawn", data, samples) == f"wrote {tmp_path}/drawn.csv"
    assert len((tmp_path / "drawn.csv").read_text().splitlines()) == 6


@dataclasses.dataclass(frozen=True)
class Bare:
    """A record without methods."""

    name: str = "bare"


def test_an_incomplete_record_is_refused_in_one_line():
    data = Data(dataclasses.make_dataclass("Other", [], bases=(Series,), frozen=True)())
    type(data.source).kind = Bare()
    for find in (evaluation_of, drawing_of):
        with pytest.raises(UserError, match=r"\Athe record of the kind 'bare' lacks [^\n]*\Z"):
            find(data)


def test_the_four_kinds_have_both_records():
    for kind in KINDS:
        source = dataclasses.make_dataclass("Other", [], bases=(Series,), frozen=True)
        source.kind = kind
        assert drawing_of(Data(source())) is KINDS[kind]
        assert evaluation_of(Data(source())).unit.words


def test_metrics_of_ones_own_stand_in_the_report():
    run = run_of(metrics=(Largest(), SlicedWasserstein()))
    report, _ = evaluate(run.experiment, run.make_state(), run.mesh)
    found = json.loads(json.dumps(report))["metrics"]
    assert found == {
        "largest/drawn": 0.0,
        "largest/real": 1.0,
        "wasserstein/sliced": pytest.approx(1.0, rel=0.15),
    }
    compared, _ = measure(run, run.make_state(), None, 6, 0)
    assert compared["largest/drawn"] == 0.0
    twice = run_of(metrics=(Largest(), Largest()))
    with pytest.raises(UserError, match="two metrics give 'largest/drawn'"):
        evaluate(twice.experiment, twice.make_state(), twice.mesh)


CONFIG = """
import dataclasses
import json
from experiments.configs.diffusion.interpolant_moons import get_experiment

@dataclasses.dataclass(frozen=True)
class Mine:
    scale: float = 1.0
    name: str = "mine"

    def measure(self, samples, test, labels):
        return {"scale": self.scale}
"""


def test_metrics_are_chosen_by_flag_and_resumed(tmp_path: Path):
    config = tmp_path / "mine.py"
    config.write_text(CONFIG)
    flags = [("metrics", "Mine,SlicedWasserstein"), ("metrics.0.scale", "2.0")]
    chosen = experiments.load(str(config), flags)
    assert chosen.metrics[0].measure(None, None, None) == {"scale": 2.0}
    assert chosen.metrics[1] == SlicedWasserstein()
    assert list(overrides(experiments.load(str(config)), chosen)) == flags
    experiments.save(chosen, str(config), tmp_path)
    assert experiments.restore(tmp_path).metrics == chosen.metrics
    with pytest.raises(UserError, match="metrics"):
        override(chosen, "metrics", "SlicedWassertein")


def test_likelihoods_of_points_are_in_nats():
    assert evaluation_of(POINTS).unit == NATS
    assert VAE(SMALL, SMALL, (2,), 2).levels == 0
