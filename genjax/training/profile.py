"""Profiler traces of some steps of a run, for TensorBoard's profile plugin, XProf or https://ui.perfetto.dev."""

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

Window = tuple[int, int]  # first step, and the step after the last


def parse_window(text: str) -> Window:
    """Parses "FIRST:LAST": "100:110" means the steps 100, ..., 109.

    Raises:
        UserError: the text does not have this form, or LAST is not above FIRST.
    """
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UserError(f"profile={text} is not of the form FIRST:LAST, like 100:110")
    return int(match[1]), int(match[2])


@contextlib.contextmanager
def traced(run: Run, steps: Window | None, folder: Path) -> Iterator[Run]:
    """A run whose compiled calls are traced, from the one with the first step to the one with the last.

    Args:
        run: the run.
        steps: the steps to trace; None yields the run unchanged.
        folder: where the trace is written.

    Yields:
        The run to train with. It waits for the device at the end of the trace only.
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
