"""How much a training step waits for its batches: the loop with each kind of input beside the bare step.

stall = (loop - bare) / bare, where `bare` is the compiled step on one batch that lies on the devices, again and again.
The loop's first quarter is not timed: by then workers have started and what was made ahead has been used up.
"""

import contextlib
import dataclasses
import io
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from experiments.comparing import walk
from genjax.checkpoint import Checkpoints
from genjax.data.loading import Input
from genjax.data.resident import Gatherable
from genjax.experiment import Experiment
from genjax.loop import Run, StopSignal, prepare, run_steps
from genjax.step import TrainState
from genjax.writers import Writer

QUARTERS = 4


def settings(chosen: Experiment, workers: tuple[int, ...]) -> dict[str, Run]:
    """The kinds of input that the data allow, by name: from memory, from disk by workers, on the devices."""
    run = prepare(dataclasses.replace(chosen, input=Input(resident=False)))
    found, source = {"memory": run}, chosen.data.source
    if hasattr(source, "memory_mib"):
        examples = dataclasses.replace(source, memory_mib=0).load("train")  # type: ignore[type-var]
        batches = dataclasses.replace(run.batches, examples=examples)
        for count in workers:
            how = dataclasses.replace(chosen, input=Input(workers=count, resident=False))
            found[f"disk, workers={count}"] = dataclasses.replace(run, experiment=how, batches=batches)
    if isinstance(run.batches.examples, Gatherable):
        found["resident"] = prepare(dataclasses.replace(chosen, input=Input(resident=True)))
    return found


def looped(run: Run, state: TrainState, steps: int) -> tuple[TrainState, float]:
    """Seconds per step of the training loop, after its first quarter."""
    length, first = run.experiment.steps_per_call, int(state.step)
    quarter = max(1, steps // QUARTERS // length) * length
    changed = dataclasses.replace(
        run.experiment, steps=first + QUARTERS * quarter, log_every=quarter, checkpoint_every=10**9
    )
    changed = dataclasses.replace(
        changed, sample_every=0, monitor=dataclasses.replace(changed.monitor, every=0)
    )
    stamps: list[float] = []
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stop = stack.enter_context(StopSignal())
        checkpoints = stack.enter_context(Checkpoints(Path(folder) / "checkpoints"))
        writer = stack.enter_context(Writer(folder, steps, stream=io.StringIO()))

        def log(step: int, metrics: dict[str, float]) -> None:
            stamps.append(time.perf_counter())
            writer.scalars(step - first, metrics)

        walked = dataclasses.replace(run, experiment=changed)
        state = run_steps(walked, state, checkpoints, stop, log, lambda step, state: None)
    return state, (stamps[-1] - stamps[0]) / ((len(stamps) - 1) * quarter)


def alone(run: Run, steps: int) -> float:
    """Seconds per batch of the input by itself, moved to the devices, with nothing to wait for it."""
    batch = None
    with run.reading(0) as rows:
        for step in range(2 * steps):
            if step == steps:
                jax.block_until_ready(batch)
                began = time.perf_counter()
            batch = run.batch(step, 1, rows)
        jax.block_until_ready(batch)
        return (time.perf_counter() - began) / steps


def report(chosen: Experiment, workers: tuple[int, ...], rounds: int, steps: int) -> None:
    """Prints medians over rounds of each kind of input; a first, short round compiles and does not count."""
    runs = settings(chosen, workers)
    length = chosen.steps_per_call
    bare_run = runs["memory"]
    batch, state = bare_run.batch(0, length), bare_run.make_state()
    seconds: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        now = steps if number else QUARTERS * length
        state, took = walk(bare_run, state, batch, max(1, now // length))
        timed = {"bare": took}
        for name, run in runs.items():
            state, timed[name] = looped(run, state, now)
        if number:
            for name, value in timed.items():
                seconds.setdefault(name, []).append(value)
    print(f"{'bare step':20} {1e3 * np.median(seconds['bare']):9.3f} ms/step")
    for name, run in runs.items():
        stalls = 100 * (np.asarray(seconds[name]) / np.asarray(seconds["bare"]) - 1)
        rate = chosen.batch_size / alone(run, max(20, steps))
        print(
            f"{name:20} {1e3 * np.median(seconds[name]):9.3f} ms/step  stall {np.median(stalls):6.2f} % "
            f"({stalls.min():.2f} ... {stalls.max():.2f} over {rounds} rounds)  alone {rate:10.0f} examples/s"
        )
