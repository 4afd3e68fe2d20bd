"""End-to-end tests of the programs: train, resume, sample, evaluate; kills, signals and invalid input."""

import gzip
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import documented
import numpy as np
import pytest
import quick

import genjax as gx
from genjax.core.errors import UserError
from genjax.training import experiment

pytestmark = pytest.mark.xdist_group("programs")  # shared fixtures are built once, in one process

ROOT = Path(__file__).parent.parent
TINY = '''"""A tiny VAE in the plane, for tests."""
from genjax.data import Data, GaussianMixture, Scale
from genjax.training.experiment import Evaluation, Experiment
from genjax.networks import MLP
from genjax.objectives.latent.vae import VAE, Gaussian


def get_experiment(variant: str = "plain"):
    data = Data(GaussianMixture(num=2000, num_test=400), (Scale(-2.0, 2.0),))
    net = MLP(width=16 if variant == "plain" else 24, depth=1)
    return Experiment(
        VAE(net, net, data.shape, 2, likelihood=Gaussian(0.1)), data, steps=60, batch_size=32, log_every=10,
        checkpoint_every=20, evaluation=Evaluation(num=400, batch_size=200, pictured=50),
    )
'''


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)} | quick.environment(devices=2)


def program(verb: str, *words: str, timeout: int = 300) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", f"experiments.{verb}", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=timeout)


def start(*words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments.train", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory) -> Path:
    """A finished run of the tiny experiment."""
    workdir = tmp_path_factory.mktemp("run") / "finished"
    done = program("train", f"--config={tiny}", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines()[done.stdout.splitlines().index("files:") + 1 :]:
        assert Path(line.strip()).exists(), line
    return workdir


def arrays(workdir: Path) -> dict[str, np.ndarray]:
    """All arrays of a run's last checkpoint."""
    from genjax.training import loop
    from genjax.training.checkpoint import Checkpoints

    run = loop.prepare(experiment.restore(workdir))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        step, state = checkpoints.restore(run.template())
    assert step == 60
    import jax

    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def wait_for_step(workdir: Path, step: int) -> None:
    """Waits until a run has logged a step."""
    for _ in range(1200):
        path = workdir / "metrics.jsonl"
        if path.exists() and any(
            json.loads(line)["step"] >= step for line in path.read_text().splitlines() if line.endswith("}")
        ):
            return
        time.sleep(0.05)
    raise AssertionError("the run makes no progress")


def test_a_run_writes_the_files_of_the_readme(finished):
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert rows[-1]["vae/loss"] < rows[0]["vae/loss"]
    assert all(a["time"] < b["time"] for a, b in itertools.pairwise(rows))
    assert list(finished.glob("**/events.out.tfevents*"))
    assert {"experiment.json", "config.py", "checkpoints", "samples", "evaluation.json"} <= {
        p.name for p in finished.iterdir()
    }
    report = json.loads((finished / "evaluation.json").read_text())
    assert report["parameters_of"] == "moving average (EMA)"
    assert report["examples_seen"] == 60 * 32
    assert report["likelihood"]["log_prob_kind"] == "lower bound (ELBO)"
    assert report["modes"]["modes"] == 8


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(finished, tiny, tmp_path):
    again = program("train", f"--config={tiny}", f"--workdir={finished}")
    assert again.returncode == 0
    assert "is finished: 60 of 60 steps" in again.stdout


def test_sample_and_evaluate_need_the_work_directory_alone(finished, tiny):
    aside = tiny.rename(tiny.with_suffix(".away"))
    try:
        documented.run("sample", [f"--workdir={finished}", "--num=30", "--seed=4"])
        drawn = np.load(finished / "samples.npz")["samples"]
        assert drawn.shape == (30, 2)
        assert (finished / "samples.png").exists()
        out = finished / "more.npz"
        documented.run("sample", [f"--workdir={finished}", "--num=40", "--seed=4", f"--out={out}"])
        np.testing.assert_array_equal(np.load(out)["samples"][:30], drawn)
        text = (finished / "evaluation.json").read_text()
        before = json.loads(text)
        some = program("evaluate", f"--workdir={finished}", "--config.evaluation.likelihoods=150")
        assert some.returncode == 0, some.stderr
        after = json.loads((finished / "evaluation.json").read_text())
        assert (before.pop("likelihood")["examples"], after.pop("likelihood")["examples"]) == (400, 150)
        assert after == {**before, "evaluated_with": {"evaluation.likelihoods": "150"}}
        (finished / "evaluation.json").write_text(text)
    finally:
        aside.rename(tiny)


def test_a_killed_run_resumes_bit_for_bit(finished, tiny, tmp_path):
    """SIGKILL during training, then the same command: all arrays equal those of an uninterrupted run."""
    workdir = tmp_path / "killed"
    running = start(
        f"--config={tiny}", f"--workdir={workdir}", "--config.log_every=1", "--config.sample_every=1"
    )
    wait_for_step(workdir, 33)
    running.kill()
    running.communicate()
    again = program("train", f"--config={tiny}", f"--workdir={workdir}")
    assert again.returncode == 0, again.stderr
    resumed_at = int(re.search(r"continuing .* after step (\d+)", again.stdout).group(1))
    assert 0 < resumed_at < 60
    ours, theirs = arrays(workdir), arrays(finished)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_sigterm_saves_and_the_same_command_resumes(finished, tiny, tmp_path):
    workdir = tmp_path / "stopped"
    running = start(
        f"--config={tiny}", f"--workdir={workdir}", "--config.log_every=1", "--config.sample_every=1"
    )
    wait_for_step(workdir, 23)
    running.send_signal(signal.SIGTERM)
    out, error = running.communicate(timeout=120)
    assert running.returncode == 128 + signal.SIGTERM, error
    saved = int(re.search(r"step (\d+) is saved", out).group(1))
    again = program("train", f"--config={tiny}", f"--workdir={workdir}")
    assert f"after step {saved}" in again.stdout
    ours, theirs = arrays(workdir), arrays(finished)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


INVALID = {
    "flag": ("train", ["--wrkdir=x"], "workdir"),
    "word": ("train", ["steps=3"], "unexpected argument 'steps=3'"),
    "config": ("train", ["--config=difusion_digits"], "did you mean 'diffusion_digits'"),
    "value": ("train", ["--config.steps"], "needs a value"),
    "run": ("sample", ["--workdir=nowhere"], "is not the work directory of a run"),
    "no run": ("sample", ["--num=3"], "workdir"),
    "over": ("vary", ["--workdir=nowhere", "--over=steps"], "over=objective.sampler.steps=5,10,20"),
}


@pytest.mark.parametrize(
    "name", [case if case == "run" else pytest.param(case, marks=pytest.mark.slow) for case in INVALID]
)
def test_invalid_arguments_print_one_line(name):
    verb, words, expected = INVALID[name]
    done = program(verb, *words)
    assert done.returncode == 2
    message = done.stderr.strip().splitlines()
    assert len(message) == 1, done.stderr
    assert message[0].startswith("error: ")
    assert expected in message[0]


@pytest.mark.parametrize("name", INVALID)
def test_invalid_arguments_raise_a_user_error(name):
    """In this process: `cli.run` prints the error, as the test above shows."""
    verb, words, expected = INVALID[name]
    with pytest.raises(UserError) as error:
        documented.run(verb, words)
    message = str(error.value)
    assert expected in message
    assert "\n" not in message


def test_list_and_dry_run(tiny, capsys):
    documented.run("train", ["--list"])
    listed = capsys.readouterr().out
    for path in (ROOT / "experiments" / "configs").rglob("*.py"):
        assert path.stem in listed
    documented.run("train", [f"--config={tiny}:wide", "--config.seed=5", "--dry_run"])
    shown = capsys.readouterr().out
    assert "width = 24  (int, config)" in shown
    assert "seed = 5  (int, overridden)" in shown
    assert "steps = 60  (int, config)" in shown
    assert "ema = 0.999  (float, default)" in shown
    count = sum(np.prod(shape) for shape in ((2, 24), (24,)))
    assert int(re.search(r"parameters of vae: ([\d,]+)", shown).group(1).replace(",", "")) > count
    assert "FLOPs of a step" in shown


@pytest.mark.slow
def test_help_lists_the_flags():
    assert "--workdir" in program("train", "--helpfull").stdout


def test_the_readmes_custom_objective_trains_from_an_external_file(tmp_path):
    """The worked example, copied verbatim from the README and trained with overrides."""
    readme = (ROOT / "README.md").read_text()
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if "get_experiment" in block
    )
    path = tmp_path / "vae_gan.py"
    path.write_text(code)
    workdir = tmp_path / "run"
    words = [("steps", "4"), ("batch_size", "16"), ("objective.weight", "0.2")]
    gx.train(experiment.load(str(path), words), workdir, spec=str(path))
    path.unlink()
    documented.run("sample", [f"--workdir={workdir}", "--num=20"])
    assert np.load(workdir / "samples.npz")["samples"].shape == (20, 8, 8, 1)
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"discriminator/loss", "vae/loss"} <= last.keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--what=compare", "--config=gan_mixture", "--config.batch_size=64", "--drawn=16"],
            "time per sample",
        ),
        (["--what=game", "--config=gan_digits", "--config.batch_size=8"], "ratio"),
        (["--what=train", "--config=gan_mixture"], "loop / bare"),
        (
            [
                "--what=sample",
                "--config=diffusion_digits",
                "--samples=8",
                "--config.objective.sampler.steps=2",
            ],
            "loop of",
        ),
        (["--what=likelihood", "--config=vae_mixture"], "log_prob"),
    ],
)
def test_benchmarks_run(words, said):
    done = program("benchmark", "--rounds=1", "--steps=20", *words)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_profiler_traces_are_written(tmp_path):
    words = [
        "--config=gan_mixture",
        "--config.steps=60",
        "--config.steps_per_call=1",
        "--config.evaluation.num=100",
    ]
    done = program("train", *words, f"--workdir={tmp_path / 'run'}", "--profile=20:23")
    assert done.returncode == 0, done.stderr
    traces = list((tmp_path / "run" / "trace").rglob("*.trace.json.gz"))
    assert len(traces) == 1
    events = json.loads(gzip.decompress(traces[0].read_bytes()))["traceEvents"]
    steps = {int(event["args"]["step_num"]) for event in events if "step_num" in event.get("args", {})}
    assert steps == {20, 21, 22}
    done = program("benchmark", "--rounds=1", "--steps=5", *words[:1], f"--trace={tmp_path / 'bench'}")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "bench").rglob("*.trace.json.gz"))


def test_a_gan_without_a_handwritten_step_raises():
    with pytest.raises(UserError, match="the hand-written step is that of gan_digits"):
        documented.run("benchmark", ["--what=game", "--config=gan_mixture"])
