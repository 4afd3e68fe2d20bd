"""Time of our training steps relative to plain PyTorch's: same sizes, same machine, alternating; see `twins`.

    pip install -r requirements-peers.txt; git clone https://github.com/karpathy/nanoGPT FOLDER
    python tests/peers/training_speed.py [--setting cpu] [--nanogpt FOLDER]      # the rows of docs/speed.md
    python tests/peers/training_speed.py --setting unet,vae [--rounds 7] [--seconds 2]
    python tests/peers/training_speed.py --setting gpu --nanogpt FOLDER     # on a GPU: bfloat16, torch.compile, MFU
    python tests/peers/training_speed.py --setting gpt-tiny --nanogpt FOLDER --loss FILE

Both sides take steps on one batch in memory: random numbers, losses, gradients, updates, EMA. A ratio below 1 means
that ours is faster; the median over rounds and the extremes are reported. `--loss` trains nanoGPT for 2000 steps on a
text, as its train.py does, and prints its loss on the windows of our evaluation.
"""

import argparse
import time
from collections.abc import Callable

import sides

if __name__ == "__main__":
    sides.configure()

import jax
import numpy as np
import torch
from twins import CASES, DEVICE, DTYPE, GROUPS, Case, NanoGPT, Twin

from experiments.benchmarks.comparing import time_steps
from genjax.data import TextFile
from genjax.evaluation.chips import utilisation
from genjax.evaluation.evaluate import count_params
from genjax.evaluation.flops import count_flops
from genjax.training.loop import prepare


class Ours:
    """The compiled step of a case.

    Attributes:
        flops: of a step.
        parameters: of all players.
    """

    def __init__(self, case: Case) -> None:
        self.run = prepare(case.experiment)
        self.length = case.experiment.steps_per_call
        self.state, self.batch = self.run.make_state(), self.run.batch(0, self.length)
        self.parameters = count_params(self.state.params)
        one = jax.eval_shape(lambda: self.run.raw(0))
        self.flops = count_flops(self.run.step, self.run.template(), one)

    def steps(self, count: int) -> float:
        """Seconds per step of at least `count` steps."""
        calls = max(1, count // self.length)
        self.state, took = time_steps(self.run, self.state, self.batch, calls)
        return took


def theirs(twin: Twin, count: int) -> float:
    """Seconds per step of `count` steps."""
    start = time.perf_counter()
    for _ in range(count):
        loss = twin.step()
    loss.item()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def steps_for(step: Callable[[int], float], seconds: float) -> int:
    """Number of steps that take about `seconds`, after a first one that compiles."""
    step(1)
    return max(1, min(2000, round(seconds / step(2))))


def compare(name: str, folder: str, rounds: int, seconds: float) -> None:
    """Prints one row per side, and their ratio.

    Args:
        name: of the case.
        folder: with nanoGPT's model.py.
        rounds: number of timings of each side.
        seconds: of each timing.

    Raises:
        ValueError: the numbers of parameters do not differ by `case.less`.
    """
    case = CASES[name]()
    ours, twin = Ours(case), case.twin(folder)
    if ours.parameters - case.less != twin.parameters:
        raise ValueError(
            f"{name}: {ours.parameters:,} - {case.less:,} parameters, the twin {twin.parameters:,}"
        )
    counts = (steps_for(ours.steps, seconds), steps_for(lambda n: theirs(twin, n), seconds))
    timed = sides.alternate(
        {"genjax": lambda: ours.steps(counts[0]), "torch": lambda: theirs(twin, counts[1])}, rounds
    )
    ratios = np.asarray(timed["genjax"]) / np.asarray(timed["torch"])
    unit, each = case.unit
    items, kind = case.experiment.batch_size * each, jax.devices()[0].device_kind
    for side, count in (("genjax", ours.parameters), ("torch", twin.parameters)):
        took = float(np.median(timed[side]))
        used = utilisation(ours.flops, took, kind, jax.device_count(), DTYPE)
        mfu = "" if used is None else f"  MFU {used:6.1%}"
        print(
            f"{name:14} {side:7} {count:>12,} parameters  {1e3 * took:9.3f} ms/step  {items / took:10.0f} {unit}/s"
            f"  {ours.flops / took / 1e9:9.1f} GFLOP/s{mfu}"
        )
    print(
        f"{name:14} genjax / torch: {np.median(ratios):.3f} x the time "
        f"({ratios.min():.3f} ... {ratios.max():.3f} over {rounds} rounds)",
        flush=True,
    )


@torch.no_grad()
def loss_on(net: torch.nn.Module, windows: np.ndarray) -> tuple[float, float]:
    """Mean nats per token of windows [n, context + 1], and its standard error over windows."""
    means = []
    for first in range(0, len(windows), 128):
        x = torch.from_numpy(windows[first : first + 128].astype(np.int64)).to(DEVICE)
        logits = net(x[:, :-1], x[:, 1:].contiguous())[0]
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), x[:, 1:], reduction="none")
        means.append(each.mean(1).cpu().numpy())
    whole = np.concatenate(means)
    return float(whole.mean()), float(whole.std() / len(whole) ** 0.5)


def train_nanogpt(name: str, folder: str, text: str, steps: int = 2000) -> None:
    """Trains nanoGPT on a text with the schedule of its train.py; prints the loss on the windows of our evaluation.

    Args:
        name: of the case.
        folder: with nanoGPT's model.py.
        text: path of the text file.
        steps: number of updates.
    """
    case = CASES[name]()
    twin = case.twin(folder)
    assert isinstance(twin, NanoGPT)
    source = TextFile(text, unit="char", length=case.unit[1] + 1, validation=0.0)
    stream = torch.from_numpy(np.asarray(source.load("train").stream, np.int64))
    start = time.perf_counter()
    for number in range(steps):
        rate = 1e-3 * (number + 1) / 101
        if number >= 100:
            rate = 1e-4 + 0.5 * (1 + np.cos(np.pi * min(1, (number - 100) / (steps - 100)))) * 9e-4
        for group in twin.optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(stream) - case.unit[1], (case.experiment.batch_size,)).tolist()
        rows = torch.stack([stream[i : i + case.unit[1] + 1] for i in starts]).to(DEVICE)
        twin.update(rows[:, :-1], rows[:, 1:].contiguous())
    took, test = time.perf_counter() - start, source.load("test")
    mean, error = loss_on(twin.net, test[np.arange(len(test))]["x"])
    print(f"nanoGPT: {mean:.4f} +- {error:.4f} nats per character after {steps} steps, {took:.0f} s")


def main() -> None:
    """Compares the cases given on the command line."""
    parser = argparse.ArgumentParser()
    known = f"cases of {', '.join(CASES)}, separated by commas; or {' or '.join(GROUPS)}"
    parser.add_argument("--setting", default="cpu", help=known)
    parser.add_argument("--nanogpt", default="nanoGPT", help="folder with nanoGPT's model.py")
    parser.add_argument("--loss", metavar="FILE", help="train nanoGPT on this text")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each timing")
    flags = parser.parse_args()
    names = GROUPS.get(flags.setting, tuple(flags.setting.split(",")))
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"no case {unknown[0]}: {known}")
    if flags.loss:
        train_nanogpt(names[0], flags.nanogpt, flags.loss)
        return
    where = jax.devices()[0].device_kind if DEVICE == "cuda" else f"{sides.CORES} cores"
    print(f"{where}, {DTYPE}; jax {jax.__version__}, torch {torch.__version__}", flush=True)
    for name in names:
        compare(name, flags.nanogpt, flags.rounds, flags.seconds)


if __name__ == "__main__":
    main()
