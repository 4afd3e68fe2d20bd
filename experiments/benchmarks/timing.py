"""Sides that are timed in turn, A B A B, on the same machine in the same state."""

from collections.abc import Callable, Mapping

import jax
from absl import flags

TRACE = flags.DEFINE_string(
    "trace", None, "Folder for a profiler trace of one more round, after those that are timed."
)


def alternate(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Calls each side once in every round.

    A first round compiles and does not count. With `--trace` there is one more at the end, under the profiler.

    Args:
        sides: by name, each returns the seconds that something took.
        rounds: that count.

    Returns:
        What each side returned, by round.
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
