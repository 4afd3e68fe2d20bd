"""Batches made ahead by worker processes, for examples that have to be read and decoded.

`Batches` stays the definition of what is seen. Element i of the data set that Grain walks is this process's part of
batch start + i, worker k of n makes elements k, k + n, ..., and they come out in order: neither the number of workers
nor a restart can change a batch. A worker is a new Python process (spawned, never forked from one that runs JAX's
threads), which computes nothing with JAX. It ignores SIGINT and SIGTERM, since the run that owns it saves and then ends
it, and ends when that run is no longer there, however it went.
"""

import contextlib
import dataclasses
import gc
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import jax
import numpy as np
from absl import flags, logging

from genjax.core.errors import UserError
from genjax.data.batches import Batches
from genjax.data.examples import is_in_memory

Rows = Callable[[int], dict[str, np.ndarray]]  # step -> this process's rows of the global batch
STOPS = (signal.SIGINT, signal.SIGTERM)


@dataclasses.dataclass(frozen=True)
class Input:
    """How batches get to the devices; what is in them does not depend on it.

    Attributes:
        workers: processes that read and decode examples which are not in memory; 0: the loop's data thread does.
        ahead: calls of the step whose batches are made, and moved to the devices, before they are needed; each worker
            holds as many batches ready.
        resident: whether the data set lives on the devices, so that a batch is a list of indices; None: if it is
            no larger than `resident_mib`.
        resident_mib: MiB that each device may give for that; on CPU, all devices of a process together.
    """

    workers: int = 0
    ahead: int = 2
    resident: bool | None = None
    resident_mib: int = 256


class Steps:
    """What Grain walks: element i is (step, rows of the batch) for step = start + i."""

    def __init__(self, batches: Batches, start: int, stop: int):
        # A copy, without the permutations that the original has written down.
        self.batches, self.start, self.stop = dataclasses.replace(batches), start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> tuple[int, dict[str, np.ndarray]]:
        """Raises UserError, whatever went wrong: other errors may not survive the way to the parent."""
        step = self.start + int(index)
        try:
            return step, self.batches(step)
        except UserError as error:
            raise UserError(str(error)) from None
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"a data worker cannot make batch {step}: {what}") from None


@contextlib.contextmanager
def read_ahead(batches: Batches, start: int, stop: int, how: Input, by_value: str = "") -> Iterator[Rows]:
    """Opens the stream of batches start ... stop - 1, to be asked for in this order.

    Args:
        batches: what each step sees.
        start: first step.
        stop: end of the steps.
        how: `workers` and `ahead`. No workers, or examples in memory: the stream is `batches` itself.
        by_value: prefix of the names of modules that workers cannot import; their classes are sent along.

    Yields:
        step -> rows. A worker's error is raised by the call that asks for its batch.

    Raises:
        UserError: by the stream: a worker could not make a batch, or was killed.
    """
    if how.workers == 0 or stop <= start or is_in_memory(batches.examples):
        yield batches
        return
    for name, module in list(sys.modules.items()):
        if by_value and name.startswith(by_value):
            cloudpickle.register_pickle_by_value(module)
    stream = _walk(Steps(batches, start, stop), how)
    failed: Exception | None = None

    def rows(step: int) -> dict[str, np.ndarray]:
        nonlocal failed
        if failed is not None:  # Grain's threads have ended, and the next batch would be waited for in vain
            raise failed
        try:
            return taken(step)
        except Exception as error:
            failed = error
            raise

    def taken(step: int) -> dict[str, np.ndarray]:
        with _spared():  # the first call starts the workers
            try:
                made, found = next(stream)
            except RuntimeError as error:  # Grain's, when a process is no longer there
                code = re.search(r"exit code (-?\d+)", str(error))
                how_it_ended = f"exit code {code[1]}" if code else " ".join(str(error).split())
                raise UserError(
                    f"a data worker ended before its batch was made ({how_it_ended}; -9: killed, perhaps for want of "
                    "memory); the same command goes on from the last checkpoint"
                ) from None
        if made != step:
            raise ValueError(f"batch {made} came where {step} was asked for")
        # Copies: what lies in memory shared with a worker must not outlive this stream, as a device's array might.
        return {name: np.array(array, subok=False) for name, array in found.items()}

    try:
        yield rows
    finally:
        stream.close()
        del stream, rows, taken
        gc.collect()  # Grain's iterators hold each other, and complain when they are found at the interpreter's end


def _walk(steps: Steps, how: Input) -> Any:
    """Grain's iterator over the steps, through processes."""
    import grain  # a third of a second, for those who use it

    _start_tracker()
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own, which have defaults where nobody parses any
    reading = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    # More workers than steps would have nothing to do.
    processes = grain.MultiprocessingOptions(min(how.workers, len(steps)), per_worker_buffer_size=how.ahead)
    data = grain.MapDataset.source(steps).to_iter_dataset(reading)
    return iter(data.mp_prefetch(processes, worker_init_fn=_begin))


def _start_tracker() -> None:
    """Starts Python's tracker of shared memory, which outlives all others and takes away what they leave.

    What was made ahead and never used is no leak, so that it is not to warn of it at the end of a stopped run.
    """
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (before, "ignore:resource_tracker:UserWarning")))
    try:
        multiprocessing.resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


@contextlib.contextmanager
def _spared() -> Iterator[None]:
    """Processes and threads started inside are not interrupted before they can say how."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(index: int, count: int) -> None:
    """What a worker does first."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    logging.set_verbosity(logging.ERROR)  # what there is to warn of, the parent has said
    jax.config.update("jax_platforms", "cpu")  # should a source compute, then not on the run's accelerator
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
