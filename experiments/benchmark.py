"""Benchmarks: time, items per second, FLOPs and model FLOPs utilisation, compile time, memory.

python -m experiments.benchmark [--what=train] [--config=NAME] [--rounds=5] [--steps=40]  # compiled step, training loop
python -m experiments.benchmark --what=sample [--config=NAME] [--rounds=5] [--samples=128]
python -m experiments.benchmark --what=likelihood --config=NAME [--rounds=5]
python -m experiments.benchmark --what=decode --config=NAME [--rounds=5]
python -m experiments.benchmark --what=contexts [--rounds=5]
python -m experiments.benchmark --what=compare --config=A [--config.x=y] [--other=B] [--drawn=250]    # A B A B
python -m experiments.benchmark --what=game --config=gan_digits    # against a hand-written step
python -m experiments.benchmark --what=layout --config=NAME --config.mesh=data:2,fsdp:4    # bytes and collectives
python -m experiments.benchmark --what=input --config=diffusion_mnist    # time that the loop waits for batches
python -m experiments.benchmark --what=pace --config=NAME --seconds=90    # number of steps for a time budget

Each round times all settings in turn on the same machine; medians over rounds and their ratios are reported. See
`benchmarks.costs` for the columns. --config.steps_per_call=20 compares calls of 20 steps with calls of one step.
--trace=DIR writes a profiler trace of one additional round.
"""

import dataclasses
from collections.abc import Callable

import jax
from absl import flags

from genjax.core.errors import UserError
from genjax.evaluation.flops import count_flops
from genjax.training import experiment
from genjax.training.experiment import Experiment
from genjax.training.loop import Run, prepare
from genjax.training.step import TrainState

from . import cli, dry_run
from .benchmarks import (
    comparing,
    decoding_speed,
    gan_speed,
    input_speed,
    layouts,
    likelihood_speed,
    pacing,
    sampling_speed,
)
from .benchmarks.costs import Costs, Row, compiled_costs, compute_dtype, heading, table
from .benchmarks.timing import alternate, ratio

WHAT = flags.DEFINE_enum(
    "what",
    "train",
    ["train", "sample", "decode", "likelihood", "contexts", "compare", "game", "layout", "input", "pace"],
    "Benchmark to run.",
)
CONFIG = flags.DEFINE_string(
    "config", "diffusion_digits", "Config file or shipped config's name, [:variant]."
)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of timings of each setting.", lower_bound=1)
WORKERS = flags.DEFINE_list("workers", ["0", "1", "2"], "For --what=input: numbers of data workers to time.")
STEPS = flags.DEFINE_integer("steps", 40, "Steps per timing.", lower_bound=2)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the experiment and exit.")


def bare(run: Run, state: TrainState, steps: int) -> tuple[TrainState, float]:
    """Times the compiled step alone on one batch that stays on the device.

    Args:
        run: the compiled run.
        state: train state; donated.
        steps: number of steps.

    Returns:
        (new state, seconds per step).
    """
    length = run.experiment.steps_per_call
    return comparing.time_steps(run, state, run.batch(0, length), max(1, steps // length))


def looped(run: Run, state: TrainState, steps: int) -> tuple[TrainState, float]:
    """Times the training loop, see `input_speed.looped`.

    Args:
        run: the compiled run.
        state: train state; donated.
        steps: number of steps.

    Returns:
        (new state, seconds per step).
    """
    state, found = input_speed.looped(run, state, steps)
    return state, found.step


def forms(chosen: Experiment) -> dict[str, tuple[Run, Costs]]:
    """Compiled runs with one step per call and, if larger, with `steps_per_call` steps."""
    found = {}
    for length in dict.fromkeys((1, chosen.steps_per_call)):
        run = prepare(dataclasses.replace(chosen, steps_per_call=length))
        if run.lower is None:
            raise UserError("--what=train needs compile=jit")
        state, raw = run.template(), jax.eval_shape(lambda run=run: run.raw(0))
        flops = length * count_flops(run.step, state, raw)
        lowered = run.lower(state, run.batch(0, length), length > 1)
        name = f"{length} step{'s' if length > 1 else ''} per call"
        found[name] = (run, compiled_costs(lowered, flops, run.mesh.size))
    return found


def train_report(chosen: Experiment, rounds: int) -> None:
    """Prints one line for the compiled step and one for the training loop, for each number of steps per call."""
    runs = forms(chosen)
    states = {name: run.make_state() for name, (run, _) in runs.items()}

    def timed(name: str, take: Callable[..., tuple[TrainState, float]]) -> Callable[[], float]:
        def once() -> float:
            states[name], seconds = take(runs[name][0], states[name], STEPS.value)
            return seconds

        return once

    kinds = {"bare": bare, "loop": looped}
    sides = {(name, kind): timed(name, take) for name in runs for kind, take in kinds.items()}
    seconds = alternate({f"{name}, {kind}": side for (name, kind), side in sides.items()}, rounds)
    mesh = next(iter(runs.values()))[0].mesh
    print(heading(chosen, mesh, next(iter(states.values())).params))
    rows = [
        Row(
            f"{name}, {kind}",
            seconds[f"{name}, {kind}"],
            chosen.batch_size,
            runs[name][1],
            runs[name][0].experiment.steps_per_call,
        )
        for name, kind in sides
    ]
    print("\n".join(table(rows, "step", "items", compute_dtype(chosen.objective), mesh.size)))
    for name in runs:
        print(f"{name}: loop / bare {ratio(seconds[f'{name}, loop'], seconds[f'{name}, bare'])}")


def compare(chosen: Experiment) -> None:
    """Compares two settings, see `comparing.report`."""
    names = (CONFIG.value, comparing.OTHER.value or CONFIG.value)
    comparing.report(chosen, experiment.load(names[1]), names, ROUNDS.value, STEPS.value)


def main(overrides: cli.Overrides) -> None:
    """Runs the benchmark that the flags select."""
    if DRY_RUN.value:
        names = {CONFIG.value: overrides} | ({comparing.OTHER.value: []} if comparing.OTHER.value else {})
        for name, changes in names.items():
            print(dry_run.draw_tree(experiment.load(name, changes), experiment.load(name)))
        return
    if WHAT.value == "contexts":
        decoding_speed.by_context(ROUNDS.value)
        return
    chosen = experiment.load(CONFIG.value, overrides)
    reports: dict[str, Callable[[], None]] = {
        "train": lambda: train_report(chosen, ROUNDS.value),
        "sample": lambda: sampling_speed.report(chosen, ROUNDS.value),
        "decode": lambda: decoding_speed.report(chosen, ROUNDS.value),
        "likelihood": lambda: likelihood_speed.report(chosen, ROUNDS.value),
        "compare": lambda: compare(chosen),
        "game": lambda: gan_speed.report(chosen, ROUNDS.value, STEPS.value),
        "layout": lambda: layouts.report(chosen),
        "pace": lambda: pacing.report(chosen),
        "input": lambda: input_speed.report(
            chosen, tuple(map(int, WORKERS.value)), ROUNDS.value, STEPS.value
        ),
    }
    reports[WHAT.value]()


if __name__ == "__main__":
    cli.run(main, alone=True)
