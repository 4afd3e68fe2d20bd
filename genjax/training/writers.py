"""The log of a run: `metrics.jsonl`, TensorBoard events, samples, and a progress line on the terminal.

    workdir/metrics.jsonl             one strict JSON object per line: {"step", "time", metrics ...}
    workdir/samples/NAME_STEP.png     images (or .txt)
    workdir/tensorboard/              all of these as TensorBoard events

Only process 0 writes; on other processes all methods do nothing.
"""

import contextlib
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

from genjax.core.errors import UserError
from genjax.core.files import replacing, write_atomic, writing
from genjax.training import description, format_1
from genjax.training.events import Events

METRICS = "metrics.jsonl"  # in the work directory


def _number(value: Any) -> int | float | str:
    """A JSON number; NaN and infinities become the strings "nan", "inf" and "-inf", which `float` parses."""
    number = np.asarray(value).item()
    return number if isinstance(number, int) or math.isfinite(number) else str(float(number))


def metric_rows(path: Path, last: int | None = None) -> Iterator[dict[str, Any]]:
    """The complete rows of metrics.jsonl; metrics of a run of format 1 have their present names.

    Args:
        path: of the file, in the work directory.
        last: step of the last row; None for all rows.

    Yields:
        The rows; none if there is no file.
    """
    old = description.is_old(path.parent)

    def refuse(word: str) -> None:
        raise ValueError(word)

    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            row = json.loads(line, parse_constant=refuse)
        except ValueError:
            continue  # cut short when the run was killed
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            continue
        if last is None or row["step"] <= last:
            yield format_1.upgrade_metrics(row) if old else row


def rewrite_metrics(path: Path, last: int | None = None) -> list[dict[str, Any]]:
    """Replaces metrics.jsonl by its `metric_rows`, and returns these."""
    rows = list(metric_rows(path, last))
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def _resume(path: Path, last: int) -> float:
    """Drops incomplete rows and those after step `last` from metrics.jsonl; returns the time of the last row."""
    if not path.exists():
        return 0.0
    rows = rewrite_metrics(path, last)
    return float(rows[-1].get("time", 0.0)) if rows else 0.0


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Progress:
    """A progress line: rewritten in place on a terminal, appended elsewhere."""

    def __init__(self, total: int, start: int, items: int = 0, stream: io.TextIOBase | None = None):
        """Starts the clock.

        Args:
            total: steps of the whole run.
            start: the step at which the run starts or resumes.
            items: examples in a step; 0 omits their rate.
            stream: output; standard output if None.
        """
        self._total, self._items = total, items
        self._stream: TextIO | io.TextIOBase = stream or sys.stdout
        self._last = start, time.perf_counter()
        self._width = 0

    def show(self, step: int, metrics: Mapping[str, int | float | str]) -> None:
        """Writes the line: step, percentage, rates since the last line, remaining time, losses.

        Args:
            step: number of steps taken.
            metrics: by name; shows those whose last part is "loss", or all if there are none.
        """
        parts = [f"{step}/{self._total}", f"{100 * step / max(self._total, 1):.1f}%"]
        (before, then), now = self._last, time.perf_counter()
        if step > before:
            rate = (step - before) / max(now - then, 1e-9)
            parts.append(f"{rate:.3g} steps/s")
            parts += [f"{rate * self._items:.4g} items/s"] if self._items else []
            parts.append(f"ETA {_clock((self._total - step) / rate)}")
            self._last = step, now
        losses = [name for name in metrics if name.split("/")[-1] == "loss"]
        parts += [f"{name} {float(metrics[name]):.4g}" for name in losses or metrics]
        self._print("  ".join(parts))

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
    """Writes the log of one run; a context manager."""

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        total_steps: int,
        start: int = 0,
        items: int = 0,
        stream: io.TextIOBase | None = None,
    ):
        """Opens the log of a new run, or continues that of a resumed run.

        Args:
            workdir: created if missing.
            total_steps: steps of the whole run, for percentage and remaining time.
            start: the restored step; rows of later steps are dropped.
            items: examples in a step, for their rate; 0 omits it.
            stream: output of the progress line; standard output if None.
        """
        self._active = jax.process_index() == 0
        if not self._active:
            return
        self._workdir = Path(workdir)
        self._samples = self._workdir / "samples"
        path = self._workdir / METRICS
        with writing(self._workdir), contextlib.ExitStack() as opened:
            self._samples.mkdir(parents=True, exist_ok=True)
            self._started = time.perf_counter() - _resume(path, start)
            self._metrics = opened.enter_context(path.open("a"))
            self._board = Events(self._workdir / "tensorboard", start, f".{os.getpid()}.{start}")
            opened.pop_all()  # `close` closes them
        self._progress = Progress(total_steps, start, items, stream)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        try:
            self.close()
        except UserError:
            if kind is None:  # else the exception in flight takes precedence
                raise

    def close(self) -> None:
        """Flushes and closes the files."""
        if self._active:
            self._active = False
            self._progress.close()
            with writing(self._workdir), contextlib.closing(self._board):
                self._metrics.close()

    def scalars(self, step: int, values: Mapping[str, Any], shown: bool = True) -> None:
        """Writes one row of metrics.

        "time" is wall-clock seconds since the run started, without the time between a stop and a resume.

        Args:
            step: number of steps taken.
            values: name -> scalar of any numeric type; the names "step" and "time" are reserved.
            shown: whether to write the progress line too.
        """
        if not self._active:
            return
        numbers = {name: _number(value) for name, value in values.items()}
        row = {"step": int(step), "time": round(time.perf_counter() - self._started, 3), **numbers}
        with writing(self._workdir):
            self._metrics.write(json.dumps(row, allow_nan=False) + "\n")
            self._metrics.flush()
            for name, number in numbers.items():
                self._board.scalar(int(step), name, float(number))
        if shown:
            self._progress.show(int(step), numbers)

    def image(self, step: int, name: str, picture: Image.Image) -> None:
        """Saves an image as samples/NAME_STEP.png, and as an event.

        Args:
            step: number of steps taken.
            name: slashes become underscores in the file's name.
            picture: of any mode.
        """
        if not self._active:
            return
        with writing(self._workdir):
            with replacing(self._sample(step, name, "png")) as path:
                picture.save(path)
            self._board.image(step, name, np.asarray(picture.convert("RGB")))

    def text(self, step: int, name: str, text: str) -> None:
        """Saves a text as samples/NAME_STEP.txt, and as an event.

        Args:
            step: number of steps taken.
            name: slashes become underscores in the file's name.
            text: of one or several lines.
        """
        if not self._active:
            return
        with writing(self._workdir):
            write_atomic(self._sample(step, name, "txt"), text)
        markdown = "".join(
            f"    {line}\n" for line in text.split("\n")
        )  # indented: TensorBoard shows it verbatim
        with writing(self._workdir):
            self._board.text(step, name, markdown)

    def _sample(self, step: int, name: str, ending: str) -> Path:
        return self._samples / f"{name.replace('/', '_')}_{step:08}.{ending}"
