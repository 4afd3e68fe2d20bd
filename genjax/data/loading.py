"""Batches read ahead by worker processes, for examples that have to be read and decoded.

`Batches` defines the contents. Element i of the data set that Grain iterates over is this process's part of batch
start + i; worker k of n makes elements k, k + n, ..., which are returned in order: neither the number of workers nor
a restart can change a batch. A worker is a spawned Python process (forking is unsafe with JAX's threads) and does not
initialise JAX. It ignores SIGINT and SIGTERM, since the run saves a checkpoint and then ends it, and exits when the
run's process has ended for any reason.
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
    """How batches reach the devices; their contents do not depend on it.

    Attributes:
        workers: processes that read and decode examples which are not in memory; 0 uses a thread of the training loop.
        ahead: number of calls whose batches are prepared and transferred to the devices ahead; each worker buffers as
            many batches.
        resident: whether the data set resides on the devices, so that a batch is a list of indices; None: if it is
            no larger than `resident_mib`.
        resident_mib: limit in MiB per device; on CPU, for all devices of a process together.
    """

    workers: int = 0
    ahead: int = 2
    resident: bool | None = None
    resident_mib: int = 256


class Steps:
    """The data set that Grain iterates over: element i is (step, rows of the batch) for step = start + i."""

    def __init__(self, batches: Batches, start: int, stop: int):
        # A copy, without the cached permutations of the original.
        self.batches, self.start, self.stop = dataclasses.replace(batches), start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> tuple[int, dict[str, np.ndarray]]:
        """Turns all errors into UserErrors: others may fail to be pickled for the parent process."""
        step = self.start + int(index)
        try:
            return step, self.batches(step)
        except UserError as error:
            raise UserError(str(error)) from None
        except Exception as error:
            message = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"a data worker cannot make batch {step}: {message}") from None


@contextlib.contextmanager
def read_ahead(batches: Batches, start: int, stop: int, options: Input, by_value: str = "") -> Iterator[Rows]:
    """Opens the stream of batches start ... stop - 1, which must be requested in this order.

    Args:
        batches: step -> rows.
        start: first step.
        stop: the step after the last.
        options: `workers` and `ahead`. Without workers, or with examples in memory, the stream is `batches` itself.
        by_value: prefix of the names of modules that workers cannot import; their classes are pickled by value.

    Yields:
        step -> rows. The call that requests a batch raises the error of the worker that made it.

    Raises:
        UserError: by the stream: a worker could not make a batch, or was killed.
    """
    if options.workers == 0 or stop <= start or is_in_memory(batches.examples):
        yield batches
        return
    for name, module in list(sys.modules.items()):
        if by_value and name.startswith(by_value):
            cloudpickle.register_pickle_by_value(module)
    stream = _grain_iterator(Steps(batches, start, stop), options)
    failed: Exception | None = None

    def rows(step: int) -> dict[str, np.ndarray]:
        nonlocal failed
        if failed is not None:  # Grain's threads have ended: waiting for the next batch would block forever
            raise failed
        try:
            return take(step)
        except Exception as error:
            failed = error
            raise

    def take(step: int) -> dict[str, np.ndarray]:
        with _signals_blocked():  # the first call starts the workers
            try:
                made, found = next(stream)
            except RuntimeError as error:  # from Grain: a process has ended
                code = re.search(r"exit code (-?\d+)", str(error))
                how_it_ended = f"exit code {code[1]}" if code else " ".join(str(error).split())
                raise UserError(
                    f"a data worker ended before its batch was made ({how_it_ended}; -9: killed, perhaps out of "
                    "memory); the same command resumes from the last checkpoint"
                ) from None
        if made != step:
            raise ValueError(f"got batch {made}, expected {step}")
        # Copies: a device array may outlive this stream, and must not refer to memory shared with a worker.
        return {name: np.array(array, subok=False) for name, array in found.items()}

    try:
        yield rows
    finally:
        stream.close()
        del stream, rows, take
        gc.collect()  # Grain's iterators form reference cycles, and warn when they are collected at interpreter exit


def _grain_iterator(steps: Steps, options: Input) -> Any:
    """Grain's iterator over the steps, with worker processes."""
    import grain  # takes a third of a second

    _start_tracker()
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads absl flags; without parsing they have their defaults
    reading = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    # More workers than steps would be idle.
    processes = grain.MultiprocessingOptions(
        min(options.workers, len(steps)), per_worker_buffer_size=options.ahead
    )
    data = grain.MapDataset.source(steps).to_iter_dataset(reading)
    return iter(data.mp_prefetch(processes, worker_init_fn=_init_worker))


def _start_tracker() -> None:
    """Starts Python's resource tracker, which outlives the other processes and frees their shared memory.

    Its warning is disabled: batches that were made ahead and not used when a run stops are no leak.
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
def _signals_blocked() -> Iterator[None]:
    """Processes and threads started inside inherit blocked signals, until they have installed their own handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _init_worker(index: int, count: int) -> None:
    """Initialises a worker process."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    logging.set_verbosity(logging.ERROR)  # the parent has issued the same warnings
    jax.config.update("jax_platforms", "cpu")  # if a source uses JAX, it must not take the accelerator
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
