"""Alternating timings, A B A B, so that drift of the machine affects all functions alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

TRACE = flags.DEFINE_string(
    "trace", None, "Folder for a profiler trace of one additional round after the timed ones."
)


def timed(call: Callable[[], Any], count: int = 1) -> Callable[[], float]:
    """A function that makes one call, waits for its result, and returns the seconds for each of its `count` items."""

    def once() -> float:
        started = time.perf_counter()
        jax.block_until_ready(call())
        return (time.perf_counter() - started) / count

    return once


def ratio(first: Sequence[float], second: Sequence[float]) -> str:
    """The median and the extremes over rounds of the first's time relative to the second's."""
    ratios = np.asarray(first) / np.asarray(second)
    return f"{np.median(ratios):.3f} ({ratios.min():.3f} ... {ratios.max():.3f} over {len(ratios)} rounds)"


def alternate(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Calls each function once in every round.

    The first round compiles and is discarded. With `--trace` an additional round runs under the profiler at the end.

    Args:
        sides: functions by name; each returns the seconds to record.
        rounds: number of recorded rounds.

    Returns:
        The recorded seconds of each function, by round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            took = side()
            if number:
                seconds[name].append(took)
    folder = flags.FLAGS.is_parsed() and TRACE.value
    if folder:
        with jax.profiler.trace(folder):
            for name, side in sides.items():
                with jax.profiler.TraceAnnotation(name):
                    side()
        print(f"trace: {folder}, for TensorBoard's profile plugin or https://ui.perfetto.dev")
    return seconds
