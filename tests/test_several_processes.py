"""Real multi-process runs over loopback: the same numbers as one process, and the behaviour when one is lost.

The slow tests take about ten minutes on 2 cores and print the times in docs/hosts.md:

./launch/local.sh test -n 0 -m slow -s tests/test_several_processes.py
"""

import json
import runpy
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from processes import CONFIG, Processes, finished, metrics, verb, wait_for_step

from genjax.training import experiment, loop
from genjax.training.checkpoint import Checkpoints

pytestmark = pytest.mark.xdist_group("several processes")

FEW_STEPS = """
import os
import jax
import jax.numpy as jnp
import numpy as np
from dataclasses import dataclass
from experiments import cli
from genjax.core.objective import Aux, Player
from genjax.data import Data, Table
from genjax.data.loading import Input
from genjax.evaluation.sampling import gather
from genjax.training import loop
from genjax.training.experiment import Experiment
from genjax.training.optimizers import SGD


@dataclass(frozen=True)
class Noise:
    kind, shape, dtype, classes, levels, splits = "points", (2,), "float32", 0, 0, ("train",)

    def load(self, split):
        return Table({"x": np.random.default_rng(0).normal(size=(96, 2)).astype(np.float32)})


@dataclass(frozen=True)
class Line:
    condition = None

    def init(self, key, batch):
        return {"line": {"w": jax.random.normal(key, (1,))}}, {}

    def players(self):
        def loss(params, extra, batch, ctx):
            noise = jax.random.normal(ctx.key, batch["x"][:, :1].shape)
            return jnp.mean((batch["x"][:, :1] * params["line"]["w"][None] + noise - batch["x"][:, 1:]) ** 2), Aux({})

        return {"line": Player(loss)}

    def sample(self, params, extra, key, num, cond=None):
        return jnp.zeros((num, 2))


def train(mesh=None):
    experiment = Experiment(
        Line(), Data(Noise()), SGD(learning_rate=0.1), batch_size=32, input=Input(resident=False)
    )
    run = loop.prepare(experiment, mesh)
    state, losses, seen = run.make_state(), [], []
    for step in range(3):
        batch = run.batch(step, 1)
        state, metrics = run.compiled(state, batch, False)
        seen.append(gather(batch["x"]))
        losses.append(gather(metrics["line/loss"]))
    return {"seen": np.stack(seen), "losses": np.stack(losses)}


def main(overrides):
    found = train()
    if jax.process_index() == 0:
        np.savez(os.environ["OUT"], **found)


if __name__ == "__main__":
    cli.run(main)
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "several.py"
    path.write_text(CONFIG)
    return path


def test_two_processes_compute_the_same_as_one(tmp_path):
    """Examples equal bit for bit, losses to float32 rounding, against one process with two devices."""
    program, out = tmp_path / "few_steps.py", tmp_path / "out.npz"
    program.write_text(FEW_STEPS)
    with Processes(2, 1, program, OUT=str(out), JAX_DISABLE_MOST_OPTIMIZATIONS="1") as processes:
        mesh = Mesh(np.array(jax.devices()[:2]), ("data",), axis_types=(AxisType.Auto,))
        ours = runpy.run_path(str(program))["train"](mesh)
        ends, _ = processes.ends()
    assert ends == [(0, ""), (0, "")]
    theirs = np.load(out)
    np.testing.assert_array_equal(theirs["seen"], ours["seen"])
    assert len(np.unique(theirs["seen"])) == 192, "an epoch"
    np.testing.assert_allclose(theirs["losses"], ours["losses"], rtol=1e-6)


def state_of(workdir: Path) -> dict[str, np.ndarray]:
    """All arrays of the latest checkpoint of a run, and its step."""
    run = loop.prepare(experiment.restore(workdir, [("mesh", "data:-1")]))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        step, state = checkpoints.restore(run.template())
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {"at": step} | {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same_state(ours: Path, theirs: Path) -> None:
    """Integer arrays (examples used) are equal, all others to float32 rounding."""
    ours, theirs = state_of(ours), state_of(theirs)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if np.issubdtype(np.asarray(value).dtype, np.integer):
            np.testing.assert_array_equal(ours[name], value, err_msg=name)
        else:
            np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def assert_same_numbers(ours: dict, theirs: dict, rtol: float = 1e-4) -> None:
    """Asserts that the numbers of nested reports agree."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if isinstance(value, dict):
            assert_same_numbers(ours[name], value, rtol)
        elif isinstance(value, float):
            np.testing.assert_allclose(ours[name], value, rtol=rtol, atol=1e-6, err_msg=name)
        else:
            assert ours[name] == value, name


def train(config, workdir, *words):
    return verb("train", f"--config={config}", f"--workdir={workdir}", *words)


@pytest.fixture(scope="module")
def one(config, tmp_path_factory) -> Path:
    """A run of one process with 8 devices."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    finished(1, 8, *train(config, workdir))
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["data:-1", "data:4,fsdp:2", "data:2,tensor:4"])
def test_four_processes_train_sample_and_evaluate_as_one(mesh, one, config, tmp_path):
    """4 processes with 2 devices each; with tensor:4 two processes share each row."""
    workdir = tmp_path / "four"
    finished(4, 2, *train(config, workdir, f"--config.mesh={mesh}"))
    assert_same_state(workdir, one)
    for ours, theirs in zip(metrics(workdir), metrics(one), strict=True):
        np.testing.assert_allclose(ours["vae/loss"], theirs["vae/loss"], rtol=1e-5)
    read = lambda folder: json.loads((folder / "evaluation.json").read_text())
    assert_same_numbers(read(workdir), read(one), rtol=1e-3)
    if mesh == "data:-1":
        for count, devices in ((1, 8), (4, 2)):
            out = tmp_path / f"samples{count}.npz"
            finished(count, devices, *verb("sample", f"--workdir={one}", "--num=30", f"--out={out}"))
        np.testing.assert_allclose(
            *(np.load(tmp_path / f"samples{count}.npz")["samples"] for count in (1, 4)), rtol=1e-5, atol=1e-6
        )


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_process_ends_the_others_with_one_line_and_the_run_resumes(victim, config, tmp_path, one):
    workdir, words = tmp_path / "run", train(config, tmp_path / "run")
    with Processes(4, 2, *words, PAUSE="0.1") as processes:
        wait_for_step(workdir, 9, processes)
        ends, took = processes.send(victim, signal.SIGKILL).ends(but=(victim,))
    print(f"\nkill -9 of process {victim}: the others ended after {took:.1f} s")
    assert took < 15
    for code, stderr in ends:
        assert code == 75, stderr
        assert len(stderr.strip().splitlines()) == 1, stderr
        assert stderr.startswith(f"error: process {victim} ")
        assert "died: the same command resumes from the latest checkpoint" in stderr
    finished(4, 2, *words)
    assert_same_state(workdir, one)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_stopped_process_ends_the_others_within_the_watchdog_timeout(victim, config, tmp_path):
    workdir, limit = tmp_path / "run", 10
    with Processes(4, 2, *train(config, workdir, f"--watchdog={limit}"), PAUSE="0.1") as processes:
        wait_for_step(workdir, 3, processes)
        ends, took = processes.send(victim, signal.SIGSTOP).ends(but=(victim,))
    print(f"\nSIGSTOP of process {victim}: the others ended after {took:.1f} s of a watchdog of {limit} s")
    assert took < limit + 10
    for code, stderr in ends:
        assert code == 75, stderr
        assert len(stderr.strip().splitlines()) == 1, stderr
        assert f"process {victim} " in stderr
        assert "silent for 10 s" in stderr


@pytest.mark.slow
def test_a_process_without_progress_is_named(config, tmp_path):
    workdir, limit, stuck = tmp_path / "run", 10, tmp_path / "stuck"
    words = train(config, workdir, f"--watchdog={limit}", "--config.checkpoint_every=1000")
    with Processes(2, 1, *words, PAUSE="0.1", STUCK=str(stuck), stuck=1) as processes:
        wait_for_step(workdir, 3, processes)
        stuck.touch()
        processes.start = time.monotonic()
        ends, took = processes.ends()
    print(f"\na process without data: all ended after {took:.1f} s of a watchdog of {limit} s")
    assert took < limit + 10
    for code, stderr in ends:
        assert code == 75, stderr
        assert len(stderr.strip().splitlines()) == 1, stderr
        assert "process 1 " in stderr
        assert "has been stuck after step" in stderr


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_and_two_processes_resume(config, tmp_path, one):
    """All save the same step; the resumed run of 2 processes uses each remaining example of each epoch once."""
    workdir, words = tmp_path / "run", train(config, tmp_path / "run", "--config.checkpoint_every=1000")
    with Processes(4, 2, *words, PAUSE="0.1") as processes:
        wait_for_step(workdir, 5, processes)
        ends, took = processes.send(3, signal.SIGTERM).ends()
    print(f"\nSIGTERM to process 3: all ended after {took:.1f} s")
    assert took < 30
    assert [(code, stderr) for code, stderr in ends] == [(143, "")] * 4
    stopped = state_of(workdir)
    assert 5 <= stopped["at"] < 24
    assert stopped[".extra['times']"].sum() == stopped["at"] * 32
    finished(2, 2, *words)
    assert_same_state(workdir, one)
    np.testing.assert_array_equal(state_of(workdir)[".extra['times']"], 3)


@pytest.mark.slow
def test_a_signal_during_evaluation_ends_all_at_once(config, tmp_path):
    workdir = tmp_path / "run"
    with Processes(2, 1, *train(config, workdir, "--config.evaluation.num=100000")) as processes:
        wait_for_step(workdir, 24, processes)
        time.sleep(8.0)
        ends, took = processes.send(0, signal.SIGTERM).ends()
    print(f"\nSIGTERM during evaluation: all ended after {took:.1f} s")
    assert took < 30
    assert [code for code, _ in ends] == [143, 143]


@pytest.mark.slow
def test_missing_processes_are_named_in_time(config, tmp_path):
    words = train(config, tmp_path / "run", "--watchdog=6")
    with Processes(3, 1, *words, present=(0, 2)) as processes:
        ends, took = processes.ends()
    line = "error: process 1 of 3 did not connect within 6 s\n"
    assert ends == [(75, line), (75, line)]
    assert took < 60
    with Processes(3, 1, *words, present=(2,)) as processes:
        ends, took = processes.ends()
    ((code, stderr),) = ends
    assert code == 75
    assert "process 0 cannot be reached at 127.0.0.1:" in stderr
    assert len(stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_user_error_ends_all_with_one_line_each(config, tmp_path):
    with Processes(2, 1, *train(config, tmp_path / "run", "--config.batch_size=33")) as processes:
        ends, _ = processes.ends()
    for code, stderr in ends:
        assert code == 2
        assert "batch_size=33 cannot be split over 2 devices" in stderr
        assert len(stderr.splitlines()) == 1, stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with Processes(2, 1, *train(config, tmp_path / "full")) as processes:
        ends, _ = processes.ends()
    for code, stderr in ends:  # only process 0 checks the directory
        assert code == 2
        assert "is not empty and holds no run" in stderr
        assert len(stderr.splitlines()) == 1, stderr


@pytest.fixture(scope="module")
def digits(config, tmp_path_factory) -> Path:
    """A diffusion model of digits, trained for 2 steps by one process with 2 devices."""
    workdir = tmp_path_factory.mktemp("digits") / "run"
    finished(1, 2, *train(f"{config}:digits", workdir))
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("sample", "--num=20"),
        ("sample", "--num=4", "--trace=3"),
        ("edit", "--task=inpaint", "--num=4"),
        ("edit", "--task=interpolate", "--num=2"),
        ("evaluate",),
        ("vary", "--over=objective.sampler.steps=2,3", "--num=64"),
    ],
    ids=" ".join,
)
def test_every_verb_gives_the_same_results_on_two_processes_as_on_one(words, digits, tmp_path):
    found = {}
    for count in (1, 2):
        out = tmp_path / f"out{count}.npz"
        given = () if words[0] == "evaluate" else (f"--out={out}",)
        finished(count, 2 // count, *verb(words[0], f"--workdir={digits}", *words[1:], *given))
        if words[0] == "evaluate":
            found[count] = json.loads((digits / "evaluation.json").read_text())
        elif words[0] == "vary":
            rows = json.loads((out / "rows.json").read_text())
            found[count] = {
                row["objective.sampler.steps"]: {k: v for k, v in row.items() if "seconds" not in k}
                for row in rows
            }
        else:
            found[count] = dict(np.load(out))
    if words[0] in ("evaluate", "vary"):
        assert_same_numbers(found[2], found[1], rtol=2e-2)
        return
    assert found[1].keys() == found[2].keys()
    for name, value in found[1].items():
        np.testing.assert_allclose(found[2][name].astype(float), value.astype(float), atol=1.0, err_msg=name)
