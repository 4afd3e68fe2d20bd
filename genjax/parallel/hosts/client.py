"""The client of the rendezvous in each process: sends heartbeats, and exits when another process is lost.

It runs in a thread, because the main thread may be blocked in a collective with a lost process. It exits by `os._exit`
after one line on stderr: an orderly shutdown of JAX would wait for the lost process.

A signal (SIGTERM, SIGINT) reaches the thread through a pipe at once. The client reports it to the rendezvous, which
queries the step of all processes; each replies and waits at that step. All stop after the step that follows the
furthest one. Outside the training loop there is nothing to save, and all processes exit at once.
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
from genjax.parallel.hosts.messages import HEARTBEAT, Connection, Message
from genjax.parallel.hosts.rendezvous import GRACE, LOST

SIGNALS = (signal.SIGTERM, signal.SIGINT)
REPEATED = 3.0  # seconds after which a second signal exits at once; launchers may forward one signal twice
LOOP_TIMEOUT = 10.0  # seconds for the training loop to end before the process exits


class Unreachable(UserError):
    """The other processes cannot be reached, perhaps not yet: the same command may succeed later."""

    code = LOST


def exit_process(code: int, line: str) -> None:
    """Exits at once, with one line on stderr unless it is empty."""
    sys.stdout.flush()
    if line:
        sys.stderr.write(f"error: {line}\n")
    sys.stderr.flush()
    os._exit(code)


class Client:
    """The connection of this process to the rendezvous; made by `join`."""

    def __init__(
        self,
        connection: Connection,
        index: int,
        limit: float,
        quit: Callable[[int, str], None] = exit_process,
        signals: bool = True,
    ):
        """Starts the thread.

        Args:
            connection: to the rendezvous, which has sent `go`.
            index: index of this process.
            limit: timeout in seconds for messages of the rendezvous.
            quit: exits the process with a code and a line on stderr.
            signals: whether to handle SIGNALS; this requires the main thread.
        """
        self._connection, self._index, self._limit, self._quit = connection, index, limit, quit
        self._step, self._due, self._inside = -1, False, False
        self._asked, self._signal = False, 0
        self._stop: int | None = None
        self._passed: tuple[Any] | None = None
        self._changed, self._gone = threading.Condition(), False
        self._all_done = threading.Event()
        self._leaving: tuple[float, int, str] | None = None  # time, exit code, line
        self._signalled = -REPEATED
        self._reader, self._writer = os.pipe()
        if signals:
            os.set_blocking(self._writer, False)
            signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            for number in SIGNALS:
                signal.signal(number, lambda *_: None)  # the wakeup pipe delivers it
        self._thread = threading.Thread(target=self._run, name="client", daemon=True)
        self._thread.start()

    # Called by the main thread.

    def reached(self, step: int) -> bool:
        """Records a completed step; returns whether all processes stop after it."""
        with self._changed:
            self._inside, self._step = True, step
            self._changed.wait_for(lambda: not self._asked)
            return self._stop is not None and step >= self._stop

    def expect(self, due: bool) -> None:
        """Announces whether the next step only computes, and so takes at most `limit` seconds."""
        self._due = due

    @property
    def signal(self) -> int:
        """The signal that stops the run; 0 if there is none."""
        return self._signal

    def broadcast(self, value: Any = None) -> Any:
        """Waits until all processes call this; returns the (JSON-serialisable) value of process 0."""
        with self._changed:
            self._passed = None
            self._connection.send(wait=value)
            self._changed.wait_for(lambda: self._passed is not None)
            assert self._passed is not None
            return self._passed[0]

    def leave_loop(self) -> None:
        """Records that the training loop has ended and everything is saved."""
        with self._changed:
            self._inside = self._due = False
            self._changed.notify_all()

    def finish(self, code: int) -> None:
        """Reports that this process is done, and waits until all are."""
        self.leave_loop()
        self._connection.send(bye=code)
        self._all_done.wait()

    def fail(self, code: int, why: str) -> None:
        """Reports an error of this process; with code LOST after a delay, since a lost process may be its cause."""
        if code == LOST:
            time.sleep(GRACE)
        self._connection.send(bye=code, why=why)
        time.sleep(2 * HEARTBEAT if self._index == 0 else HEARTBEAT / 4)  # the rendezvous is in process 0

    def close(self) -> None:
        """Ends the thread, after `finish`."""
        self._gone = True
        self._thread.join(2 * HEARTBEAT)

    # Run in the thread.

    def _run(self) -> None:
        self._loop()
        self._connection.close()
        os.close(self._reader)  # the write end stays open for the signal handler

    def _loop(self) -> None:
        silent, last, sent = 0.0, time.monotonic(), 0.0
        while not self._gone:
            ready, _, _ = select.select([self._connection.fileno(), self._reader], [], [], HEARTBEAT / 2)
            if self._reader in ready:
                for number in os.read(self._reader, 64):
                    self._handle_signal(number)
            if self._connection.fileno() in ready:
                messages = self._connection.receive()
                if messages is None:
                    if not self._all_done.is_set():
                        when, code, line = self._leaving or (0.0, LOST, "process 0 died")
                        time.sleep(max(0.0, when - time.monotonic()))
                        self._exit(code, line)
                    return
                silent = 0.0
                for message in messages:
                    self._handle(message)
            now = time.monotonic()
            silent, last = silent + min(now - last, 2 * HEARTBEAT), now
            if silent > self._limit and not self._all_done.is_set():
                self._exit(LOST, f"process 0 has been silent for {silent:.0f} s")
            if self._leaving and now >= self._leaving[0]:
                self._exit(*self._leaving[1:])
            if now - sent >= HEARTBEAT:
                self._connection.send(heartbeat=self._step, due=self._due)
                sent = now

    def _handle(self, message: Message) -> None:
        if "pass" in message:
            with self._changed:
                self._passed = (message["pass"],)
                self._changed.notify_all()
        elif "ask" in message:
            with self._changed:
                self._asked = True
                self._connection.send(at=self._step if self._inside else None)
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

    def _handle_signal(self, number: int) -> None:
        if number not in SIGNALS:
            return
        now, before = time.monotonic(), self._signalled
        self._signalled = now
        if before > 0 and now - before > REPEATED:
            self._exit(128 + number, "")
        self._connection.send(signal=number)

    def _exit(self, code: int, line: str) -> None:
        """Exits the process; after a signal, once the training loop has ended."""
        if code > 128:
            with self._changed:
                self._changed.wait_for(lambda: not self._inside, LOOP_TIMEOUT if self._stop is None else 0.0)
            self._connection.send(bye=code)
        if self._index == 0:
            time.sleep(HEARTBEAT / 4)  # for the messages of the rendezvous to reach the other processes
        advice = ": the same command resumes from the latest checkpoint" if code == LOST else ""
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
        "and is this the address of coordinator=HOST:PORT?"
    )


def join(
    address: tuple[str, int], index: int, count: int, limit: float, **options: Any
) -> tuple[Client, int]:
    """Connects to the rendezvous and waits for all other processes.

    Args:
        address: (host, port) of the rendezvous.
        index: index of this process, 0 ... count - 1.
        count: number of processes.
        limit: timeout in seconds, for connecting and for messages of the rendezvous.
        **options: further arguments of `Client`.

    Returns:
        (client, port for JAX's service on the host of process 0).

    Raises:
        Unreachable: no answer, or not all processes connect.
        UserError: process 0 refuses this one.
    """
    connection = Connection(_connect(address, limit))
    try:
        port = _wait(connection, index, count, limit)
    except BaseException:
        connection.close()
        raise
    return Client(connection, index, limit, **options), port


def _wait(connection: Connection, index: int, count: int, limit: float) -> int:
    """Sends `hello` and waits for `go`."""
    connection.send(hello=index, of=count, host=socket.gethostname())
    while True:
        ready, _, _ = select.select([connection], [], [], limit + 10 * HEARTBEAT)
        messages = connection.receive() if ready else None
        if messages is None:
            raise Unreachable("process 0 ended before all processes were connected")
        for message in messages:
            if "refused" in message:
                raise UserError(message["refused"])
            if "lost" in message:
                raise Unreachable(message["lost"])
            if "go" in message:
                with contextlib.suppress(ValueError):
                    return int(message["go"])
