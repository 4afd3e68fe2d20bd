"""Time of a training step on this machine, and the number of steps for a time budget."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from genjax.core.files import write_atomic, writing
from genjax.evaluation.hardware import busy, hardware
from genjax.training.experiment import Experiment
from genjax.training.loop import prepare

SECONDS = flags.DEFINE_float("seconds", 60.0, "For --what=pace: training seconds.", lower_bound=0.001)
OUT = flags.DEFINE_string("out", None, "For --what=pace: file to write the plan to.")
ROUNDS, LEAST = 5, 0.4  # number of timings, and minimum seconds of one timing


def pace(experiment: Experiment, rounds: int = ROUNDS, least: float = LEAST) -> list[float]:
    """Times a training step including its batch, after compilation, by the clock of `hardware.busy`.

    Args:
        experiment: the experiment.
        rounds: number of timings.
        least: minimum seconds of one timing; with several players it also has at least 20 steps.

    Returns:
        Seconds per step of each timing.
    """
    run = prepare(experiment)
    state, length, step, seconds = run.make_state(), experiment.steps_per_call, 0, []
    several = len(experiment.objective.players()) > 1
    for number in range(rounds + 1):
        started, calls, before = busy(), 0, None
        while True:
            state, metrics = run.compiled(state, run.batch(step, length), length > 1)
            jax.block_until_ready(before)
            before, step, calls = metrics, step + length, calls + 1
            enough = busy() - started >= least and calls * length >= (20 if several else 1)
            if number == 0 or enough:
                break
        jax.block_until_ready((state, before))
        if number:  # the first call compiles
            seconds.append((busy() - started) / (calls * length))
    return seconds


def plan(experiment: Experiment, seconds: float) -> dict[str, Any]:
    """Number of steps for a time budget by the median step time, rounded to whole calls, at least one."""
    timings = pace(dataclasses.replace(experiment, checkpoint_every=10**9))
    step, length = float(np.median(timings)), experiment.steps_per_call
    steps = max(1, round(seconds / step / length)) * length
    extremes = [float(min(timings)), float(max(timings))]
    return {
        "seconds": seconds,
        "steps": steps,
        "step_seconds": step,
        "from_to": extremes,
        "device": hardware(),
    }


def report(chosen: Experiment) -> None:
    """Prints the plan, and writes it to --out if given.

    Raises:
        UserError: the file cannot be written.
    """
    made = plan(chosen, SECONDS.value)
    low, high = made["from_to"]
    print(
        f"{made['steps']} steps in {SECONDS.value:g} s: {1e3 * made['step_seconds']:.3f} ms/step "
        f"({1e3 * low:.3f} ... {1e3 * high:.3f}) on {made['device']}"
    )
    if OUT.value:
        path = Path(OUT.value)
        with writing(path):
            write_atomic(path, json.dumps(made, indent=1) + "\n")
