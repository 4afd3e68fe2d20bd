"""Steps per second of our GPT beside nanoGPT's, equal sizes, batches and optimizers, same machine, A B A B.

    pip install -r requirements-peers.txt; git clone https://github.com/karpathy/nanoGPT FOLDER
    python tests/peers/training_speed.py --nanogpt FOLDER --text FILE [--setting cpu|short|baby] [--position rotary]
    python tests/peers/training_speed.py --nanogpt FOLDER --text FILE --loss (trains theirs for 2000 steps)

Both loops make their batches, clip, follow a schedule and read the loss now and then. Times are medians over rounds of
`steps` steps; the first round compiles and does not count. `--loss` is what theirs reaches on our evaluation's windows.
"""

import argparse
import os
import sys
import time

CORES = len(os.sched_getaffinity(0))
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={CORES}")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import dataclasses

import numpy as np
import torch

from experiments.benchmark import looped
from genjax import experiment
from genjax.data import TextFile
from genjax.evaluate import count_params
from genjax.loop import prepare

SETTINGS = {"cpu": (4, 4, 128, 64, 12), "baby": (6, 6, 384, 256, 12), "short": (6, 6, 384, 64, 12)}


def ours(text: str, setting: str, position: str, steps: int):
    """A function of nothing that takes `steps` steps of the shipped loop and says seconds per step."""
    depth, heads, width, context, batch = SETTINGS[setting]
    changes = {"objective.net.depth": depth, "objective.net.heads": heads, "objective.net.width": width}
    changes |= {"objective.net.position": position, "optimizer.learning_rate": 1e-3}
    changes |= {"batch_size": batch, "data.source.length": context + 1, "objective.shape": f"{context + 1},"}
    chosen = experiment.load(
        f"ar_shakespeare:{text}", [(name, str(value)) for name, value in changes.items()]
    )
    run = prepare(dataclasses.replace(chosen, checkpoint_every=10**9, sample_every=0, log_every=steps))
    state = run.make_state()
    params = count_params(state.params)

    def advance() -> float:
        nonlocal state
        state, took = looped(run, state, steps)
        return took

    return advance, params


class Theirs:
    """nanoGPT's model and optimizer, in the loop of its train.py without the evaluations."""

    def __init__(self, folder: str, text: str, setting: str, compiled: bool = False) -> None:
        sys.path.insert(0, folder)
        from model import GPT, GPTConfig

        torch.set_num_threads(CORES)
        torch.manual_seed(1337)
        depth, heads, width, self.context, self.batch = SETTINGS[setting]
        self.net = GPT(GPTConfig(self.context, 65, depth, heads, width, 0.0, False))
        self.run = torch.compile(self.net) if compiled else self.net
        self.optimizer = self.net.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
        split = lambda name: TextFile(text, unit="char", length=self.context + 1, validation=0.0).load(name)
        self.test = split("test")
        self.stream = torch.from_numpy(np.asarray(split("train").stream, np.int64))
        self.number = 0

    def step(self) -> torch.Tensor:
        """One step: batch, schedule, loss, gradients, clipping, move."""
        rate = 1e-3 * (self.number + 1) / 101
        if self.number >= 100:
            rate = 1e-4 + 0.5 * (1 + np.cos(np.pi * min(1, (self.number - 100) / 1900))) * 9e-4
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(self.stream) - self.context, (self.batch,)).tolist()
        x = torch.stack([self.stream[i : i + self.context] for i in starts])
        y = torch.stack([self.stream[i + 1 : i + 1 + self.context] for i in starts])
        loss = self.run(x, y)[1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.number += 1
        return loss

    def steps(self, steps: int) -> float:
        """Seconds per step."""
        began = time.perf_counter()
        for _ in range(steps):
            loss = self.step()
        loss.item()
        return (time.perf_counter() - began) / steps

    @torch.no_grad()
    def loss(self) -> tuple[float, float]:
        """Mean nats a character of the test windows, and its standard error over windows."""
        means = []
        for first in range(0, len(self.test), 128):
            window = self.test[np.arange(first, min(first + 128, len(self.test)))]["x"]
            x = torch.from_numpy(window.astype(np.int64))
            logits = self.net(x[:, :-1], x[:, 1:].contiguous())[0]
            each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), x[:, 1:], reduction="none")
            means.append(each.mean(1).numpy())
        whole = np.concatenate(means)
        return float(whole.mean()), float(whole.std() / len(whole) ** 0.5)


def main() -> None:
    """Prints a line for each side, and the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nanogpt", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--setting", choices=SETTINGS, default="cpu")
    parser.add_argument("--position", choices=("learned", "rotary"), default="learned")
    parser.add_argument("--loss", action="store_true")
    for name, default in (("rounds", 7), ("steps", 40)):
        parser.add_argument(f"--{name}", type=int, default=default)
    flags = parser.parse_args()
    theirs = Theirs(flags.nanogpt, flags.text, flags.setting)
    if flags.loss:
        took = 2000 * theirs.steps(2000)
        print(
            "nanoGPT: {:.4f} +- {:.4f} nats a character after 2000 steps,".format(*theirs.loss()),
            f"{took:.0f} s",
        )
        return
    advance, params = ours(flags.text, flags.setting, flags.position, flags.steps)
    sides = {"genjax": advance, "nanoGPT": lambda: theirs.steps(flags.steps)}
    sizes = {"genjax": params, "nanoGPT": sum(p.numel() for p in theirs.net.parameters())}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(flags.rounds + 1):
        for name, side in sides.items():
            took = side()
            if number:
                seconds[name].append(took)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    for name, size in sizes.items():
        print(f"{name:8} {size:>10,} parameters  {1e3 * medians[name]:8.2f} ms/step")
    print(f"genjax / nanoGPT: {medians['genjax'] / medians['nanoGPT']:.3f} x the time per step")


if __name__ == "__main__":
    main()
