"""The training loop: data -> step -> log -> checkpoint, from the restored step to the last.

Only checkpoints, samples and evaluations wait for the device: the next batch is prepared and transferred while a step
runs, and metrics are read one call after they were computed. All inputs of a step are functions of (seed, step), so
that a run that was killed resumes bit for bit.
"""

import collections
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from genjax.core.errors import UserError
from genjax.core.objective import Weights, num_classes
from genjax.core.sharding_rules import network_rules
from genjax.core.types import Batch, PyTree
from genjax.data import Batches
from genjax.data import resident as residents
from genjax.data.labels import check_classes
from genjax.data.loading import Rows, read_ahead
from genjax.parallel import multihost
from genjax.parallel.mesh import check_batch, make_mesh, shard_batch
from genjax.parallel.placement import state_sharding
from genjax.training.checkpoint import Checkpoints
from genjax.training.compile import compile_step
from genjax.training.experiment import CONFIG_MODULE, Experiment
from genjax.training.finite import check_state
from genjax.training.signals import StopSignal
from genjax.training.step import Step, TrainState, init_state, make_train_step


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """An experiment prepared for its devices.

    Attributes:
        experiment: as configured.
        mesh: the devices.
        batches: step -> this process's rows.
        step: the uncompiled train step.
        shardings: of each array of the state.
        compiled: (state, batch, stacked) -> (state, metrics); each form is compiled on first use.
        resident: whether the examples are on the devices, and `batch` returns their indices.
        lower: (state, batch, stacked) -> the lowered program of `compiled`, from arrays or shapes; None for "pmap".
    """

    experiment: Experiment
    mesh: Mesh
    batches: Batches
    step: Step
    shardings: PyTree
    compiled: Callable[[TrainState, Batch, bool], Any]
    resident: bool = False
    lower: Callable[[PyTree, Batch, bool], Any] | None = None

    def make_state(self) -> TrainState:
        """Initialises the state of step 0 with its shardings."""
        if self.experiment.initial is not None:
            # Outside of a program, which would hold the weights as constants.
            state = _initialiser(self.experiment, self.experiment.initial)(self.raw(0))
            return jax.device_put(state, self.shardings)
        # An initialiser runs once and consists of random numbers, which XLA:CPU is slow to optimise.
        quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
        make = _initialiser(self.experiment)
        return jax.jit(make, out_shardings=self.shardings, compiler_options=quick)(self.raw(0))

    def template(self) -> PyTree:
        """Shapes, dtypes and shardings of the state, for restoring."""
        shapes = jax.eval_shape(_initialiser(self.experiment), self.raw(0))
        place = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        return jax.tree.map(place, shapes, self.shardings)

    def raw(self, step: int) -> Batch:
        """The global batch of raw examples of one step, on the devices."""
        return shard_batch(self.batches(step), self.mesh)

    def rows(self, step: int) -> dict[str, np.ndarray]:
        """This process's rows of one step's batch: examples, or their indices if the data set is resident."""
        if self.resident:
            return {residents.INDEX: self.batches.indices(step).astype(np.int32)}
        return self.batches(step)

    def batch(self, first: int, length: int, rows: Rows | None = None) -> Batch:
        """The batch argument of `compiled`, as global arrays on the devices.

        Args:
            first: the first step.
            length: number of steps; above 1 their batches are stacked on a new first axis.
            rows: step -> this process's rows; None for `self.rows`.

        Returns:
            Arrays [b, ...], or [length, b, ...] for `length` > 1.
        """
        rows = rows or self.rows
        if length == 1:
            return shard_batch(rows(first), self.mesh)
        parts = [rows(first + index) for index in range(length)]
        stack = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        return shard_batch(stack, self.mesh, stacked=True)

    @contextlib.contextmanager
    def open_rows(self, start: int) -> Iterator[Rows]:
        """Opens the stream of this process's rows from step `start` on, read ahead as `Input` configures."""
        if self.resident:
            yield self.rows
            return
        steps, options = self.experiment.steps, self.experiment.input
        with read_ahead(self.batches, start, steps, options, CONFIG_MODULE) as rows:
            yield rows


def _initialiser(experiment: Experiment, initial: Weights | None = None) -> Callable[[Batch], TrainState]:
    return functools.partial(
        init_state,
        experiment.objective,
        experiment.optimizers(),
        experiment.data.forward,
        experiment.seed,
        initial=initial,
    )


def prepare(experiment: Experiment, mesh: Mesh | None = None) -> Run:
    """Builds mesh, data, train step and shardings.

    Args:
        experiment: to run.
        mesh: None for all devices, arranged by `experiment.mesh`.

    Returns:
        The run, not yet compiled.

    Raises:
        UserError: the experiment does not fit its data or its devices.
    """
    if experiment.compile == "pmap" and jax.process_count() > 1:
        raise UserError("config.compile=pmap supports one process only: use jit")
    mesh = make_mesh(experiment.mesh) if mesh is None else mesh
    multihost.connect(mesh)
    check_batch(experiment.batch_size, mesh, experiment.accumulate)
    examples = experiment.data.load("train")
    check_classes(num_classes(experiment.objective), experiment.data.classes)
    block = multihost.block(mesh, experiment.batch_size)
    batches = Batches(examples, experiment.batch_size, experiment.seed, *block)
    step = make_train_step(
        experiment.objective,
        experiment.optimizers(),
        experiment.data.forward,
        seed=experiment.seed,
        ema=experiment.ema,
        accumulate=experiment.accumulate,
        axis="data" if experiment.compile == "pmap" else None,
    )
    shapes = jax.eval_shape(_initialiser(experiment), shard_batch(batches(0), mesh))
    layout = network_rules(experiment.objective)
    shardings = state_sharding(shapes, mesh, experiment.rules, layout, experiment.zero1)

    resident = residents.choose(examples, mesh, experiment.input) if experiment.compile == "jit" else None
    gather = residents.gather(resident) if resident else None
    placed = functools.cache(lambda: (residents.place(resident, mesh),) if resident else ())

    @functools.cache
    def compile_form(stacked: bool) -> Any:
        return compile_step(step, mesh, shardings, kind=experiment.compile, stacked=stacked, gather=gather)

    run_form = lambda state, batch, stacked: compile_form(stacked)(state, batch, *placed())
    lower = lambda state, batch, stacked: compile_form(stacked).lower(state, batch, *placed())
    jitted = experiment.compile == "jit"
    return Run(
        experiment, mesh, batches, step, shardings, run_form, resident is not None, lower if jitted else None
    )


def plan(experiment: Experiment, start: int) -> Iterator[tuple[int, int]]:
    """Splits the steps from `start` to the end into calls: (first step, number of steps).

    Between two checkpoints, samples or evaluations come as many calls of `steps_per_call` as fit, then single steps.
    Planning anew from the end of any call gives the rest of the plan, so that a resumed run makes the same calls and
    computes the same bits.
    """
    every = (experiment.checkpoint_every, experiment.sample_every, experiment.monitor.every)
    periods = [period for period in every if period]
    whole = experiment.steps_per_call
    while start < experiment.steps:
        before = max(start // period * period for period in periods)
        border = min([experiment.steps, *((start // period + 1) * period for period in periods)])
        length = whole if (start - before) % whole == 0 and start + whole <= border else 1
        yield start, length
        start += length


def prefetch(run: Run, start: int) -> Iterator[tuple[int, int, Batch]]:
    """Yields (first step, number of steps, batch on the devices); a thread prepares batches ahead, see `Input`."""
    calls = plan(run.experiment, start)
    waiting: collections.deque[tuple[int, int, Future[Batch]]] = collections.deque()
    # The stream is closed before the thread, which may be blocked on it, is joined.
    with ThreadPoolExecutor(1, thread_name_prefix="data") as thread, run.open_rows(start) as rows:
        try:
            while True:
                while len(waiting) < run.experiment.input.ahead and (call := next(calls, None)) is not None:
                    waiting.append((*call, thread.submit(run.batch, *call, rows)))
                if not waiting:
                    return
                first, length, batch = waiting.popleft()
                yield first, length, batch.result()
        finally:
            for _, _, batch in waiting:
                batch.cancel()


def check_finite(step: int, metrics: Mapping[str, float], last: int | None) -> None:
    """Checks that all losses are finite.

    Args:
        step: for the message.
        metrics: by name; those whose last part is "loss" are checked.
        last: step of the last checkpoint, for the message; None if there is none.

    Raises:
        UserError: a loss is NaN or infinite.
    """
    for name, value in metrics.items():
        if name.endswith("/loss") and not np.isfinite(value):
            kept = f"checkpoint {last} is kept" if last is not None else "there is no checkpoint"
            raise UserError(
                f"{name} is {value} at step {step}: training has diverged; {kept}. A smaller learning rate, "
                "clipping (config.optimizer.clip=1) or float32 may help"
            )


def average(parts: list[Any]) -> dict[str, float]:
    """Means of metrics over the steps of several calls in which their player was updated.

    Args:
        parts: metrics [] or [steps] of each call.

    Returns:
        Means by name, without the metrics of players that were never updated.
    """
    fetched = jax.device_get(parts)
    steps = {name: np.concatenate([np.atleast_1d(part[name]) for part in fetched]) for name in fetched[0]}
    means = {}
    for name, values in steps.items():
        updated = steps.get(f"{name.partition('/')[0]}/updated", np.ones_like(values)).astype(np.float64)
        if not name.endswith("/updated") and updated.any():
            means[name] = float(np.average(values.astype(np.float64), weights=updated))
    return means


def run_steps(
    run: Run,
    state: TrainState,
    checkpoints: Checkpoints | None,
    stop: StopSignal,
    log: Callable[[int, dict[str, float]], None],
    save_samples: Callable[[int, TrainState], None],
    evaluate: Callable[[int, TrainState], bool] = lambda step, state: False,
    batches: Callable[[Run, int], Iterator[tuple[int, int, Batch]]] = prefetch,
) -> TrainState:
    """Trains from the state's step to the run's last, with logs and checkpoints.

    Args:
        run: the experiment on its devices.
        state: its buffers are donated.
        checkpoints: where to save; None for nowhere.
        stop: requests an early end, after a checkpoint.
        log: called with (step, means of the metrics since the last call).
        save_samples: called with (step, state) every `sample_every` steps.
        evaluate: called with (step, state) every `monitor.every` steps and at the end; returns whether to stop.
        batches: (run, step) -> iterator of (first step, number of steps, batch) of each call from that step on.

    Returns:
        The final state, which is also saved if there are checkpoints.

    Raises:
        UserError: a loss or the state to save is not finite, or a checkpoint cannot be written.
    """
    experiment, done = run.experiment, int(state.step)
    pending: list[Any] = []
    compiled: set[bool] = set()
    due: tuple[int, list[Any]] | None = None
    latest = checkpoints.latest if checkpoints is not None else lambda: None

    def write(now: tuple[int, list[Any]] | None) -> None:
        if now is not None:
            step, parts = now
            means = average(parts)
            check_finite(step, means, latest())
            log(step, means)

    for first, length, batch in batches(run, done):
        stop.expect((length > 1) in compiled)
        state, metrics = run.compiled(state, batch, length > 1)
        compiled.add(length > 1)
        write(due)
        due = None
        if pending:
            jax.block_until_ready(pending[-1])
        pending.append(metrics)
        done = first + length
        last = done == experiment.steps
        stopping = stop.reached(done)
        if experiment.monitor.every and (last or done % experiment.monitor.every == 0):
            stop.expect(False)
            stopping = evaluate(done, state) or stopping
        if done // experiment.log_every > first // experiment.log_every or last:
            due, pending = (done, pending), []
        if stopping or done % experiment.checkpoint_every == 0 or last:
            stop.expect(False)
            write(due)
            check_finite(done, average([metrics]), latest())
            due = None
            if checkpoints is not None:
                check_state(state, latest())
                checkpoints.save(done, state)
        if experiment.sample_every and done % experiment.sample_every == 0 and done < experiment.steps:
            stop.expect(False)
            save_samples(done, state)
        if stopping:
            break
        stop.expect(not last)
    if checkpoints is not None:
        checkpoints.wait()
    return state
