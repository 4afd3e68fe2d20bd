"""The lock of a work directory: two runs in one directory would delete each other's checkpoints.

    WORKDIR/lock.json    {"host", "pid", "process", "started"} of the run; its time of modification is the heartbeat

A lock is taken over if its process is dead on the same host, or on another host has had no heartbeat for some minutes.
Clocks of two hosts may differ, so a heartbeat of another host that is not long past is watched: it moves, or the run
is dead.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO

from genjax.core.errors import UserError
from genjax.core.files import writing
from genjax.parallel import multihost
from genjax.parallel.console import say

LOCK = "lock.json"


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that holds a lock.

    Attributes:
        host: name of its machine.
        pid: its number there.
        process: when that process began, in ticks since the machine's start: numbers are used again; 0 if unknown.
        started: seconds since 1970 when the run began.
    """

    host: str
    pid: int
    process: int
    started: float

    def alive(self) -> bool:
        """Whether the process runs on this machine."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return self.process == 0 or _process_start(self.pid) == self.process


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of the heartbeat.

    Attributes:
        beat: between two heartbeats.
        watched: how long a heartbeat of another host is watched.
        stale: age of a heartbeat of another host that is not watched.
    """

    beat: float = 10.0
    watched: float = 60.0
    stale: float = 300.0


def _process_start(pid: int) -> int:
    """Start of a process in ticks; 0 if it is dead, -1 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0 if Path("/proc/self/stat").exists() else -1
    return 0 if fields[0] in "ZX" else int(fields[19])


def _this() -> Owner:
    pid = os.getpid()
    return Owner(socket.gethostname(), pid, max(_process_start(pid), 0), round(time.time(), 3))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    """The lock's file, open to this process alone."""
    while True:
        with path.open("a+") as file:
            with contextlib.suppress(OSError):  # a file system without flock
                fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:  # not released yet
                yield file
                return


def _read(file: IO[str]) -> Owner | None:
    """The owner; None for an empty or damaged file."""
    file.seek(0)
    try:
        return Owner(**json.load(file))
    except (ValueError, TypeError):
        return None


class Lock:
    """A lock that is held; its heartbeat is a thread."""

    def __init__(self, workdir: Path, timing: Timing):
        """Takes the lock.

        Raises:
            UserError: another run holds it, or it cannot be written.
        """
        self._workdir, self._path, self._timing = workdir, workdir / LOCK, timing
        self._mine, self._end, self._lost = _this(), threading.Event(), ""
        with writing(workdir):
            self._take()
        threading.Thread(target=self._beat, daemon=True, name="lock").start()

    def _take(self) -> None:
        watching: tuple[int, float] | None = None  # heartbeat when it was first seen, and when that was
        while True:
            with _opened(self._path) as file:
                owner, beat = _read(file), os.fstat(file.fileno()).st_mtime_ns
                watching = watching or (beat, time.monotonic())
                if self._free(owner, beat, time.monotonic() - watching[1]):
                    file.truncate(0)
                    file.write(json.dumps(dataclasses.asdict(self._mine)) + "\n")
                    return
            assert owner is not None
            if owner.host == self._mine.host or beat != watching[0]:
                since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner.started))
                raise UserError(
                    f"{self._workdir} is in use by process {owner.pid} on {owner.host} since {since}: stop it, or "
                    "choose another workdir=DIR"
                )
            if time.monotonic() - watching[1] < self._timing.beat / 2:
                say(f"{self._workdir}: waiting for a heartbeat of process {owner.pid} on {owner.host}")
            time.sleep(self._timing.beat)

    def _free(self, owner: Owner | None, beat: int, watched: float) -> bool:
        if owner is None:
            return True
        if owner.host == self._mine.host:
            return not owner.alive()
        return time.time() - beat / 1e9 > self._timing.stale or watched > self._timing.watched

    def _beat(self) -> None:
        while not self._end.wait(self._timing.beat):
            with contextlib.suppress(OSError):  # a file system that is away for a moment
                if not self._path.exists():
                    self._lost = "its lock was deleted"
                    return
                with self._path.open() as file:
                    owner = _read(file)
                if owner is not None and owner != self._mine:
                    self._lost = f"process {owner.pid} on {owner.host} has taken it over"
                    return
                os.utime(self._path)

    def check(self) -> None:
        """Checks that the lock is still held, as of the last heartbeat.

        Raises:
            UserError: another run has taken the directory, while this process was suspended.
        """
        if self._lost:
            raise UserError(f"{self._workdir} is no longer this run's, {self._lost}: nothing more is saved")

    def release(self) -> None:
        """Removes the lock, unless it is lost."""
        self._end.set()
        with contextlib.suppress(OSError):
            if self._path.exists():
                with _opened(self._path) as file:
                    if _read(file) == self._mine:
                        self._path.unlink()


@contextlib.contextmanager
def locked(workdir: Path, timing: Timing = Timing()) -> Iterator[Lock | None]:
    """Holds a work directory for one run; process 0 of several locks it.

    Args:
        workdir: an existing directory.
        timing: of the heartbeat.

    Yields:
        The lock; None on other processes.

    Raises:
        UserError: another run holds it, or it cannot be written.
    """
    taken: list[Lock] = []
    multihost.on_first_process(lambda: taken.append(Lock(workdir, timing)))
    try:
        with _unwinding():
            yield taken[0] if taken else None
    finally:
        for lock in taken:
            lock.release()


@contextlib.contextmanager
def _unwinding() -> Iterator[None]:
    """Signals that would end the process at once raise SystemExit instead, so that locks are released.

    Several processes have handlers of their own, see `genjax.parallel.hosts.client`.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    alone = multihost.client() is None and threading.current_thread() is threading.main_thread()
    ending = [
        number
        for number in ((signal.SIGTERM, signal.SIGHUP) if alone else ())
        if signal.getsignal(number) == signal.SIG_DFL
    ]
    for number in ending:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in ending:
            signal.signal(number, signal.SIG_DFL)
