"""The rendezvous in process 0: connects the processes, detects failures, and coordinates a common last step.

Messages to it                              and its answers
    hello: process, of, host                    go: port of JAX's service, once all are connected; refused: reason
    heartbeat: step, due                        heartbeat
    wait: value                                 pass: the value of process 0, once all processes wait
    signal: number                              ask: every process reports its step and waits
    at: step, or none outside the loop          stop: the last step, none for at once; signal
    bye: code, why                              ended, once all are done; lost: process and reason, code, grace
"""

import selectors
import socket
import threading
import time
from typing import Any

from genjax.core.errors import UserError
from genjax.parallel.hosts.failure_detector import FailureDetector
from genjax.parallel.hosts.messages import HEARTBEAT, Connection, Message

LOST = 75  # EX_TEMPFAIL of sysexits.h: the same command may succeed later
USER_ERROR = UserError.code
GRACE = 5.0  # seconds for the other processes to raise the same error themselves and print it


def free_port() -> int:
    """A free TCP port of this machine."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


class Rendezvous:
    """A thread of process 0 that serves all processes of the run."""

    def __init__(self, listener: socket.socket, count: int, limit: float):
        """Starts the thread.

        Args:
            listener: listening socket for the processes' connections.
            count: number of processes.
            limit: timeout in seconds, for all processes to connect and for the failure detector.
        """
        self._listener, self._count, self._limit = listener, count, limit
        self._detector, self._waited = FailureDetector(limit), 0.0
        self._clients: dict[int, Connection] = {}
        self._hosts: dict[int, str] = {}
        self._finished: set[int] = set()
        self._values: dict[int, Any] = {}  # of the waiting processes
        self._at: dict[int, int | None] | None = None  # replies to `ask`
        self._signal, self._over, self._gone = 0, False, False
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="rendezvous", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last = since = time.monotonic()
        while not self._gone:
            for key, _ in self._selector.select(HEARTBEAT / 2):
                if key.data is None:
                    self._register(Connection(self._listener.accept()[0]))
                else:
                    self._receive(*key.data)
            now = time.monotonic()
            # Time in which this process itself was suspended does not count as silence of the others.
            self._check(min(now - last, 2 * HEARTBEAT))
            last = now
            if now - since >= HEARTBEAT:
                self._send_all(heartbeat=True)
                since = now
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def close(self) -> None:
        """Ends the thread and closes all connections."""
        self._gone = True
        self._thread.join(2 * HEARTBEAT)

    def _check(self, seconds: float) -> None:
        """Reports processes that have not connected in time, or that the failure detector finds lost."""
        if len(self._hosts) < self._count:
            self._waited += seconds
            if self._waited > self._limit:
                absent = sorted({*range(self._count)} - {*self._hosts})
                self._report_lost(absent, f"did not connect within {self._limit:.0f} s")
            return
        if lost := self._detector.advance(seconds):
            self._report_lost([process for process, _ in lost], lost[0][1])

    def _register(self, connection: Connection) -> None:
        self._selector.register(connection, selectors.EVENT_READ, (connection, None))

    def _receive(self, connection: Connection, process: int | None) -> None:
        messages = connection.receive()
        if messages is None:
            self._selector.unregister(connection)
            connection.close()
            if process is not None:
                self._disconnected(process)
            return
        for message in messages:
            if process is None:
                process = self._accept(connection, message)
            else:
                self._handle(process, message)

    def _accept(self, connection: Connection, message: Message) -> int | None:
        """Accepts a process, or refuses one with a duplicate index or another number of processes."""
        process, count = message.get("hello"), message.get("of")
        if not isinstance(process, int) or not 0 <= process < self._count or count != self._count:
            reason = f"process {process} was started with {count} processes, process 0 with {self._count}"
            connection.send(refused=reason)
            return None
        if process in self._hosts:
            connection.send(refused=f"process {process} is connected already, from {self._hosts[process]}")
            return None
        self._clients[process], self._hosts[process] = connection, str(message.get("host"))
        self._selector.modify(connection, selectors.EVENT_READ, (connection, process))
        if len(self._hosts) == self._count:
            for index in range(self._count):
                self._detector.add(index)
            self._send_all(go=free_port())
        return process

    def _handle(self, process: int, message: Message) -> None:
        if "heartbeat" in message:
            self._detector.heartbeat(process, message["heartbeat"], message["due"])
        elif "wait" in message:
            self._values[process] = message["wait"]
            if len(self._values) == self._count:
                values, self._values = self._values, {}
                self._send_all(**{"pass": values[0]})
        elif "signal" in message and not self._signal:
            self._signal, self._at = message["signal"], {}
            self._send_all(ask=True)
        elif "at" in message and self._at is not None:
            self._at[process] = message["at"]
        elif "bye" in message:
            self._done(process, message["bye"], message.get("why", ""))
        self._choose_last_step()

    def _choose_last_step(self) -> None:
        """Sends the last step once all have replied: the one after the furthest step that a process has reached."""
        if self._at is None or {*self._clients} - {*self._at} - self._finished:
            return
        inside = [step for step in self._at.values() if step is not None]
        all_inside = len(inside) == len(self._at) and inside
        self._at = None
        self._over = not all_inside  # all processes exit at once; a closed connection is no failure
        self._send_all(stop=max(inside) + 1 if all_inside else None, signal=self._signal)

    def _done(self, process: int, code: int, why: str) -> None:
        """Handles a process that is done, or that exits with an error of its own."""
        if code in (LOST, USER_ERROR):
            reason = f"ended: {why}" if why else "ended"
            self._report_lost([process], reason, USER_ERROR if code == USER_ERROR else LOST, GRACE)
            return
        self._finished.add(process)
        self._detector.remove(process)
        if len(self._finished) == self._count:
            self._over = True
            self._send_all(ended=True)

    def _disconnected(self, process: int) -> None:
        """Handles a closed connection."""
        self._clients.pop(process, None)
        if not self._over and not (self._signal and process in self._finished):
            self._report_lost([process], "died")

    def _report_lost(self, processes: list[int], why: str, code: int = LOST, grace: float = 0.0) -> None:
        """Tells all processes about the first failure; later ones are its consequences and are not reported."""
        if self._over:
            return
        self._over = True
        hosts = ", ".join(sorted({self._hosts[process] for process in processes if process in self._hosts}))
        names = f"process{'es' if len(processes) > 1 else ''} {', '.join(map(str, processes))}"
        line = f"{names} of {self._count}{f' on {hosts}' if hosts else ''} {why}"
        self._send_all(lost=line, code=code, grace=grace)

    def _send_all(self, **message: Any) -> None:
        """Sends to all processes, to process 0 last, since its exit ends this thread."""
        for process in sorted(self._clients, reverse=True):
            self._clients[process].send(**message)
