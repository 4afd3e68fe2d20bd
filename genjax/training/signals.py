"""A run that is told to end saves first."""

import signal
from types import FrameType
from typing import Any

from genjax.parallel import multihost


class StopSignal:
    """Notes SIGTERM and SIGINT, so that the loop can save before it ends; a second one ends it at once.

    In a run of several processes a signal to one is a signal to all; see `genjax.parallel.hosts.client`.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._member = multihost.member()

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGTERM, signal.SIGINT) if self._member is None else ():
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._member is not None:
            self._member.outside()
            if self._member.signal and kind is None:
                raise SystemExit(128 + self._member.signal)  # it came after the last step: all is saved

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise SystemExit(128 + number)
        self.received = number

    def reached(self, step: int) -> bool:
        """Whether to stop after `step`; in a run of several processes all agree."""
        if self._member is not None and self._member.reached(step):
            self.received = self._member.signal
        return self.received is not None

    def expect(self, due: bool) -> None:
        """Says whether the next step is a matter of computing it alone: nothing to compile, save or draw."""
        if self._member is not None:
            self._member.expect(due)
