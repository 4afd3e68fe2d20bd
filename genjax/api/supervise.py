"""Runs a group of processes, ends all when one fails, and starts them again: what the launchers stand on.

python -m genjax.api.supervise [--retries=3] [--pause=10] [--grace=60] [--labels=A,B] -- COMMAND [::: COMMAND]...

Exit codes of the programs: 0 done; 2 the user's mistake; 130, 143 stopped with everything saved; 75 a peer died or
got stuck; all others a crash. A group that ends with any code but 0 and 2 is started again, at most `retries` times,
and resumes, since the same command continues a run; not so after a signal to the supervisor, which goes on to all
processes. The exit code is that of the process which failed first (2 before others that failed with it).

Nothing here needs more than Python itself: it runs where neither jax nor the project is set up.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import IO

DONE, MISTAKE = 0, 2
FINAL = (DONE, MISTAKE)  # exit codes after which nothing is tried again
ANY_PORT = "--coordinator=localhost:0"
BETWEEN = ":::"  # between the commands of a group
POLL = 0.05  # seconds


def say(line: str) -> None:
    """Prints a line of the supervisor's own."""
    print(f"launch: {line}", file=sys.stderr, flush=True)


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def split(words: Sequence[str]) -> list[list[str]]:
    """Commands from words with ":::" between them; empty ones are left out."""
    commands: list[list[str]] = [[]]
    for word in words:
        if word == BETWEEN:
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


class Group:
    """Processes that live and end together.

    Attributes:
        commands: one of each process. A word "--coordinator=localhost:0" gets a free port at each start.
        labels: what marks the lines of all processes but the first, which has the terminal to itself.
        grace: seconds between asking processes to end and killing them.
        by_stdin: they are asked by closing their standard input instead of SIGTERM.
        log: file that all output is appended to, instead of the terminal.
        cores: the CPU cores that they may use; None for all.
        env: their environment; None for this process's.
    """

    def __init__(
        self,
        commands: Sequence[Sequence[str]],
        *,
        labels: Sequence[str] = (),
        grace: float = 60.0,
        by_stdin: bool = False,
        log: Path | None = None,
        cores: Collection[int] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.commands = [list(command) for command in commands]
        self.labels = list(labels) or [str(index) for index in range(len(commands))]
        self.grace, self.by_stdin, self.log, self.cores, self.env = grace, by_stdin, log, cores, env
        self._processes: list[subprocess.Popen] = []
        self._readers: list[threading.Thread] = []
        self._code: int | None = None
        self._deadline: float | None = None

    def start(self) -> None:
        """Starts all processes, each a session of its own: a Ctrl-C of the terminal reaches the supervisor alone.

        Raises:
            OSError: a command cannot be started; those before it are killed.
        """
        port = free_port()
        self._processes, self._readers, self._code, self._deadline = [], [], None, None
        with contextlib.ExitStack() as stack:
            stack.callback(self._use_cores, self._use_cores(self.cores))
            log = stack.enter_context(self.log.open("ab")) if self.log else None
            for index, command in enumerate(self.commands):
                try:
                    self._start_one(index, command, port, log)
                except OSError:
                    self._kill()
                    raise

    def _start_one(self, index: int, command: list[str], port: int, log: IO[bytes] | None) -> None:
        words = [f"--coordinator=localhost:{port}" if word == ANY_PORT else word for word in command]
        marked = index > 0 and log is None
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE if self.by_stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE if marked else log,
            stderr=subprocess.STDOUT if marked or log else None,
            env=self.env,
            start_new_session=True,
        )
        self._processes.append(process)
        if process.stdout is not None:
            reader = threading.Thread(target=_mark, args=(process.stdout, self.labels[index]), daemon=True)
            reader.start()
            self._readers.append(reader)

    @staticmethod
    def _use_cores(cores: Collection[int] | None) -> Collection[int] | None:
        """Lets this thread, and what it starts, use some cores; returns those it had."""
        if cores is None or not hasattr(os, "sched_setaffinity"):
            return None
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)
        return before

    def poll(self) -> int | None:
        """The group's exit code when all processes have ended, else None; ends the others when one has failed."""
        codes = [process.poll() for process in self._processes]
        failed = [index for index, code in enumerate(codes) if code not in (None, DONE)]
        if failed and self._code is None:
            index = min(failed, key=lambda index: codes[index] != MISTAKE)
            code = codes[index] or 0
            self._code = code if code > 0 else 128 - code
            if None in codes and self._deadline is None:
                say(f"process {self.labels[index]} ended with code {self._code}; ending the others")
                self.stop(signal.SIGTERM)
        if None in codes:
            if self._deadline is not None and time.monotonic() > self._deadline:
                say(f"killing what is left after {self.grace:g} s")
                self._kill()
            return None
        for reader in self._readers:
            reader.join(timeout=1.0)  # a grandchild may keep the pipe open
        return self._code or DONE

    def stop(self, number: int) -> None:
        """Asks all processes to end, by a signal or by closing their standard input; `poll` kills those that do not."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self.grace
        for process in self._processes:
            if process.poll() is None:
                if process.stdin is None or process.stdin.closed:
                    process.send_signal(number)
                else:
                    with contextlib.suppress(BrokenPipeError):
                        process.stdin.close()

    def _kill(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _mark(lines: IO[bytes], label: str) -> None:
    """Copies a process's lines to the terminal, marked as its own."""
    for line in lines:
        sys.stdout.write(f"[{label}] {line.decode(errors='replace').rstrip()}\n")
        sys.stdout.flush()


class Job:
    """A group that is started again when it fails.

    Attributes:
        group: its processes.
        retries: how often it is started again.
        pause: seconds before it is.
    """

    def __init__(self, group: Group, retries: int, pause: float, say: Callable[[str], None] = say) -> None:
        self.group, self.retries, self.pause, self.say = group, retries, pause, say
        self.tries = 0
        self._stopped: int | None = None
        self._resume_at: float | None = None

    def start(self) -> None:
        """Starts the group.

        Raises:
            OSError: a command cannot be started.
        """
        self.tries += 1
        self._resume_at = None
        self.group.start()

    def poll(self) -> int | None:
        """The exit code when all is over, else None; starts again what has failed."""
        if self._resume_at is not None:
            if self._stopped is not None:
                return 128 + self._stopped
            if time.monotonic() >= self._resume_at:
                self.start()
            return None
        code = self.group.poll()
        if code is None or code in FINAL or self._stopped is not None or self.tries > self.retries:
            return code
        self.say(f"ended with code {code}; try {self.tries + 1} of {self.retries + 1} in {self.pause:g} s")
        self._resume_at = time.monotonic() + self.pause
        return None

    def stop(self, number: int) -> None:
        """Passes a signal on to all processes; nothing is started after it."""
        self._stopped = number
        if self._resume_at is None:
            self.group.stop(number)


def run(job: Job) -> int:
    """Walks a job to its end in the foreground; SIGTERM and SIGINT go on to its processes.

    Returns:
        The exit code.

    Raises:
        OSError: a command cannot be started.
    """
    received: list[int] = []  # acted on between two looks: a handler may run while a process is being started
    note = lambda number, frame: received.append(number)
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        job.start()
        while (code := job.poll()) is None:
            while received:
                job.stop(received.pop(0))
            time.sleep(POLL)
        return code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def call(command: Sequence[str]) -> int:
    """Runs one command, once, to its end; see `run`."""
    return run(Job(Group([command]), 0, 0.0))


def main(argv: Sequence[str]) -> int:
    """Supervises what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="genjax.api.supervise", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--retries", type=int, default=3, help="how often a failed group is started again")
    parser.add_argument("--pause", type=float, default=10.0, help="seconds before it is")
    parser.add_argument(
        "--grace", type=float, default=60.0, help="seconds from asking processes to killing them"
    )
    parser.add_argument(
        "--labels", default="", help="marks of the processes' lines, with commas between them"
    )
    parser.add_argument(
        "--stop", choices=("signal", "stdin"), default="signal", help="how processes are asked to end"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND [::: COMMAND]...")
    flags = parser.parse_args(argv)
    commands = split(flags.command[1:] if flags.command[:1] == ["--"] else flags.command)
    if not commands:
        parser.error("no command after --")
    group = Group(
        commands,
        labels=flags.labels.split(",") if flags.labels else (),
        grace=flags.grace,
        by_stdin=flags.stop == "stdin",
    )
    try:
        return run(Job(group, flags.retries, flags.pause))
    except OSError as error:
        print(f"error: cannot start {error.filename}: {error.strerror}", file=sys.stderr)
        return MISTAKE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
