"""Suites: runs, their order and number of steps; invalid suites; a complete small suite (slow)."""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest
from test_programs import TINY, environment

from experiments.benchmarks import pacing
from genjax.api import suite, supervise
from genjax.api.suite import Member, Suite
from genjax.core.errors import UserError
from genjax.evaluation import hardware
from genjax.training import experiment

ROOT = Path(__file__).parent.parent
SHIPPED = sorted(path.stem for path in suite.SUITES.glob("*.py"))
TWO = Suite(
    members=(
        Member("one", "gan_digits", (("batch_size", "64"),), views=((), (("objective.temperature", "1"),))),
        Member("two", "vq_prior_digits:{coder}", (("ema", "0.9"),), coder=Member("first", "vqvae_digits")),
    ),
    overrides=(("keep_last", "3"),),
)


def plan(stage, root, steps, seconds=None):
    path = suite.plan_path(stage, root)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"seconds": seconds or stage.seconds, "steps": steps}))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_suites_train_all_families_on_one_data_set(name, tmp_path):
    loaded = suite.load_suite(name)
    stages = suite.stages(loaded, tmp_path, 60.0, [3], ())
    sources = {json.dumps(_source(stage.experiment().data.source), default=str) for stage in stages[1]}
    assert len(sources) == 1
    assert all(stage.experiment().seed == 3 for part in stages for stage in part)
    assert {"vae", "vq_prior", "gan", "wgan_gp", "flow", "pixelcnn", "diffusion", "consistency"} <= {
        member.name for member in loaded.members
    }
    diffusion = next(member for member in loaded.members if member.name == "diffusion")
    assert [dict(view)["objective.sampler.steps"] for view in diffusion.views] == ["10", "50", "250"]


def _source(source):
    return dataclasses.asdict(getattr(source, "source", source))


def test_stages_share_seconds_and_take_the_steps_of_the_plan(tmp_path):
    first, rest = suite.stages(TWO, tmp_path, 50.0, [0, 1], [("log_every", "7")])
    assert [(s.name, s.seconds) for s in first] == [("first,seed=0", 20.0), ("first,seed=1", 20.0)]
    names = ["one,seed=0", "two,seed=0", "one,seed=1", "two,seed=1"]
    assert [(s.name, s.seconds) for s in rest] == list(zip(names, [50.0, 30.0, 50.0, 30.0], strict=True))
    assert rest[3].config == f"vq_prior_digits:{tmp_path}/first,seed=1"
    assert suite.planned(rest[0], tmp_path) == rest[0]
    plan(rest[0], tmp_path, 120)
    ready = [suite.planned(stage, tmp_path).experiment() for stage in (rest[0], rest[2])]
    assert [(e.steps, e.seed, e.batch_size, e.keep_last, e.log_every) for e in ready] == [
        (120, 0, 64, 3, 3),
        (120, 1, 64, 3, 3),
    ]


def test_only_finished_runs_are_compared_by_view(tmp_path):
    words = suite.comparison_runs(TWO, tmp_path, ["one,seed=0", "two,seed=1"], [0, 1])
    one, two = tmp_path / "one,seed=0", tmp_path / "two,seed=1"
    assert list(words) == [str(one), f"{one}@objective.temperature=1", str(two)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1", "has no function get_suite"),
        (
            "from genjax.api.suite import *\nget_suite = lambda: Suite((Member('a', 'x'), Member('a', 'y')))",
            "'a' must",
        ),
        ("from genjax.api.suite import *\nget_suite = lambda: Suite((Member('a=b', 'x'),))", "'a=b' must"),
    ],
)
def test_invalid_suite_files_raise(text, expected, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UserError, match=expected):
        suite.load_suite(str(path))


def test_unknown_names_and_stale_plans_raise(tmp_path):
    with pytest.raises(UserError, match="did you mean 'digits'"):
        suite.load_suite("digit")
    with pytest.raises(UserError, match="did you mean 'two'"):
        suite.choose(TWO, ["tow"])
    stage = suite.stages(TWO, tmp_path, 50.0, [0], ())[1][0]
    plan(stage, tmp_path, 10, seconds=49.0)
    with pytest.raises(UserError, match=r"is for 49 s of training, not 50: use another workdir=DIR"):
        suite.planned(stage, tmp_path)
    suite.plan_path(stage, tmp_path).write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        suite.read_plan(stage, tmp_path)


def test_a_signal_is_forwarded_to_the_running_command():
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    before, began = signal.getsignal(signal.SIGTERM), time.monotonic()
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert supervise.call(sleeper) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 30.0
    assert signal.getsignal(signal.SIGTERM) == before
    assert supervise.call([sys.executable, "-c", "raise SystemExit(3)"]) == 3


def test_planned_steps_are_whole_calls(monkeypatch):
    loaded = dataclasses.replace(experiment.load("vae_mixture"), steps_per_call=5)
    monkeypatch.setattr(pacing, "pace", lambda experiment: [0.25, 9.0, 0.2, 0.21, 0.19])
    made = pacing.plan(loaded, 10.0)
    assert (made["steps"], made["step_seconds"], made["from_to"]) == (50, 0.21, [0.19, 9.0])
    assert pacing.plan(loaded, 0.01)["steps"] == 5


def test_on_one_core_busy_counts_cpu_time(monkeypatch):
    assert hardware.processor(Path("/nowhere")) == "an unnamed processor"
    monkeypatch.setattr(hardware, "cores", lambda: 1)
    assert hardware.hardware().startswith(f"{jax.device_count()} cpu device")
    assert ", 1 core of " in hardware.hardware()
    began = hardware.busy()
    time.sleep(0.2)
    assert hardware.busy() - began < 0.1
    monkeypatch.setattr(hardware, "cores", lambda: 2)
    began = hardware.busy()
    time.sleep(0.02)
    assert hardware.busy() - began >= 0.02


TINY_SUITE = '''"""A tiny suite."""
from genjax.api.suite import Member, Suite


def get_suite():
    return Suite(
        (Member("a", "CONFIG"), Member("b", "CONFIG:wide", views=((), (("evaluation.batch_size", "100"),)))),
        (("checkpoint_every", "1000"),),
    )
'''


@pytest.mark.slow
def test_a_suite_trains_its_members_and_compares_them(tmp_path):
    """Takes minutes. A repeated command trains nothing; another budget in the same folder raises."""
    (tmp_path / "tiny.py").write_text(TINY)
    (tmp_path / "mine.py").write_text(TINY_SUITE.replace("CONFIG", str(tmp_path / "tiny.py")))
    words = [f"--suite={tmp_path / 'mine.py'}", "--seeds=0,1", f"--workdir={tmp_path / 'runs'}", "--num=400"]

    def run(*more: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "experiments.suite", *words, *more]
        env = {**environment(), "GENJAX_PYTHON": sys.executable}
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=900)

    dry = run("--seconds=2", "--dry_run")
    assert dry.returncode == 0, dry.stderr
    verbs = [shlex.split(line)[4] for line in dry.stdout.splitlines()]
    assert verbs == ["benchmark", "train", "benchmark", "train", "train", "train", "compare"]
    assert not os.listdir(tmp_path / "runs") if (tmp_path / "runs").exists() else True

    done = run("--seconds=2")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "runs" / "comparison.json").read_text())
    assert [(one["name"], one["seed"]) for one in found] == [
        ("a,seed=0", 0),
        ("a,seed=1", 1),
        ("b,seed=0", 0),
        ("b,seed=1", 1),
        ("b,seed=0, batch_size 100", 0),
        ("b,seed=1, batch_size 100", 1),
    ]
    steps = {one["numbers"]["examples_seen"] for one in found if one["name"].startswith("a")}
    assert len(steps) == 1
    assert "a (2 seeds)" in (tmp_path / "runs" / "comparison.md").read_text()
    report = json.loads((tmp_path / "runs" / "a,seed=0" / "evaluation.json").read_text())
    assert report["seconds_to_train"] > 0
    assert " cpu devices, " in report["trained_on"]

    again = run("--seconds=2")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("already finished") == 4
    other = run("--seconds=3")
    assert other.returncode == 2
    assert "use another --workdir" in other.stderr
