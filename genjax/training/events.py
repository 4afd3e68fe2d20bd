"""TensorBoard events, written by the calling thread: `tensorboardX.SummaryWriter` loses the errors of a full disk."""

import contextlib
import socket
import time
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

FLUSH = 10.0  # seconds after which events are on disk


class Events:
    """One file of events; methods raise OSError."""

    def __init__(self, folder: Path, start: int, suffix: str):
        """Opens a new file.

        Args:
            folder: created if missing.
            start: readers drop events of earlier files after this step.
            suffix: of the file's name; files opened within the same second differ by it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}{suffix}"
        self._file, self._flushed = RecordWriter(str(folder / name)), time.monotonic()
        log = SessionLog(status=SessionLog.START)
        try:
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
            self._write(Event(wall_time=time.time(), step=start + 1, session_log=log))
            self._file.flush()
        except OSError:
            with contextlib.suppress(OSError):
                self._file.close()
            raise

    def _write(self, event: Event) -> None:
        self._file.write(event.SerializeToString())
        if time.monotonic() - self._flushed > FLUSH:
            self._file.flush()
            self._flushed = time.monotonic()

    def _add(self, step: int, values: object) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=values))

    def scalar(self, step: int, name: str, value: float) -> None:
        """Writes a number."""
        self._add(step, summary.scalar(name, value))

    def image(self, step: int, name: str, pixels: UInt8[ndarray, "h w 3"]) -> None:
        """Writes an image."""
        self._add(step, summary.image(name, np.asarray(pixels), dataformats="HWC"))

    def text(self, step: int, name: str, markdown: str) -> None:
        """Writes a text."""
        self._add(step, summary.text(name, markdown))

    def close(self) -> None:
        """Flushes and closes the file."""
        try:
            self._file.flush()
        finally:
            self._file.close()
