"""Failure detection from heartbeats and elapsed time, without clocks or sockets.

A process is lost if

- no heartbeat arrived for `limit` seconds. A separate thread sends the heartbeats, so they continue during
  compilation, evaluation and everything else in the main thread;
- or it has been stuck at one step for `limit` seconds, no process is at an earlier step, and all processes expect a
  step, that is, they are between steps that are compiled already. So compilation, checkpoints, pictures and evaluation
  may take any time on any of the processes.

A closed connection is detected and reported elsewhere, at once.
"""

from dataclasses import dataclass, field


@dataclass
class ProcessStatus:
    """The last known status of one process.

    Attributes:
        silent: seconds since its last heartbeat.
        still: seconds since its last step, or since a step became due.
        step: the last completed step.
        due: whether its next step only computes (no compilation, checkpoint or evaluation).
    """

    silent: float = 0.0
    still: float = 0.0
    step: int = -1
    due: bool = False


@dataclass
class FailureDetector:
    """Tracks the connected processes and reports those that are silent or stuck for too long.

    Attributes:
        limit: timeout in seconds, for heartbeats and for a step.
        processes: status by process index.
    """

    limit: float
    processes: dict[int, ProcessStatus] = field(default_factory=dict)

    def add(self, process: int) -> None:
        """Starts tracking a process."""
        self.processes[process] = ProcessStatus()

    def remove(self, process: int) -> None:
        """Stops tracking a process, because it is done."""
        self.processes.pop(process, None)

    def heartbeat(self, process: int, step: int, due: bool) -> None:
        """Records a heartbeat.

        Args:
            process: index of the process; ignored if it is not tracked.
            step: its last completed step.
            due: whether its next step is expected within the limit.
        """
        status = self.processes.get(process)
        if status is None:
            return
        status.silent = 0.0
        if step != status.step or not due or not status.due:
            status.still = 0.0
        status.step, status.due = step, due

    def advance(self, seconds: float) -> list[tuple[int, str]]:
        """Advances the time.

        Args:
            seconds: since the last call, not counting time in which the caller itself was suspended.

        Returns:
            The lost processes, each with the reason.
        """
        for status in self.processes.values():
            status.silent += seconds
            status.still += seconds
        lost = [
            (process, f"has been silent for {status.silent:.0f} s")
            for process, status in self.processes.items()
            if status.silent > self.limit
        ]
        if lost or not self.processes or not all(status.due for status in self.processes.values()):
            return lost
        first = min(status.step for status in self.processes.values())
        return [
            (process, f"has been stuck after step {first} for {status.still:.0f} s")
            for process, status in self.processes.items()
            if status.step == first and status.still > self.limit
        ]
