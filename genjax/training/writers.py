"""What a run writes for people: `metrics.jsonl`, TensorBoard events, samples, and a line on the terminal.

    workdir/metrics.jsonl             one strict JSON object per line: {"step", "time", metrics ...}
    workdir/samples/NAME_STEP.png     pictures (or .txt)
    workdir/tensorboard/              all of that as TensorBoard events

Only process 0 writes; on the others every method does nothing.
"""

import io
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

METRICS = "metrics.jsonl"  # in the work directory


def _number(value: Any) -> int | float | str:
    """A JSON value; what JSON has no number for becomes "nan", "inf" or "-inf", which `float` reads back."""
    number = np.asarray(value).item()
    return number if isinstance(number, int) or math.isfinite(number) else str(float(number))


def kept(path: Path, last: int) -> Iterator[dict[str, Any]]:
    """The lines of a file of metrics that are whole and not of a step after `last`; none if there is no file."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            row = json.loads(line, parse_constant=refuse)
        except ValueError:
            continue  # cut short when the run was killed
        if isinstance(row, dict) and isinstance(row.get("step"), int) and row["step"] <= last:
            yield row


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that whenever the program is killed the old or the new one is there, whole."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _resume(path: Path, last: int) -> float:
    """Drops the lines after step `last`, and what a kill left of a line; returns the time of the last one."""
    if not path.exists():
        return 0.0
    rows = list(kept(path, last))
    write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))
    return float(rows[-1].get("time", 0.0)) if rows else 0.0


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Progress:
    """One line about where a run is: rewritten in place on a terminal, appended elsewhere."""

    def __init__(self, total: int, start: int, items: int = 0, stream: io.TextIOBase | None = None):
        """Starts the clock.

        Args:
            total: steps of the whole run.
            start: the step that the run begins or resumes at.
            items: examples in a step; 0 leaves their rate out.
            stream: where the line goes; the standard output if None.
        """
        self._total, self._items = total, items
        self._stream: TextIO | io.TextIOBase = stream or sys.stdout
        self._last = start, time.perf_counter()
        self._width = 0

    def show(self, step: int, metrics: Mapping[str, int | float | str]) -> None:
        """Writes the line: step, share done, rates since the last line, time to go, losses.

        Args:
            step: number of steps taken.
            metrics: those whose last word is "loss" are shown, or all of them if there are none.
        """
        words = [f"{step}/{self._total}", f"{100 * step / max(self._total, 1):.1f}%"]
        (before, then), now = self._last, time.perf_counter()
        if step > before:
            rate = (step - before) / max(now - then, 1e-9)
            words.append(f"{rate:.3g} steps/s")
            words += [f"{rate * self._items:.4g} items/s"] if self._items else []
            words.append(f"ETA {_clock((self._total - step) / rate)}")
            self._last = step, now
        losses = [name for name in metrics if name.split("/")[-1] == "loss"]
        words += [f"{name} {float(metrics[name]):.4g}" for name in losses or metrics]
        self._print("  ".join(words))

    def _print(self, line: str) -> None:
        if not self._stream.isatty():
            self._stream.write(line + "\n")
        else:
            line = line[: shutil.get_terminal_size().columns - 1]
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        self._stream.flush()

    def close(self) -> None:
        """Ends the line on a terminal."""
        if self._width:
            self._stream.write("\n")
            self._stream.flush()


class Writer:
    """The writers of one run; a context manager."""

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        total_steps: int,
        start: int = 0,
        items: int = 0,
        stream: io.TextIOBase | None = None,
    ):
        """Opens the files of a run, or takes them up again.

        Args:
            workdir: made if missing.
            total_steps: steps of the whole run, for the share done and the time to go.
            start: the step restored; what was written about later ones is dropped.
            items: examples in a step, for the rate of items; 0 leaves that out.
            stream: where progress is shown; the standard output if None.
        """
        self._active = jax.process_index() == 0
        if not self._active:
            return
        self._workdir = Path(workdir)
        self._samples = self._workdir / "samples"
        self._samples.mkdir(parents=True, exist_ok=True)
        path = self._workdir / METRICS
        self._begun = time.perf_counter() - _resume(path, start)
        self._metrics = path.open("a")
        # The process's number: event files of one second would have one name.
        self._board = SummaryWriter(
            str(self._workdir / "tensorboard"),
            purge_step=start + 1,
            filename_suffix=f".{os.getpid()}.{start}",
        )
        self._progress = Progress(total_steps, start, items, stream)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Flushes and closes the files."""
        if self._active:
            self._active = False
            self._progress.close()
            self._metrics.close()
            self._board.close()

    def scalars(self, step: int, values: Mapping[str, Any], shown: bool = True) -> None:
        """Writes one line of metrics and, unless told not to, shows it.

        "time" is wall-clock seconds since the run began, without the time between a stop and a resume.

        Args:
            step: number of steps taken.
            values: name -> scalar of any numeric type; "step" and "time" are taken.
            shown: whether the terminal's line of progress is written too.
        """
        if not self._active:
            return
        numbers = {name: _number(value) for name, value in values.items()}
        row = {"step": int(step), "time": round(time.perf_counter() - self._begun, 3), **numbers}
        self._metrics.write(json.dumps(row, allow_nan=False) + "\n")
        self._metrics.flush()
        for name, number in numbers.items():
            self._board.add_scalar(name, float(number), step)
        if shown:
            self._progress.show(int(step), numbers)

    def image(self, step: int, name: str, picture: Image.Image) -> None:
        """Saves a picture as samples/NAME_STEP.png, slashes in the name as underscores."""
        if not self._active:
            return
        picture.save(self._sample(step, name, "png"))
        self._board.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def text(self, step: int, name: str, text: str) -> None:
        """Saves a text as samples/NAME_STEP.txt, slashes in the name as underscores."""
        if not self._active:
            return
        self._sample(step, name, "txt").write_text(text)
        markdown = "".join(f"    {line}\n" for line in text.split("\n"))  # indented: shown as it is
        self._board.add_text(name, markdown, step)

    def _sample(self, step: int, name: str, ending: str) -> Path:
        return self._samples / f"{name.replace('/', '_')}_{step:08}.{ending}"
