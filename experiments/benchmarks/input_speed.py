"""Time that training waits for its batches: the loop with each kind of input against the compiled step alone.

    waited = time blocked on the next batch / time of the loop
    slower = (loop - bare) / bare

`bare` is the compiled step repeated on one batch on the devices. `waited` is measured where the loop takes batches; the
devices may still be busy meanwhile, so it is an upper bound on the gain of a faster input. `slower` is the whole
overhead of the loop; on a CPU, the threads and workers that produce batches compete with the step. The first quarter of
the loop is not timed: it starts the workers and consumes the prefetched batches.
"""

import contextlib
import dataclasses
import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from genjax.core.types import Batch
from genjax.data.loading import Input
from genjax.data.resident import Gatherable
from genjax.data.source import FromDisk
from genjax.training.checkpoint import Checkpoints
from genjax.training.experiment import Experiment
from genjax.training.loop import Run, StopSignal, prefetch, prepare, run_steps
from genjax.training.step import TrainState
from genjax.training.writers import Writer

from .comparing import time_steps

QUARTERS = 4


def settings(chosen: Experiment, workers: tuple[int, ...]) -> dict[str, Run]:
    """Runs by kind of input that the data support: from memory, from disk with workers, resident on the devices."""
    run = prepare(dataclasses.replace(chosen, input=Input(resident=False)))
    found, source = {"memory": run}, chosen.data.source
    if isinstance(source, FromDisk):
        examples = dataclasses.replace(source, memory_mib=0).load("train")  # type: ignore[type-var]
        batches = dataclasses.replace(run.batches, examples=examples)
        for count in workers:
            how = dataclasses.replace(chosen, input=Input(workers=count, resident=False))
            found[f"disk, workers={count}"] = dataclasses.replace(run, experiment=how, batches=batches)
    if isinstance(run.batches.examples, Gatherable):
        found["resident"] = prepare(dataclasses.replace(chosen, input=Input(resident=True)))
    return found


@dataclasses.dataclass(frozen=True)
class Looped:
    """Timing of the training loop.

    Attributes:
        step: seconds per step.
        waited: seconds per step spent waiting for a batch.
    """

    step: float
    waited: float


def looped(run: Run, state: TrainState, steps: int) -> tuple[TrainState, Looped]:
    """Times the last three quarters of the training loop with batches, metrics and log, no checkpoints or samples.

    Args:
        run: the compiled run.
        state: train state; donated.
        steps: number of steps, rounded down to four equal parts of whole calls.

    Returns:
        (new state, timing).
    """
    length, first = run.experiment.steps_per_call, int(state.step)
    quarter = max(1, steps // QUARTERS // length) * length
    monitor = dataclasses.replace(run.experiment.monitor, every=0)
    changed = dataclasses.replace(
        run.experiment,
        steps=first + QUARTERS * quarter,
        log_every=quarter,
        checkpoint_every=10**9,
        sample_every=0,
        monitor=monitor,
    )
    waited, stamps = 0.0, list[tuple[float, float]]()

    def timed(run: Run, start: int) -> Iterator[tuple[int, int, Batch]]:
        nonlocal waited
        calls = prefetch(run, start)
        while True:
            started = time.perf_counter()
            call = next(calls, None)
            waited += time.perf_counter() - started
            if call is None:
                return
            yield call

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stop = stack.enter_context(StopSignal())
        checkpoints = stack.enter_context(Checkpoints(Path(folder) / "checkpoints"))
        writer = stack.enter_context(Writer(folder, steps, stream=io.StringIO()))

        def log(step: int, metrics: dict[str, float]) -> None:
            stamps.append((time.perf_counter(), waited))
            writer.scalars(step - first, metrics)

        timed_run = dataclasses.replace(run, experiment=changed)
        state = run_steps(timed_run, state, checkpoints, stop, log, lambda step, state: None, batches=timed)
    counted = (len(stamps) - 1) * quarter
    step, wait = ((after - before) / counted for before, after in zip(stamps[0], stamps[-1], strict=True))
    return state, Looped(step, wait)


def alone(run: Run, steps: int) -> float:
    """Seconds per batch of the input alone, transferred to the devices, without training steps."""
    batch = None
    with run.open_rows(0) as rows:
        for step in range(2 * steps):
            if step == steps:
                jax.block_until_ready(batch)
                started = time.perf_counter()
            batch = run.batch(step, 1, rows)
        jax.block_until_ready(batch)
        return (time.perf_counter() - started) / steps


def report(chosen: Experiment, workers: tuple[int, ...], rounds: int, steps: int) -> None:
    """Prints medians and extremes over rounds for each kind of input; a short first round is discarded.

    Args:
        chosen: the experiment.
        workers: numbers of data workers to time.
        rounds: number of timings.
        steps: training steps per timing.
    """
    runs = settings(chosen, workers)
    length = chosen.steps_per_call
    bare_run = runs["memory"]
    batch, state = bare_run.batch(0, length), bare_run.make_state()
    bare: list[float] = []
    loops: dict[str, list[Looped]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        now = steps if number else QUARTERS * length
        state, took = time_steps(bare_run, state, batch, max(1, now // length))
        timed = {}
        for name, run in runs.items():
            state, timed[name] = looped(run, state, now)
        if number:
            bare.append(took)
            for name, found in timed.items():
                loops[name].append(found)
    print(f"{'bare step':20} {1e3 * np.median(bare):9.3f} ms/step")
    for name, run in runs.items():
        steps_took = np.asarray([found.step for found in loops[name]])
        waited = 100 * np.asarray([found.waited for found in loops[name]]) / steps_took
        rate = chosen.batch_size / alone(run, max(20, steps))
        print(
            f"{name:20} {1e3 * np.median(steps_took):9.3f} ms/step  waited {median_and_range(waited)} %  "
            f"slower {median_and_range(100 * (steps_took / np.asarray(bare) - 1))} %  alone {rate:10.0f} examples/s"
        )


def median_and_range(values: np.ndarray) -> str:
    """Formats the median and the extremes over rounds."""
    return f"{np.median(values):6.2f} ({values.min():.2f} ... {values.max():.2f})"
