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

from .timing import alternate

OTHER = flags.DEFINE_string(
    "other", None, "Config to compare --config with; default: the same config without overrides."
)
DRAWN = flags.DEFINE_integer("drawn", 250, "Samples per call of the sampler; 0 for none.", lower_bound=0)


def time_steps(run: Run, state: TrainState, batch: Batch, calls: int) -> tuple[TrainState, float]:
    """Times calls of the compiled step on one batch, with at most two calls in flight.

    With many calls in flight, collectives between virtual CPU devices may deadlock.

    Args:
        run: the compiled run.
        state: train state; donated.
        batch: batch of `steps_per_call` steps on the devices.
        calls: number of calls.

    Returns:
        (new state, seconds per step).
    """
    length, before = run.experiment.steps_per_call, None
    started = time.perf_counter()
    for _ in range(calls):
        state, metrics = run.compiled(state, batch, length > 1)
        jax.block_until_ready(before)
        before = metrics
    jax.block_until_ready((state, before))
    return state, (time.perf_counter() - started) / (calls * length)


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
        started = time.perf_counter()
        drawn = self._draw(self._state.ema, self._state.extra, jax.random.key(0), self._cond)
        jax.block_until_ready(drawn)
        return (time.perf_counter() - started) / self.drawn


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
        ratios = np.asarray(seconds[f"{what} A"]) / np.asarray(seconds[f"{what} B"])
        extremes = f"{ratios.min():.3f} ... {ratios.max():.3f} over {rounds} rounds"
        print(f"A / B, time per {what}: {np.median(ratios):.3f} ({extremes})")
