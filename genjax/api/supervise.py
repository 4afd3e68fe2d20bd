"""Runs a group of processes, ends all when one fails, and restarts them; used by the launchers.

python -m genjax.api.supervise [--retries=3] [--pause=10] [--grace=60] [--labels=A,B] -- COMMAND [::: COMMAND]...

Exit codes of the programs: 0 done; 2 user error; 130, 143 saved and stopped by SIGINT, SIGTERM; 75 another process of
the run died or hung; anything else is a crash. A group that ends with a code other than 0 and 2 is restarted, at most
`retries` times; the same command resumes a run. A signal to the supervisor is forwarded to all processes and disables
restarts. The exit code is that of the process that failed first (2 takes precedence among simultaneous failures).

Only the standard library is used: the module runs where neither jax nor the project is installed.
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
FINAL = (DONE, MISTAKE)  # exit codes that are not retried
ANY_PORT = "--coordinator=localhost:0"
BETWEEN = ":::"  # separator of the commands of a group
POLL = 0.05  # seconds


def say(line: str) -> None:
    """Prints a message of the supervisor to stderr."""
    print(f"launch: {line}", file=sys.stderr, flush=True)


def free_port() -> int:
    """A free TCP port of this machine."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def split(words: Sequence[str]) -> list[list[str]]:
    """Splits words at ":::" into commands; empty commands are dropped."""
    commands: list[list[str]] = [[]]
    for word in words:
        if word == BETWEEN:
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


class Group:
    """Processes that start together and are ended together.

    Attributes:
        commands: one command for each process. A word "--coordinator=localhost:0" gets a free port at each start.
        labels: prefixes of the output lines of all processes but the first, whose output is not prefixed.
        grace: seconds from the request to end until processes are killed.
        by_stdin: request the end by closing standard input instead of a signal.
        log: file to append all output to, instead of the terminal.
        cores: CPU cores that the processes may use; None for all.
        env: environment of the processes; None for this process's.
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
        """Starts all processes in new sessions, so that Ctrl-C reaches the supervisor alone.

        Raises:
            OSError: a command cannot be started; processes started before it are killed.
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
        """Sets the CPU affinity of this thread and its children; returns the previous one."""
        if cores is None or not hasattr(os, "sched_setaffinity"):
            return None
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)
        return before

    def poll(self) -> int | None:
        """The exit code once all processes have ended, else None; ends the others when one fails."""
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
                say(f"killing the remaining processes after {self.grace:g} s")
                self._kill()
            return None
        for reader in self._readers:
            reader.join(timeout=1.0)  # a grandchild may keep the pipe open
        return self._code or DONE

    def stop(self, number: int) -> None:
        """Requests all processes to end, by a signal or by closing standard input; `poll` kills them after `grace`."""
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
    """Copies a process's output to stdout, each line prefixed with its label."""
    for line in lines:
        sys.stdout.write(f"[{label}] {line.decode(errors='replace').rstrip()}\n")
        sys.stdout.flush()


class Job:
    """A group that is restarted when it fails.

    Attributes:
        group: its processes.
        retries: most restarts.
        pause: seconds before a restart.
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
        """The exit code once the job has ended, else None; restarts a failed group after the pause."""
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
        """Forwards a signal to all processes and disables restarts."""
        self._stopped = number
        if self._resume_at is None:
            self.group.stop(number)


def run(job: Job) -> int:
    """Runs a job to its end in the foreground; forwards SIGTERM and SIGINT to its processes.

    Returns:
        The exit code.

    Raises:
        OSError: a command cannot be started.
    """
    received: list[int] = []  # handled between polls: a handler may run while a process is being started
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
    """Runs one command to its end without retries; see `run`."""
    return run(Job(Group([command]), 0, 0.0))


def main(argv: Sequence[str]) -> int:
    """Supervises the commands of the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="genjax.api.supervise", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--retries", type=int, default=3, help="most restarts of a failed group")
    parser.add_argument("--pause", type=float, default=10.0, help="seconds before a restart")
    parser.add_argument(
        "--grace", type=float, default=60.0, help="seconds from the request to end until processes are killed"
    )
    parser.add_argument(
        "--labels", default="", help="comma-separated prefixes of the processes' output lines"
    )
    parser.add_argument(
        "--stop", choices=("signal", "stdin"), default="signal", help="how to request processes to end"
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
