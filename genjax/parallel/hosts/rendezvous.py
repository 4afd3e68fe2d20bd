"""The hub of process 0: processes come together at it, it knows who is lost, and finds the step after which all stop.

Messages to it                              and what it says
    hello: process, of, host                    go: port of JAX's service, once all are there; refused: why not
    pulse: step, due                            pulse
    wait: value                                 pass: the value of process 0, once all wait
    signal: number                              ask: every process says where it is and waits
    at: step, or none outside the loop          stop: after which step, none for at once; signal
    bye: code, why                              ended, once all have said so; lost: process, why, code, grace
"""

import selectors
import socket
import threading
import time
from typing import Any

from genjax.core.errors import UserError
from genjax.parallel.hosts.failure_detector import Judge
from genjax.parallel.hosts.messages import PULSE, Message, Wire

LOST = 75  # EX_TEMPFAIL of sysexits.h: the same command may well succeed
MISTAKE = UserError.code
GRACE = 5.0  # seconds in which a process may come upon the same error itself, and say so in its own words


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


class Hub:
    """A thread of process 0."""

    def __init__(self, listener: socket.socket, count: int, limit: float):
        """Begins to listen.

        Args:
            listener: where processes come.
            count: how many there will be.
            limit: seconds for all of them to come, and of silence later on.
        """
        self._listener, self._count, self._limit = listener, count, limit
        self._judge, self._waited = Judge(limit), 0.0
        self._members: dict[int, Wire] = {}
        self._hosts: dict[int, str] = {}
        self._finished: set[int] = set()
        self._values: dict[int, Any] = {}  # of those that wait
        self._at: dict[int, int | None] | None = None  # answers to `ask`
        self._signal, self._over, self._gone = 0, False, False
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last = since = time.monotonic()
        while not self._gone:
            for key, _ in self._selector.select(PULSE / 2):
                if key.data is None:
                    self._welcome(Wire(self._listener.accept()[0]))
                else:
                    self._hear(*key.data)
            now = time.monotonic()
            # A hub that was itself paused has heard nothing, which is nobody's silence.
            self._pass(min(now - last, 2 * PULSE))
            last = now
            if now - since >= PULSE:
                self._tell(pulse=True)
                since = now
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def close(self) -> None:
        """Ends the thread, and with it all connections."""
        self._gone = True
        self._thread.join(2 * PULSE)

    def _pass(self, seconds: float) -> None:
        if len(self._hosts) < self._count:
            self._waited += seconds
            if self._waited > self._limit:
                absent = sorted({*range(self._count)} - {*self._hosts})
                self._lose(absent, f"did not come within {self._limit:.0f} s")
            return
        if lost := self._judge.passed(seconds):
            self._lose([process for process, _ in lost], lost[0][1])

    def _welcome(self, wire: Wire) -> None:
        self._selector.register(wire, selectors.EVENT_READ, (wire, None))

    def _hear(self, wire: Wire, process: int | None) -> None:
        messages = wire.receive()
        if messages is None:
            self._selector.unregister(wire)
            wire.close()
            if process is not None:
                self._ended(process)
            return
        for message in messages:
            if process is None:
                process = self._greet(wire, message)
            else:
                self._handle(process, message)

    def _greet(self, wire: Wire, message: Message) -> int | None:
        """Takes in a process, unless it does not belong here."""
        process, count = message.get("hello"), message.get("of")
        if not isinstance(process, int) or not 0 <= process < self._count or count != self._count:
            words = f"process {process} says that there are {count} processes, process 0 says {self._count}"
            wire.send(refused=words)
            return None
        if process in self._hosts:
            wire.send(refused=f"process {process} is there already, on {self._hosts[process]}")
            return None
        self._members[process], self._hosts[process] = wire, str(message.get("host"))
        self._selector.modify(wire, selectors.EVENT_READ, (wire, process))
        if len(self._hosts) == self._count:
            for member in range(self._count):
                self._judge.joined(member)
            self._tell(go=free_port())
        return process

    def _handle(self, process: int, message: Message) -> None:
        if "pulse" in message:
            self._judge.heard(process, message["pulse"], message["due"])
        elif "wait" in message:
            self._values[process] = message["wait"]
            if len(self._values) == self._count:
                values, self._values = self._values, {}
                self._tell(**{"pass": values[0]})
        elif "signal" in message and not self._signal:
            self._signal, self._at = message["signal"], {}
            self._tell(ask=True)
        elif "at" in message and self._at is not None:
            self._at[process] = message["at"]
        elif "bye" in message:
            self._bye(process, message["bye"], message.get("why", ""))
        self._agree()

    def _agree(self) -> None:
        """Says after which step to stop, once all have answered: nobody has gone further than the furthest."""
        if self._at is None or {*self._members} - {*self._at} - self._finished:
            return
        inside = [step for step in self._at.values() if step is not None]
        all_inside = len(inside) == len(self._at) and inside
        self._at = None
        self._over = not all_inside  # all leave at once, and whoever is gone is no loss
        self._tell(stop=max(inside) + 1 if all_inside else None, signal=self._signal)

    def _bye(self, process: int, code: int, why: str) -> None:
        if code in (LOST, MISTAKE):
            words = f"ended: {why}" if why else "ended"
            self._lose([process], words, MISTAKE if code == MISTAKE else LOST, GRACE)
            return
        self._finished.add(process)
        self._judge.left(process)
        if len(self._finished) == self._count:
            self._over = True
            self._tell(ended=True)

    def _ended(self, process: int) -> None:
        """A connection is gone."""
        self._members.pop(process, None)
        if not self._over and not (self._signal and process in self._finished):
            self._lose([process], "died")

    def _lose(self, processes: list[int], why: str, code: int = LOST, grace: float = 0.0) -> None:
        """Tells everyone; the first loss is what counts, the others follow from it."""
        if self._over:
            return
        self._over = True
        hosts = ", ".join(sorted({self._hosts[process] for process in processes if process in self._hosts}))
        names = f"process{'es' if len(processes) > 1 else ''} {', '.join(map(str, processes))}"
        words = f"{names} of {self._count}{f' on {hosts}' if hosts else ''} {why}"
        self._tell(lost=words, code=code, grace=grace)

    def _tell(self, **message: Any) -> None:
        """Tells all processes, its own at last: that one may end this thread with it."""
        for process in sorted(self._members, reverse=True):
            self._members[process].send(**message)
