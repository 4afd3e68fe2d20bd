"""Programs with data workers: killed, stopped, resumed with other input options, over several processes.

./launch/local.sh test -m slow tests/test_data_workers.py
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from test_programs import ROOT, environment, program

from genjax.data import ImageFolder
from genjax.training import experiment

pytestmark = pytest.mark.xdist_group("data workers")

CONFIG = '''"""A tiny VAE of images that stay on disk."""
import dataclasses

import numpy as np

from genjax.data import Data, ImageFolder, Scale
from genjax.training.experiment import Evaluation, Experiment
from genjax.networks import MLP
from genjax.objectives.latent.vae import VAE, Gaussian


@dataclasses.dataclass(frozen=True, eq=False)
class Inverted:
    """Examples of a class that only the config file defines."""

    pictures: object

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, indices):
        found = self.pictures[indices]
        return {**found, "x": 255 - found["x"]}


@dataclasses.dataclass(frozen=True)
class Negatives(ImageFolder):
    def load(self, split):
        return Inverted(super().load(split))


def get_experiment(variant: str = ""):
    data = Data(Negatives(variant, size=4, memory_mib=0), (Scale(0.0, 255.0),))
    net = MLP(width=16, depth=1)
    return Experiment(
        VAE(net, net, data.shape, 2, likelihood=Gaussian(0.1)), data, steps=4000, batch_size=32, log_every=10,
        checkpoint_every=20, evaluation=Evaluation(num=40, batch_size=40, pictured=10),
    )
'''


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> str:
    root, rng = tmp_path_factory.mktemp("workers"), np.random.default_rng(0)
    for number in range(400):
        path = root / "pictures" / f"{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)).save(path)
    (root / "negatives.py").write_text(CONFIG)
    return f"{root / 'negatives.py'}:{root / 'pictures'}"


@contextlib.contextmanager
def started(config: str, workdir: pathlib.Path, *words: str):
    """A training run in its own process group, after it has logged 30 steps."""
    command = [
        sys.executable,
        "-m",
        "experiments.train",
        f"--config={config}",
        f"--workdir={workdir}",
        *words,
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    running = subprocess.Popen(command, env=environment(), **pipes)
    try:
        end = time.monotonic() + 300
        while not (workdir / "metrics.jsonl").exists() or max(losses(workdir), default=0) < 30:
            assert time.monotonic() < end, "the run makes no progress"
            assert running.poll() is None, running.communicate()[1]
            time.sleep(0.05)
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)


def group(leader: int) -> list[int]:
    """The live processes of a group, without its leader."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(number) == leader and state != "Z" and int(path.parent.name) != leader:
            found.append(int(path.parent.name))
    return found


def workers(leader: int) -> list[int]:
    """The data workers of a group."""
    return [
        pid for pid in group(leader) if b"spawn_main" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def gone(leader: int, seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not group(leader):
            return True
        time.sleep(0.1)
    return False


def losses(workdir: pathlib.Path) -> dict[int, float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return {row["step"]: row["vae/loss"] for row in rows}


def test_the_configs_own_source_draws_its_negatives(config):
    """What the runs below train on: 255 minus the stored values, by a class that only the config file defines."""
    shown = experiment.load(config).data.load("train")
    stored = ImageFolder(config.partition(":")[2], size=4, memory_mib=0).load("train")
    index = np.arange(0, 40, 3)
    np.testing.assert_array_equal(shown[index]["x"], 255 - stored[index]["x"])


@pytest.mark.slow
def test_a_kill_leaves_no_orphans_and_a_resumed_run_may_have_other_workers(config, tmp_path):
    """The losses without workers, with one worker, and with two workers until a kill are bit-identical."""
    before = {*os.listdir("/dev/shm")}
    with started(config, tmp_path / "run", "--config.input.workers=2") as running:
        assert len(workers(running.pid)) == 2
        os.kill(running.pid, signal.SIGKILL)
        running.communicate()
        assert gone(running.pid)
    assert not [name for name in {*os.listdir("/dev/shm")} - before if name.startswith("psm_")]
    steps = max(losses(tmp_path / "run")) + 60
    for name, count in (("run", 1), ("straight", 0)):
        done = program(
            "train",
            f"--config={config}",
            f"--workdir={tmp_path / name}",
            f"--config.steps={steps}",
            f"--config.input.workers={count}",
            timeout=900,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert "leaked" not in done.stderr
    assert losses(tmp_path / "run") == losses(tmp_path / "straight")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_process_group_saves_and_exits(config, tmp_path, number):
    """As Ctrl-C in a terminal: the workers receive the signal too."""
    with started(config, tmp_path / "run", "--config.input.workers=2") as running:
        os.killpg(running.pid, number)
        _, errors = running.communicate(timeout=300)
        assert running.returncode == 128 + number, errors
        assert "Traceback" not in errors
        assert "leaked" not in errors
        assert gone(running.pid)
    assert max(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()) >= 30


@pytest.mark.slow
def test_a_killed_worker_is_one_line(config, tmp_path):
    with started(config, tmp_path / "run", "--config.input.workers=1") as running:
        (worker,) = workers(running.pid)
        os.kill(worker, signal.SIGKILL)
        _, errors = running.communicate(timeout=300)
        assert running.returncode == 2, errors
        assert (
            errors.strip().splitlines()[-1].startswith("error: a data worker ended before its batch was made")
        )
        assert "Traceback" not in errors
        assert gone(running.pid)


@pytest.mark.slow
def test_prepare_then_train(tmp_path):
    """Texts become token files, on which a byte-level transformer trains."""
    for name in "abc":
        lines = [f"{name} {number}: the quality of mercy is not strained" for number in range(40)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    out = tmp_path / "tokens"
    done = program("prepare", f"--text={tmp_path}/*.txt", f"--out={out}", "--separator=\\n")
    assert done.returncode == 0, done.stderr
    assert "120 documents" not in done.stdout.splitlines()[0]
    assert "a vocabulary of 256" in done.stdout
    words = ["--config=ar_bytes", "--config.data.source=Tokens", f"--config.data.source.path={out}"]
    words += ["--config.steps=4", f"--workdir={tmp_path / 'run'}", "--config.input.resident=false"]
    words += ["--config.objective.net.depth=1", "--config.objective.net.width=32", "--config.input.workers=1"]
    done = program("train", *words, "--config.evaluation.num=2", "--config.evaluation.pictured=2")
    assert done.returncode == 0, done.stderr
    again = program("prepare", f"--text={tmp_path}/*.txt", f"--out={out}")
    assert again.returncode == 2
    assert "is not empty" in again.stderr


PROCESS = """
import sys, jax, numpy as np
jax.config.update("jax_cpu_collectives_implementation", "gloo")
number, count, port = map(int, sys.argv[1:])
if count > 1:
    jax.distributed.initialize(f"localhost:{port}", count, number)
import test_data_loading as shared
from jax.experimental import multihost_utils
found = []
for resident in (True, False):
    run = shared.ready(resident=resident)
    assert run.resident == resident and jax.process_count() == count
    state = shared.train(run, run.make_state(), 0, 4)
    state = shared.train(run, state, 4, 2, stacked=True)
    found.append(np.asarray(multihost_utils.process_allgather(state.params, tiled=True)["net"]["w"]))
np.testing.assert_array_equal(*found)
if number == 0:
    print(found[0].tobytes().hex())
"""


@pytest.mark.slow
def test_processes_gather_from_their_own_copies(tmp_path):
    """Two processes of two devices: training on resident data and on host batches is bit-identical, and equals that of
    one process of four devices up to the order of summation.
    """
    path = tmp_path / "process.py"
    path.write_text(PROCESS)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def start(number: int, count: int) -> subprocess.Popen:
        flags = f"--xla_force_host_platform_device_count={4 // count}"
        env = environment() | {"XLA_FLAGS": flags, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        command = [sys.executable, str(path), str(number), str(count), str(port)]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    results = []
    for count in (1, 2):
        running = [start(number, count) for number in range(count)]
        outs = [each.communicate(timeout=300) for each in running]
        assert all(each.returncode == 0 for each in running), outs[-1][1]
        results.append(np.frombuffer(bytes.fromhex(outs[0][0].strip().splitlines()[-1]), np.float32))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-6)
