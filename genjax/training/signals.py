"""On SIGTERM or SIGINT: finish the step, save a checkpoint, then exit."""

import signal
import threading
from types import FrameType
from typing import Any

from genjax.parallel import multihost


class StopSignal:
    """Records SIGTERM and SIGINT, so that the loop can save before it exits; a second signal exits at once.

    In a multi-process run a signal to one process stops all of them; see `genjax.parallel.hosts.client`.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._client = multihost.client()

    def __enter__(self) -> "StopSignal":
        alone = self._client is None and threading.current_thread() is threading.main_thread()
        for number in (
            (signal.SIGTERM, signal.SIGINT) if alone else ()
        ):  # Python sets handlers in the main thread
            self._before[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._client is not None:
            self._client.leave_loop()
            if self._client.signal and kind is None:
                raise SystemExit(128 + self._client.signal)  # after the last step: everything is saved

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise SystemExit(128 + number)
        self.received = number

    def reached(self, step: int) -> bool:
        """Whether to stop after `step`; the same on all processes of a run."""
        if self._client is not None and self._client.reached(step):
            self.received = self._client.signal
        return self.received is not None

    def expect(self, due: bool) -> None:
        """Announces whether the next step only computes: no compilation, checkpoint or evaluation before its end."""
        if self._client is not None:
            self._client.expect(due)
