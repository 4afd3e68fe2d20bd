"""Real processes of one run over loopback, and the config that they run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import quick

from genjax.parallel.hosts.rendezvous import free_port

ROOT = Path(__file__).parent.parent
CONFIG = '''"""A tiny VAE in the plane; its state counts how often, and at which step last, each example was used."""

import os
import time
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from genjax.conditioning.labels import Labels
from genjax.data import Data, Digits, Npz, Scale, Table
from genjax.core.objective import Aux, Player
from genjax.diffusion.prediction import V
from genjax.networks import MLP
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.objectives.latent.vae import VAE, Gaussian
from genjax.samplers.ode import DDIM
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import SGD

NUM = 256


class Paced(Table):
    """Examples that load slowly, and never once the file $STUCK exists."""

    def __getitem__(self, indices):
        time.sleep(float(os.environ.get("PAUSE", 0.0)))
        while os.path.exists(os.environ.get("STUCK", "")):
            time.sleep(0.1)
        return super().__getitem__(indices)


@dataclass(frozen=True)
class Numbered:
    """Points on a ring, with their indices."""

    kind = "points"
    shape = (2,)
    dtype = "float32"
    classes = 0
    levels = 0
    splits = ("train", "test")

    def load(self, split):
        rng = np.random.default_rng(split == "test")
        angle = rng.uniform(0.0, 2 * np.pi, NUM)
        x = np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.1 * rng.standard_normal((NUM, 2))
        return Paced({"x": x.astype(np.float32), "number": np.arange(NUM)})


@dataclass(frozen=True)
class Counted(VAE):
    def init(self, key, batch):
        params, extra = super().init(key, batch)
        zeros = jnp.zeros(NUM, jnp.int32)
        return params, {**extra, "times": zeros, "step": zeros}

    def players(self):
        inner = super().players()["vae"].loss

        def loss(params, extra, batch, ctx):
            value, aux = inner(params, extra, batch, ctx)
            if not ctx.train:
                return value, aux
            seen = {
                "times": extra["times"].at[batch["number"]].add(1),
                "step": extra["step"].at[batch["number"]].set(ctx.step.astype(jnp.int32)),
            }
            return value, Aux(aux.metrics, {**aux.extra, **seen})

        return {"vae": Player(loss)}


def get_experiment(variant="points"):
    how = dict(batch_size=32, log_every=1, checkpoint_every=4)
    if variant != "points":
        data = Data(Digits() if variant == "digits" else Npz(variant, label="y", values=17), (Scale(0.0, 16.0),))
        labels = Labels(data.classes, 0.1) if data.classes else None
        model = Diffusion(MLP(width=32, depth=1), data.shape, labels, predict=V(), sampler=DDIM(steps=4))
        evaluation = Evaluation(num=64, batch_size=64, pictured=20)
        return Experiment(model, data, SGD(learning_rate=1e-3), steps=2, evaluation=evaluation, **how)
    data, net = Data(Numbered(), (Scale(-2.0, 2.0),)), MLP(width=16, depth=1)
    model = Counted(net, net, data.shape, 2, likelihood=Gaussian(1.0))
    evaluation = Evaluation(num=100, batch_size=50, pictured=50)
    return Experiment(model, data, SGD(learning_rate=1e-3), steps=24, evaluation=evaluation, **how)
'''


def environment(devices: int, **more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)} | quick.environment(devices) | more


class Processes:
    """`count` processes of one program with `devices` each; a context manager that kills all on exit."""

    def __init__(self, count, devices, *words, present=None, stuck=None, **more):
        """Starts the processes in `present` (default all); only process `stuck` has the variable STUCK."""
        self.start, port = time.monotonic(), free_port()
        self.all = []
        for index in range(count) if present is None else present:
            place = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}", f"--process_id={index}"]
            command = [sys.executable, *map(str, words), *(place if count > 1 else [])]
            env = environment(devices, **{k: v for k, v in more.items() if k != "STUCK" or index == stuck})
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            self.all.append(subprocess.Popen(command, text=True, env=env, **pipes))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.all:
            process.kill()
            for pipe in (process.stdout, process.stderr):
                pipe.close()
            process.wait()

    def send(self, index, number):
        self.start = time.monotonic()
        self.all[index].send_signal(number)
        return self

    def ends(self, but=(), timeout=600):
        """(exit code, stderr) of all but `but`, and seconds from the start or last signal to the last exit."""
        rest = [process for index, process in enumerate(self.all) if index not in but]
        texts = [process.communicate(timeout=timeout)[1] for process in rest]
        took = time.monotonic() - self.start
        for index in but:
            self.all[index].send_signal(signal.SIGCONT)
            self.all[index].kill()
            self.all[index].communicate()
        return [(process.returncode, text) for process, text in zip(rest, texts, strict=True)], took


def verb(name, *words):
    return "-m", f"experiments.{name}", *words


def finished(count, devices, *words, **more):
    """Runs processes and asserts that all exit with code 0."""
    with Processes(count, devices, *words, **more) as processes:
        ends, _ = processes.ends()
    assert [code for code, _ in ends] == [0] * count, ends


def metrics(workdir):
    path = Path(workdir) / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def wait_for_step(workdir, step, processes):
    """Waits until a run has logged a step."""
    until = time.monotonic() + 900  # on a busy machine
    while time.monotonic() < until:
        if any(row["step"] >= step for row in metrics(workdir)):
            return
        dead = [p for p in processes.all if p.poll() is not None]
        assert not dead, [p.communicate()[1] for p in dead]
        time.sleep(0.05)
    raise AssertionError("the run makes no progress")
