"""A process's own part: it says that it lives and where it is, and ends when the hub says that another is lost.

All of it happens in a thread, because the main thread may be waiting, for a collective with a process that is no
longer there. Ending is `os._exit` after one line on stderr: in any gentler way JAX would wait for the lost one.

A signal (SIGTERM, SIGINT) reaches the thread through a pipe at once. It tells the hub; the hub asks everyone; each
answers with the step that it has reached and waits there, so that none is beyond the step after the furthest, after
which all stop. Outside the training loop there is nothing to save, and all leave at once.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from genjax.core.errors import UserError
from genjax.parallel.hosts.messages import PULSE, Message, Wire
from genjax.parallel.hosts.rendezvous import GRACE, LOST

SIGNALS = (signal.SIGTERM, signal.SIGINT)
AGAIN = 3.0  # seconds after which another signal means it; launchers may pass one on twice
LEAVING = 10.0  # seconds for a loop to end before its process is left


class Unreachable(UserError):
    """The others are not there, or not yet: the same command may well succeed later."""

    code = LOST


def end(code: int, line: str) -> None:
    """Ends the process now, with one line on stderr."""
    sys.stdout.flush()
    if line:
        sys.stderr.write(f"error: {line}\n")
    sys.stderr.flush()
    os._exit(code)


class Member:
    """This process among those of the run; `join` makes it."""

    def __init__(
        self,
        wire: Wire,
        index: int,
        limit: float,
        quit: Callable[[int, str], None] = end,
        signals: bool = True,
    ):
        """Starts the thread.

        Args:
            wire: to the hub, which has said `go`.
            index: of this process.
            limit: seconds of silence of the hub.
            quit: ends the process with a code and a line.
            signals: whether to take those of SIGNALS over, for which this must be the main thread.
        """
        self._wire, self._index, self._limit, self._quit = wire, index, limit, quit
        self._step, self._due, self._inside = -1, False, False
        self._asked, self._signal = False, 0
        self._stop: int | None = None
        self._passed: tuple[Any] | None = None
        self._changed, self._gone = threading.Condition(), False
        self._all_done = threading.Event()
        self._leaving: tuple[float, int, str] | None = None  # when, and how
        self._signalled = -AGAIN
        self._reader, self._writer = os.pipe()
        if signals:
            os.set_blocking(self._writer, False)
            signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            for number in SIGNALS:
                signal.signal(number, lambda *_: None)  # the pipe is what counts
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    # What the main thread calls.

    def reached(self, step: int) -> bool:
        """Notes that a step of the loop was taken; says whether all stop after it."""
        with self._changed:
            self._inside, self._step = True, step
            self._changed.wait_for(lambda: not self._asked)
            return self._stop is not None and step >= self._stop

    def expect(self, due: bool) -> None:
        """Says whether the next step is a matter of computing it alone, and so of at most `limit` seconds."""
        self._due = due

    @property
    def signal(self) -> int:
        """The signal that all stop for; 0 if there is none."""
        return self._signal

    def meet(self, value: Any = None) -> Any:
        """Waits until all processes are here.

        Args:
            value: anything that JSON can hold.

        Returns:
            The value of process 0.
        """
        with self._changed:
            self._passed = None
            self._wire.send(wait=value)
            self._changed.wait_for(lambda: self._passed is not None)
            assert self._passed is not None
            return self._passed[0]

    def outside(self) -> None:
        """Says that the loop is over and everything saved."""
        with self._changed:
            self._inside = self._due = False
            self._changed.notify_all()

    def finish(self, code: int) -> None:
        """Says that this process is done, and waits for all others to be so."""
        self.outside()
        self._wire.send(bye=code)
        self._all_done.wait()

    def fail(self, code: int, why: str) -> None:
        """Says that this process ends with an error of its own, unless another one is lost, which may be its cause."""
        if code == LOST:
            time.sleep(GRACE)
        self._wire.send(bye=code, why=why)
        time.sleep(2 * PULSE if self._index == 0 else PULSE / 4)  # the hub is in process 0

    def close(self) -> None:
        """Ends the thread, after `finish`."""
        self._gone = True
        self._thread.join(2 * PULSE)

    # The thread.

    def _run(self) -> None:
        self._watch()
        self._wire.close()
        os.close(self._reader)  # its other end is written to by a handler of signals, if at all

    def _watch(self) -> None:
        silent, last, sent = 0.0, time.monotonic(), 0.0
        while not self._gone:
            ready, _, _ = select.select([self._wire.fileno(), self._reader], [], [], PULSE / 2)
            if self._reader in ready:
                for number in os.read(self._reader, 64):
                    self._signal_came(number)
            if self._wire.fileno() in ready:
                messages = self._wire.receive()
                if messages is None:
                    if not self._all_done.is_set():
                        when, code, line = self._leaving or (0.0, LOST, "process 0 died")
                        time.sleep(max(0.0, when - time.monotonic()))
                        self._leave(code, line)
                    return
                silent = 0.0
                for message in messages:
                    self._handle(message)
            now = time.monotonic()
            silent, last = silent + min(now - last, 2 * PULSE), now
            if silent > self._limit and not self._all_done.is_set():
                self._leave(LOST, f"process 0 has been silent for {silent:.0f} s")
            if self._leaving and now >= self._leaving[0]:
                self._leave(*self._leaving[1:])
            if now - sent >= PULSE:
                self._wire.send(pulse=self._step, due=self._due)
                sent = now

    def _handle(self, message: Message) -> None:
        if "pass" in message:
            with self._changed:
                self._passed = (message["pass"],)
                self._changed.notify_all()
        elif "ask" in message:
            with self._changed:
                self._asked = True
                self._wire.send(at=self._step if self._inside else None)
        elif "stop" in message:
            with self._changed:
                self._asked, self._stop, self._signal = False, message["stop"], message["signal"]
                self._changed.notify_all()
                inside = self._inside
            if self._stop is None or not inside:
                self._leaving = (time.monotonic(), 128 + self._signal, "")
        elif "lost" in message:
            self._leaving = (time.monotonic() + message["grace"], message["code"], message["lost"])
        elif "ended" in message:
            self._all_done.set()

    def _signal_came(self, number: int) -> None:
        if number not in SIGNALS:
            return
        now, before = time.monotonic(), self._signalled
        self._signalled = now
        if before > 0 and now - before > AGAIN:
            self._leave(128 + number, "")
        self._wire.send(signal=number)

    def _leave(self, code: int, line: str) -> None:
        """Ends the process; after a signal a loop that is ending may end first."""
        if code > 128:
            with self._changed:
                self._changed.wait_for(lambda: not self._inside, LEAVING if self._stop is None else 0.0)
            self._wire.send(bye=code)
        if self._index == 0:
            time.sleep(PULSE / 4)  # what the hub has told the others is on its way
        advice = ": the same command goes on from the last checkpoint" if code == LOST else ""
        self._gone = True
        self._quit(code, line + advice)


def _connect(address: tuple[str, int], limit: float) -> socket.socket:
    until, reason = time.monotonic() + limit, "no answer"
    while time.monotonic() < until:
        try:
            return socket.create_connection(address, timeout=5.0)
        except OSError as error:
            reason = error.strerror or str(error)
        time.sleep(0.2)
    raise Unreachable(
        f"process 0 cannot be reached at {address[0]}:{address[1]} within {limit:.0f} s ({reason}): is it running, "
        "and is this its --coordinator?"
    )


def join(
    address: tuple[str, int], index: int, count: int, limit: float, **options: Any
) -> tuple[Member, int]:
    """Goes to the hub and waits there for all others.

    Args:
        address: (host, port) of the hub.
        index: of this process.
        count: number of processes.
        limit: seconds to wait, and of silence later on.
        options: of `Member`.

    Returns:
        (this process's part, the port for JAX's service on process 0's host).

    Raises:
        Unreachable: nobody answers, or not all come.
        UserError: process 0 does not want this one.
    """
    wire = Wire(_connect(address, limit))
    try:
        port = _wait(wire, index, count, limit)
    except BaseException:
        wire.close()
        raise
    return Member(wire, index, limit, **options), port


def _wait(wire: Wire, index: int, count: int, limit: float) -> int:
    """Says who has come, and waits for `go`."""
    wire.send(hello=index, of=count, host=socket.gethostname())
    while True:
        ready, _, _ = select.select([wire], [], [], limit + 10 * PULSE)
        messages = wire.receive() if ready else None
        if messages is None:
            raise Unreachable("process 0 has gone before all processes came")
        for message in messages:
            if "refused" in message:
                raise UserError(message["refused"])
            if "lost" in message:
                raise Unreachable(message["lost"])
            if "go" in message:
                with contextlib.suppress(ValueError):
                    return int(message["go"])
