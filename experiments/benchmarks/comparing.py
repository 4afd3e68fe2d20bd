"""Compares two settings: alternating timings (A B A B) of a training step and of sampling, and their ratios."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from genjax.core.types import Batch
from genjax.evaluation.evaluate import count_params
from genjax.evaluation.sampling import compile_sampler
from genjax.parallel.mesh import batch_shards
from genjax.training.experiment import Experiment
from genjax.training.loop import Run, prepare
from genjax.training.step import TrainState

from .timing import alternate, ratio, timed

OTHER = flags.DEFINE_string(
    "other", None, "Config to compare --config with; default: the same config without overrides."
)
DRAWN = flags.DEFINE_integer("drawn", 250, "Samples per call of the sampler; 0 for none.", lower_bound=0)


def time_calls(step: Callable[[Any, int], tuple[Any, Any]], state: Any, calls: int) -> tuple[Any, float]:
    """Times calls of a compiled step, with at most two calls in flight.

    With many calls in flight, collectives between virtual CPU devices may deadlock.

    Args:
        step: (state, number of the call) -> (state, metrics).
        state: the first state; donated if the step does so.
        calls: number of calls.

    Returns:
        (new state, seconds per call).
    """
    before, started = None, time.perf_counter()
    for number in range(calls):
        state, metrics = step(state, number)
        jax.block_until_ready(before)
        before = metrics
    jax.block_until_ready((state, before))
    return state, (time.perf_counter() - started) / calls


def time_steps(run: Run, state: TrainState, batch: Batch, calls: int) -> tuple[TrainState, float]:
    """Times calls of the compiled step on one batch, see `time_calls`.

    Args:
        run: the compiled run.
        state: train state; donated.
        batch: batch of `steps_per_call` steps on the devices.
        calls: number of calls.

    Returns:
        (new state, seconds per step).
    """
    length = run.experiment.steps_per_call
    state, seconds = time_calls(lambda state, _: run.compiled(state, batch, length > 1), state, calls)
    return state, seconds / length


class Setting:
    """One of the two settings, compiled.

    Attributes:
        run: run of the experiment.
        parameters: number of parameters of all players.
    """

    def __init__(self, experiment: Experiment, steps: int, drawn: int):
        """Initialises the state; one timing runs `steps` training steps or draws `drawn` samples."""
        self.run: Run = prepare(experiment)
        self._state = self.run.make_state()
        self.parameters = count_params(self._state.params)
        length = experiment.steps_per_call
        self._batch, self._calls = self.run.batch(0, length), max(1, steps // length)
        shards, classes = batch_shards(self.run.mesh), experiment.data.classes
        self.drawn = -(-drawn // shards) * shards
        self._cond = {"label": jnp.arange(self.drawn, dtype=jnp.int32) % classes} if classes else None
        self._draw: Callable[..., Any] = compile_sampler(
            experiment.objective, self.run.mesh, max(self.drawn, 1)
        )

    def step(self) -> float:
        """Seconds per training step."""
        self._state, seconds = time_steps(self.run, self._state, self._batch, self._calls)
        return seconds

    def sample(self) -> float:
        """Seconds per sample."""
        draw = lambda: self._draw(self._state.ema, self._state.extra, jax.random.key(0), self._cond)
        return timed(draw, self.drawn)()


def report(first: Experiment, second: Experiment, names: tuple[str, str], rounds: int, steps: int) -> None:
    """Prints medians over rounds and the ratios of A's time to B's; the first round compiles and is discarded.

    Args:
        first: setting A.
        second: setting B.
        names: config names of A and B.
        rounds: number of timings.
        steps: training steps per timing.
    """
    settings = [Setting(experiment, steps, DRAWN.value) for experiment in (first, second)]
    whats = ("step", "sample") if DRAWN.value else ("step",)
    seconds = alternate(
        {
            f"{what} {'AB'[index]}": getattr(setting, what)
            for what in whats
            for index, setting in enumerate(settings)
        },
        rounds,
    )
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    for index, (name, experiment) in enumerate(zip(names, (first, second), strict=True)):
        side = "AB"[index]
        drawn = f"{1e3 * median[f'sample {side}']:9.3f} ms/sample" if DRAWN.value else ""
        size = f"batch {experiment.batch_size}, {settings[index].parameters:,} parameters"
        print(f"{side} {name:36} {1e3 * median[f'step {side}']:9.3f} ms/step {drawn}  ({size})")
    for what in whats:
        print(f"A / B, time per {what}: {ratio(seconds[f'{what} A'], seconds[f'{what} B'])}")
