"""Who is lost: a decision from what was heard of processes and the time since, without clocks or sockets.

A process is lost that

- was not heard of for `limit` seconds: its pulse comes from a thread, which goes on through compilation, evaluation
  and everything else that a process that runs at all can be busy with;
- or has stood at one step for `limit` seconds and no process is at an earlier one, while all are where a step is
  expected: between steps that are compiled already. So a compilation, a checkpoint, pictures and evaluation may take
  as long as they like on any of the processes.

A connection that ends is another matter: whoever sees it says so at once.
"""

from dataclasses import dataclass, field


@dataclass
class Seen:
    """One process as it was heard of last.

    Attributes:
        silent: seconds since anything was heard of it.
        still: seconds since it took a step, or began to be expected to.
        step: the last one taken.
        due: whether its next step is a matter of computing it alone.
    """

    silent: float = 0.0
    still: float = 0.0
    step: int = -1
    due: bool = False


@dataclass
class Judge:
    """The processes that are there, and how long they may be silent or stand still.

    Attributes:
        limit: seconds.
        seen: processes by index.
    """

    limit: float
    seen: dict[int, Seen] = field(default_factory=dict)

    def joined(self, process: int) -> None:
        """A process has come."""
        self.seen[process] = Seen()

    def left(self, process: int) -> None:
        """A process has done all that it was to do."""
        self.seen.pop(process, None)

    def heard(self, process: int, step: int, due: bool) -> None:
        """A sign of life: the last step taken, and whether the next is expected within the limit."""
        seen = self.seen.get(process)
        if seen is None:
            return
        seen.silent = 0.0
        if step != seen.step or not due or not seen.due:
            seen.still = 0.0
        seen.step, seen.due = step, due

    def passed(self, seconds: float) -> list[tuple[int, str]]:
        """Lets time pass.

        Args:
            seconds: since the last call, as far as the caller itself was running.

        Returns:
            Processes that are lost now, and why.
        """
        for seen in self.seen.values():
            seen.silent += seconds
            seen.still += seconds
        lost = [
            (process, f"has been silent for {seen.silent:.0f} s")
            for process, seen in self.seen.items()
            if seen.silent > self.limit
        ]
        if lost or not self.seen or not all(seen.due for seen in self.seen.values()):
            return lost
        first = min(seen.step for seen in self.seen.values())
        return [
            (process, f"has been stuck after step {first} for {seen.still:.0f} s")
            for process, seen in self.seen.items()
            if seen.step == first and seen.still > self.limit
        ]
