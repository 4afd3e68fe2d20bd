"""A folder of recordings: .wav files, which `wave_files` reads as int16; for splits and classes see `files`.

A recording of n samples gives max(1, floor(n / length)) examples: disjoint segments of `length` samples from the start,
without the remainder; a shorter recording is padded with zeros, an empty one is refused. Segments are read by seeking,
so that recordings may be of any size.
"""

import dataclasses
import functools
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from genjax.core.errors import UserError
from genjax.core.tree import tunable
from genjax.data.examples import Table, in_memory
from genjax.data.source import Kind
from genjax.data.sources.files import Files
from genjax.data.wave_files import WaveFile, read_wave, read_wave_header

CHUNK = 1024
SUFFIXES = (".wav",)
BYTES = 2  # of a sample


@dataclasses.dataclass(frozen=True, eq=False)
class Recordings:
    """Segments of .wav files, read on access.

    Attributes:
        files: their headers.
        file: index of the file of each example, [n].
        start: first sample of each example in its file, [n].
        label: int32 [n], or None.
        length: samples of an example.
        channels: of every file.
    """

    files: tuple[WaveFile, ...]
    file: np.ndarray
    start: np.ndarray
    label: np.ndarray | None
    length: int
    channels: int

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        """Raises UserError for a file that cannot be read."""
        x = np.zeros((len(indices), self.length, self.channels), np.int16)
        for row, index in zip(x, indices, strict=True):
            file, start = self.files[self.file[index]], int(self.start[index])
            count = min(self.length, file.samples - start)
            row[:count] = read_wave(file, start, count)
        return {"x": x} if self.label is None else {"x": x, "label": self.label[indices]}


@dataclasses.dataclass(frozen=True)
class SoundFolder:
    """Audio [length, c] from the recordings of a folder.

    Attributes:
        path: the folder.
        length: samples of each example.
        rate: sampling rate of every file, in Hz.
        channels: of every file.
        test: fraction of files in the test split if the folder has no splits.
        memory_mib: MiB of audio up to which a split is read into memory, once; segments of a larger split are read on
            access (see `loading.Input.workers`). Tunable.

    Raises:
        UserError: by `load`, if a file is damaged, empty, or differs in channels or rate.
    """

    path: str
    length: int = 4096
    rate: int = 8000
    channels: int = 1
    test: float = 0.1
    memory_mib: int = tunable(4096)

    kind: ClassVar[Kind] = "audio"
    dtype: ClassVar[str] = "int16"
    levels: ClassVar[int] = 65_536
    splits: ClassVar[tuple[str, ...]] = Files.splits

    def __post_init__(self) -> None:
        if min(self.length, self.rate, self.channels) < 1:
            raise UserError(
                f"length={self.length}, rate={self.rate} and channels={self.channels} must be at least 1"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """(length, channels)."""
        return (self.length, self.channels)

    @property
    def classes(self) -> int:
        """Number of classes; 0 without, see `files`."""
        return len(self._files.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by number."""
        return self._files.classes

    def describe(self) -> str:
        """What was read, in one line."""
        return f"{self._files.describe()}; read as {self.length}x{self.channels} samples at {self.rate} Hz, int16"

    def load(self, split: str) -> Table | Recordings:
        """Reads the headers of one split's files, and the audio if it takes at most `memory_mib`; see `Source.load`."""
        files = tuple(self._header(path) for path in self._files.paths(split))
        counts = np.array([max(1, file.samples // self.length) for file in files])
        file = np.repeat(np.arange(len(files)), counts)
        first = np.cumsum(counts) - counts
        start = (np.arange(len(file)) - first[file]) * self.length
        label = self._files.labels(split)
        label = None if label is None else label[file]
        recordings = Recordings(files, file, start, label, self.length, self.channels)
        if len(file) * self.length * self.channels * BYTES > self.memory_mib * 2**20:
            return recordings
        return in_memory(recordings, CHUNK)

    def _header(self, path: str) -> WaveFile:
        """The header of a file, which must have this source's channels and rate."""
        found = read_wave_header(path)
        if (found.channels, found.rate) != (self.channels, self.rate):
            raise UserError(
                f"'{path}' has {found.channels} channels at {found.rate} Hz, not {self.channels} at {self.rate} Hz: "
                "set channels and rate, or convert it"
            )
        return found

    @functools.cached_property
    def _files(self) -> Files:
        return Files(self.path, SUFFIXES, "recordings", self.test)
