"""Work directories of format 1 (tests/fixtures/README.md): they open, sample, resume, are evaluated and compared."""

import ast
import dataclasses
import importlib
import json
import shutil
import sys
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

from genjax.api.evaluate import evaluate
from genjax.api.load import load
from genjax.api.sample import write_samples
from genjax.api.train import train
from genjax.conditioning.labels import Labels
from genjax.core import renamed
from genjax.core.errors import UserError
from genjax.evaluation.comparison import compare
from genjax.evaluation.monitor import PeriodicEvaluation
from genjax.reports.comparison_table import markdown as comparison_table
from genjax.reports.results import markdown
from genjax.reports.runs import read_runs
from genjax.training import experiment, format_1
from genjax.training.checkpoint import Checkpoints
from genjax.training.experiment import Monitor
from genjax.training.loop import prepare
from genjax.training.workdir import read_report

FIXTURES = Path(__file__).parent / "fixtures"
ROOT = FIXTURES.parents[1]
RUNS = ("diffusion", "autoregressive")

# The fixture's config in today's names: the same experiments.
TODAY = {
    "genjax.emissions": "genjax.distributions.outputs",
    "genjax.experiment": "genjax.training.experiment",
    "genjax.objectives.diffusion": "genjax.objectives.diffusion.diffusion",
    "genjax.optimizers": "genjax.training.optimizers",
    "from genjax.samplers": "from genjax.conditioning.labels import Labels\nfrom genjax.samplers",
    "emission=Categorical(), classes=10, label_dropout=0.5": "output=Categorical(), condition=Labels(10, 0.5)",
    "data.shape, 10, process": "data.shape, Labels(10, 0.1), process",
}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A directory with both work directories."""
    folder = tmp_path_factory.mktemp("format_1")
    with tarfile.open(FIXTURES / "format_1.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def runs(old, tmp_path):
    """A copy of both to write into."""
    return shutil.copytree(old, tmp_path / "runs")


def config_of_today(workdir, path, *changes):
    """Writes the config of a work directory in today's names, with further (old, new) changes of its text."""
    text = (workdir / "config.py").read_text()
    for before, after in (*TODAY.items(), *changes):
        assert text.count(before) == 1
        text = text.replace(before, after)
    path.write_text(text)
    return path


def stored(workdir):
    return json.loads((workdir / "experiment.json").read_text())


def names_of_format_1():
    """(module, class or "", fields) of each line of the list."""
    module = ""
    for line in (FIXTURES / "format_1_names.txt").read_text().splitlines():
        name, *fields = line.split()
        module = module if line.startswith(" ") else name
        yield module, (name if line.startswith(" ") else ""), fields


def test_every_module_of_format_1_has_a_present_one():
    modules = {module for module, name, _ in names_of_format_1() if not name}
    assert len(modules) > 250
    assert renamed.MODULES.keys() <= modules
    assert {name.partition(":")[0] for name in renamed.NAMES} <= modules
    for module in modules:
        path = ROOT.joinpath(*renamed.MODULES.get(module, module).split("."))
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module


def test_every_present_name_of_the_table_is_defined():
    for new in (*renamed.NAMES.values(), *renamed.LABEL_DROPOUT, renamed.LABELS):
        module, _, name = new.partition(":")
        body = ast.parse(ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text()).body
        defined = {node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        defined |= {ast.unparse(node.targets[0]) for node in body if isinstance(node, ast.Assign)}
        assert name in defined, new


def test_every_class_and_field_of_format_1_has_a_present_one():
    for module, name, fields in names_of_format_1():
        if not name:
            continue
        new = renamed.reference(f"{module}:{name}")
        found_in, _, found_as = new.partition(":")
        cls = vars(importlib.import_module(found_in))[found_as]
        node = format_1.upgrade({"@type": f"{module}:{name}", **dict.fromkeys(fields, "")})
        assert node.pop("@type") == new
        assert node.keys() <= {field.name for field in dataclasses.fields(cls)}, new


def test_upgrade_renames_types_references_fields_and_metrics():
    monitor = {"@type": "genjax.experiment:Monitor", "metric": "told_apart", "every": 3}
    tree = {
        "parts": [
            {"@type": "genjax.samplers.ode:OneStep", "steps": 1},
            {"@ref": "genjax.emissions:Categorical"},
        ],
        "infinite": {"@float": "inf"},
        "monitor": monitor,
    }
    assert format_1.upgrade(tree) == {
        "parts": [
            {"@type": "genjax.samplers.ode:SingleStep", "steps": 1},
            {"@ref": "genjax.distributions.outputs:Categorical"},
        ],
        "infinite": {"@float": "inf"},
        "monitor": {**monitor, "@type": "genjax.training.experiment:Monitor", "metric": "c2st_accuracy"},
    }
    assert renamed.metric("monitor/twins_reference") == "monitor/near_duplicates_reference"
    assert renamed.metric("net/twins_of_mine") == "net/twins_of_mine"


@pytest.mark.parametrize(
    ("kind", "fields", "condition"),
    [
        ("genjax.objectives.gan:GAN", {"classes": 3}, (3, 0.0)),
        ("genjax.objectives.gan:GAN", {"classes": 0}, None),
        ("genjax.objectives.mean_flow:MeanFlow", {"classes": 3, "label_dropout": 0.25}, (3, 0.25)),
        ("genjax.objectives.mean_flow:MeanFlow", {"classes": 3}, (3, 0.1)),
        ("genjax.objectives.score_matching:SlicedScoreMatching", {"classes": 3}, (3, 0.1)),
        ("genjax.objectives.diffusion:Diffusion", {"classes": 0, "label_dropout": 0.1}, None),
        ("genjax.objectives.vdm:VDM", {}, None),
        ("genjax_config_1:Mine", {"classes": 3}, (3, 0.1)),
    ],
)
def test_classes_and_label_dropout_become_a_condition(kind, fields, condition):
    bases = {"genjax_config_1:Mine": ["genjax.objectives.diffusion.diffusion:Diffusion"]}
    node = format_1.upgrade({"@type": kind, "shape": [2], **fields}, bases.__getitem__)
    assert node.pop("@type") == renamed.reference(kind)
    labels = condition and {"@type": renamed.LABELS, "classes": condition[0], "dropout": condition[1]}
    assert node == {"shape": [2], "condition": labels}


def test_fields_called_classes_elsewhere_stay():
    clips = {"@type": "genjax.data.clips:Clips", "classes": 3}
    own = {"@type": "genjax_config_1:Source", "classes": 3}
    assert format_1.upgrade(clips) == {**clips, "@type": "genjax.data.sources.clips:Clips"}
    assert format_1.upgrade(own) == own


def test_old_names_are_importable_only_inside_the_context():
    before = {**sys.modules}
    with format_1.old_names():
        names: dict = {}
        exec(
            "import genjax.emissions\n"
            "import genjax.flows.layers as layers\n"
            "from genjax import experiment\n"
            "from genjax.decode import Decoding\n"
            "from genjax.objectives.diffusion import Diffusion\n"
            "from genjax.objectives.latent import Latent\n"
            "from genjax.parallel import make_mesh\n"
            "from genjax.samplers.ode import OneStep\n"
            "output, coupling = genjax.emissions.Categorical, layers.Coupling\n",
            names,
        )
    assert names["output"].__module__ == "genjax.distributions.outputs"
    assert names["coupling"].__module__ == "genjax.distributions.flows.layers"
    assert names["Diffusion"].__module__ == "genjax.objectives.diffusion.diffusion"
    assert names["Latent"].__module__ == "genjax.objectives.latent.latent"
    assert names["OneStep"].__name__ == "SingleStep"
    assert "genjax.emissions" not in sys.modules
    assert "genjax.flows.layers" not in sys.modules
    assert all(sys.modules[name] is module for name, module in before.items())
    for text in ("import genjax.emissions", "from genjax.objectives.diffusion import Diffusion"):
        with pytest.raises(ImportError):
            exec(text)


@pytest.mark.parametrize(
    ("line", "new"),
    [
        ("import genjax.emissions", "genjax.distributions.outputs"),
        ("from genjax import emissions", "genjax.distributions.outputs"),
        (
            "from genjax.objectives.diffusion import Diffusion",
            "genjax.objectives.diffusion.diffusion.Diffusion",
        ),
        ("from genjax.samplers.ode import OneStep", "genjax.samplers.ode.SingleStep"),
        ("from experiments.configs import gan_mixture", "gan_mixture"),
    ],
)
def test_a_config_by_old_names_runs_as_a_copy_in_a_work_directory_only(tmp_path, line, new):
    config = tmp_path / "config.py"
    config.write_text(f"{line}\n")
    with pytest.raises(UserError, match=f"it is {new} now"):
        experiment.load_module(config)
    assert experiment.load_module(config, old=True)


def test_both_open_as_what_they_were(old, tmp_path):
    for name in RUNS:
        config = config_of_today(old / name, tmp_path / f"{name}.py")
        before, after = experiment.restore(old / name), experiment.load(f"{config}:{name}")
        experiment.check_resume(before, after, old / name)
        experiment.check_resume(after, before, old / name)
    assert before.objective.condition == Labels(10, 0.5)
    changed = experiment.restore(old / "diffusion", [("objective.process", "Slow"), ("steps", "9")])
    assert changed.steps == 9
    assert changed.objective.process == experiment.restore(old / "diffusion").objective.process


@pytest.mark.optimised
@pytest.mark.parametrize("name", RUNS)
def test_samples_are_those_of_format_1(runs, name):
    """Equal to rounding: the expected ones come from another number of devices, and integers hide the last bits."""
    found = np.load(write_samples(load(runs / name), 8, seed=1))
    expected = np.load(runs / name / "expected.npz")
    assert np.array_equal(found["label"], expected["label"])
    assert found["samples"].dtype == expected["samples"].dtype
    assert np.mean(found["samples"] != expected["samples"]) < 0.01


def test_results_list_both_with_their_present_metric_names(old):
    table = markdown(read_runs([old]), ())
    assert "`train --config=tiny_runs:diffusion`" in table
    assert "`train --config=tiny_runs:autoregressive`" in table
    report = read_report(old / "diffusion")
    raw = json.loads((old / "diffusion" / "evaluation.json").read_text())
    assert report["distribution"]["near_duplicates_reference"] == raw["distribution"]["twins_reference"]
    assert report["distribution"]["c2st_accuracy"] == raw["distribution"]["told_apart"]
    assert report["likelihood"]["summary"] == raw["likelihood"]["in_words"]
    assert report["objective.likelihood"]["@type"] == "genjax.diffusion.ode_likelihood:OdeLikelihood"


def test_periodic_evaluations_of_format_1_are_restored(runs):
    rows = [{"step": 1, "monitor/told_apart": 0.75, "net/moves": 1.0}, {"step": 2, "monitor/told_apart": 0.5}]
    workdir = runs / "diffusion"
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = experiment.restore(workdir)
    run = prepare(dataclasses.replace(before, monitor=Monitor(every=1, metric="c2st_accuracy")))
    found = PeriodicEvaluation(run, workdir, 2, print, lambda state: (run, state))
    assert found.best() == {"step": 2, "c2st_accuracy": 0.5}


@pytest.mark.parametrize("name", RUNS)
def test_training_resumes_with_a_config_of_today_and_leaves_format_2(runs, name, tmp_path):
    workdir = runs / name
    config = config_of_today(workdir, tmp_path / "tiny_runs.py")
    before, steps = experiment.restore(workdir), experiment.restore(workdir).steps
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": steps, "time": 10.0, "net/moves": 1.0}) + "\n")
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        old_state = checkpoints.restore(prepare(before).template())[1]
    assert int(old_state.step) == steps
    assert any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(old_state.opt_state))
    spec = f"{config}:{name}"
    train(experiment.load(spec, [("steps", str(steps + 1)), ("checkpoint_every", "1")]), workdir, spec=spec)
    assert stored(workdir)["format"] == 2
    after = experiment.restore(workdir)
    assert after == experiment.load(spec, [("steps", str(steps + 1)), ("checkpoint_every", "1")])
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [steps, steps, steps + 1]
    assert lines[1]["net/updated"] == 1.0
    assert "net/moves" not in lines[1]


def test_a_changed_class_of_the_config_is_another_experiment(old, tmp_path):
    workdir = old / "diffusion"
    for change in (
        ("beta_max: float = 10.0", "beta_max: float = 9.0"),
        ("(VP):", "(VP):\n    beta_min: float = 0.2"),
    ):
        config = config_of_today(workdir, tmp_path / "changed.py", change)
        with pytest.raises(UserError, match=r"objective\.process: Slow of the config"):
            experiment.check_resume(experiment.restore(workdir), experiment.load(str(config)), workdir)
    config = config_of_today(
        workdir, tmp_path / "same.py", ("steps=3", "steps=4"), ("A process of", "A  process of")
    )
    experiment.check_resume(experiment.restore(workdir), experiment.load(str(config)), workdir)


@pytest.mark.slow
def test_evaluation_again_keeps_the_names_of_today_and_the_machine(runs):
    workdir = runs / "autoregressive"
    before = read_report(workdir)
    report = evaluate(load(workdir))
    after = read_report(workdir)
    assert json.loads((workdir / "evaluation.json").read_text())["format"] == 2
    assert after == json.loads(json.dumps(report))
    assert after["trained_on"] == before["trained_on"]
    assert before["distribution"].keys() <= after["distribution"].keys()
    assert before["likelihood"].keys() <= after["likelihood"].keys()
    assert after["likelihood"]["nats"] == pytest.approx(before["likelihood"]["nats"], rel=1e-5)
    assert after["held_out"]["net/loss"] == pytest.approx(before["held_out"]["net/loss"], rel=1e-5)


@pytest.mark.slow
def test_both_stand_in_a_comparison(old):
    rows = compare([str(old / name) for name in RUNS], num=32, seed=0)
    table = comparison_table(rows)
    assert all(name in table for name in RUNS)
    assert [entry.trouble for row in rows for entry in row if "ended" in entry.trouble] == []
    assert [row[0].numbers["seconds_to_train"] for row in rows] == [9.427, 4.485]


def test_a_later_format_is_refused(old, tmp_path):
    workdir = shutil.copytree(old / "diffusion", tmp_path / "run")
    (workdir / "experiment.json").write_text(json.dumps({**stored(workdir), "format": 3}))
    with pytest.raises(UserError, match="format 3"):
        experiment.restore(workdir)
    (workdir / "evaluation.json").write_text(json.dumps({"format": 3}))
    with pytest.raises(UserError, match="format 3"):
        read_report(workdir)


def test_a_config_with_old_imports_is_refused_with_the_present_name(old, tmp_path):
    config = tmp_path / "copied.py"
    config.write_text((old / "diffusion" / "config.py").read_text() + "# not a work directory's copy\n")
    with pytest.raises(
        UserError, match=r"genjax\.emissions'; it is genjax\.distributions\.outputs now"
    ) as caught:
        experiment.load(str(config))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("os:system", "neither part of genjax nor imported"),
        ("genjax.core.tree:ast", "not defined there"),
        ("genjax.training.writers:os.replace", "not defined there"),
        ("genjax.data:Digits", "cannot be found|not defined there"),
        ("genjax.data.sources.digits:None", "cannot be found"),
        ("genjax.core.tree:describe", "no dataclass"),
        ("genjaxy:Digits", "neither part of genjax"),
    ],
)
def test_references_outside_genjax_and_the_config_are_refused(tmp_path, reference, words):
    made = experiment.load("diffusion_digits")
    experiment.save(made, "diffusion_digits", tmp_path)
    contents = stored(tmp_path)
    contents["experiment"]["data"]["source"]["@type"] = reference
    (tmp_path / "experiment.json").write_text(json.dumps(contents))
    with pytest.raises(UserError, match=words) as caught:
        experiment.restore(tmp_path)
    assert "\n" not in str(caught.value)


def test_format_2_finds_classes_and_functions_of_the_config_and_of_files_that_it_imports(
    tmp_path, monkeypatch
):
    (tmp_path / "beside_format_2.py").write_text(
        "import dataclasses\nfrom genjax.data import Digits\n"
        "@dataclasses.dataclass(frozen=True)\nclass Mine(Digits):\n    more: int = 1\n"
    )
    config = tmp_path / "own.py"
    config.write_text(
        "import dataclasses\nimport beside_format_2\nfrom flax import nnx\nfrom genjax.data import Data\n"
        "from genjax.networks import FromNNX\nfrom genjax.training import experiment\n"
        "def net(rngs, out):\n    return nnx.Linear(1, out, rngs=rngs)\n"
        "def get_experiment():\n    base = experiment.load('diffusion_digits')\n"
        "    data = dataclasses.replace(base.data, source=beside_format_2.Mine(3))\n"
        "    model = dataclasses.replace(base.objective, net=FromNNX(net, out='out'))\n"
        "    return dataclasses.replace(base, objective=model, data=data)\n"
    )
    made = experiment.load(str(config))
    workdir = tmp_path / "run"
    workdir.mkdir()
    experiment.save(made, str(config), workdir)
    assert stored(workdir)["format"] == 2
    assert experiment.restore(workdir) == made
