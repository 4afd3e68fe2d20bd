"""A profiler's trace of some steps of a run, for TensorBoard's profile plugin, XProf or https://ui.perfetto.dev."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from genjax.core.errors import UserError
from genjax.core.types import Batch
from genjax.training.loop import Run
from genjax.training.step import TrainState

Window = tuple[int, int]  # first step and the one after the last


def window(text: str) -> Window:
    """Reads "100:110": the steps from 100 on, up to but not 110.

    Raises:
        UserError: it is none.
    """
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UserError(f"--profile={text} is not of the form FIRST:LAST, like 100:110")
    return int(match[1]), int(match[2])


@contextlib.contextmanager
def traced(run: Run, steps: Window | None, folder: Path) -> Iterator[Run]:
    """A run that traces its calls from the one with the first step on to the one before the last.

    Args:
        run: the run.
        steps: which to trace; None for none, which leaves the run as it is.
        folder: for the trace.

    Yields:
        The run to walk with. It waits for the device where the trace ends, and nowhere else.
    """
    if steps is None:
        yield run
        return
    first, last = steps
    done: int | None = None
    tracing = False

    def stop() -> None:
        nonlocal tracing
        tracing = False
        jax.profiler.stop_trace()

    def compiled(state: TrainState, batch: Batch, stacked: bool) -> Any:
        nonlocal done, tracing
        done = int(state.step) if done is None else done
        length = run.experiment.steps_per_call if stacked else 1
        if not tracing and done <= first < done + length:
            jax.profiler.start_trace(str(folder))
            tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=done):
            state, metrics = run.compiled(state, batch, stacked)
        done += length
        if tracing and done >= last:
            jax.block_until_ready(metrics)
            stop()
        return state, metrics

    try:
        yield dataclasses.replace(run, compiled=compiled)
    finally:
        if tracing:
            stop()
