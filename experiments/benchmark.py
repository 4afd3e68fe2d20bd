"""Measures what loops cost: training and a diffusion model's sampling beside the bare compiled work, and decoding.

python -m experiments.benchmark [--what=train] [--config=NAME] [--rounds=5] [--steps=40]
python -m experiments.benchmark --what=sample [--config=NAME] [--rounds=5] [--samples=128]
python -m experiments.benchmark --what=decode --config=NAME [--rounds=5]
python -m experiments.benchmark --what=contexts [--rounds=5]
python -m experiments.benchmark --what=compare --config=A [--config.x=y] [--other=B] [--drawn=250]    # A B A B
python -m experiments.benchmark --what=game --config=gan_digits    # beside a step written by hand
python -m experiments.benchmark --what=layout --config=NAME --config.mesh=data:2,fsdp:4    # bytes and collectives
python -m experiments.benchmark --what=input --config=diffusion_mnist    # what the loop waits for its batches

Each round times all settings one after the other on the same machine in the same state; reported are medians over
rounds and their ratios. Set --config.steps_per_call=20 to compare calls of 20 steps with single ones.
"""

import dataclasses
import io
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import flags

from experiments import comparing, decoding_speed, gan_speed, input_speed, layouts, sampling_speed
from genjax import cli, experiment
from genjax.checkpoint import Checkpoints
from genjax.experiment import Experiment
from genjax.loop import Run, StopSignal, prepare, run_steps
from genjax.step import TrainState
from genjax.writers import Writer

WHAT = flags.DEFINE_enum(
    "what",
    "train",
    ["train", "sample", "decode", "contexts", "compare", "game", "layout", "input"],
    "What is measured.",
)
CONFIG = flags.DEFINE_string(
    "config", "diffusion_digits", "Config file or shipped config's name, [:variant]."
)
ROUNDS = flags.DEFINE_integer("rounds", 5, "How often every setting is timed.", lower_bound=1)
WORKERS = flags.DEFINE_list("workers", ["0", "1", "2"], "Numbers of data workers to time, for --what=input.")
STEPS = flags.DEFINE_integer("steps", 40, "Steps in one timing.", lower_bound=2)


def bare(run: Run, state: TrainState, steps: int) -> tuple[TrainState, float]:
    """Seconds per step of the compiled step alone: one batch, already on the device, again and again."""
    length = run.experiment.steps_per_call
    return comparing.walk(run, state, run.batch(0, length), max(1, steps // length))


def looped(run: Run, state: TrainState, steps: int) -> tuple[TrainState, float]:
    """Seconds per step of the training loop: batches, metrics and log included, the save at its end not."""
    first, stamps = int(state.step), [0.0]
    walk = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, steps=first + steps))
    with (
        tempfile.TemporaryDirectory() as folder,
        StopSignal() as stop,
        Checkpoints(Path(folder) / "checkpoints") as checkpoints,
        Writer(folder, steps, stream=io.StringIO()) as writer,
    ):

        def log(step: int, metrics: dict[str, float]) -> None:
            stamps.append(time.perf_counter())
            writer.scalars(step - first, metrics)

        began = time.perf_counter()
        state = run_steps(walk, state, checkpoints, stop, log, lambda step, state: None)
    return state, (stamps[-1] - began) / steps


def measure(chosen: Experiment) -> dict[str, list[float]]:
    """Seconds per step of each setting in each round; the first round compiles and does not count."""
    quiet = dataclasses.replace(
        chosen, checkpoint_every=10**9, sample_every=0, log_every=max(1, STEPS.value // 4)
    )
    runs = {"1 step per call": prepare(dataclasses.replace(quiet, steps_per_call=1))}
    if chosen.steps_per_call > 1:
        runs[f"{chosen.steps_per_call} steps per call"] = prepare(quiet)
    states = {name: run.make_state() for name, run in runs.items()}
    seconds: dict[str, list[float]] = {}
    for number in range(ROUNDS.value + 1):
        for name, run in runs.items():
            for kind, timed in (("bare", bare), ("loop", looped)):
                states[name], took = timed(run, states[name], STEPS.value)
                if number:
                    seconds.setdefault(f"{name}, {kind}", []).append(took)
    return seconds


def main(overrides: cli.Overrides) -> None:
    """Prints one line for each setting."""
    if WHAT.value == "contexts":
        decoding_speed.by_context(ROUNDS.value)
        return
    chosen = experiment.load(CONFIG.value, overrides)
    if WHAT.value == "compare":
        other = comparing.OTHER.value or CONFIG.value
        names = (CONFIG.value, other)
        comparing.report(chosen, experiment.load(other), names, ROUNDS.value, STEPS.value)
        return
    if WHAT.value == "layout":
        layouts.report(chosen)
        return
    if WHAT.value == "input":
        input_speed.report(chosen, tuple(map(int, WORKERS.value)), ROUNDS.value, STEPS.value)
        return
    if WHAT.value == "game":
        gan_speed.report(chosen, ROUNDS.value, STEPS.value)
        return
    if WHAT.value == "decode":
        decoding_speed.report(chosen, ROUNDS.value)
        return
    if WHAT.value == "sample":
        medians = {k: float(np.median(v)) for k, v in sampling_speed.measure(chosen, ROUNDS.value).items()}
        for name, value in medians.items():
            rate = f"{1.0 / value:10.1f} samples/s"
            print(f"{name:28} {1e3 * value:9.3f} ms/sample  {rate}  {value / medians['bare']:6.3f} x bare")
        return
    medians = {name: float(np.median(values)) for name, values in measure(chosen).items()}
    reference = medians["1 step per call, bare"]
    for name, value in medians.items():
        rate = f"{chosen.batch_size / value:10.0f} items/s"
        print(f"{name:28} {1e3 * value:9.3f} ms/step  {rate}  {value / reference:6.3f} x bare")


if __name__ == "__main__":
    cli.run(main, alone=True)
