"""Recordings of different lengths in one .npz file, as audio of one length.

The file holds the concatenated samples of all clips, `audio` [total] or [total, c], and `offsets` [clips + 1], from 0
to total: clip i is audio[offsets[i] : offsets[i + 1]]. Shorter clips are padded with zeros to `length`, longer ones
truncated. The padding is part of the modelled data.
"""

import dataclasses
import functools
import math
from typing import ClassVar

import numpy as np
from jaxtyping import Int, Shaped

from genjax.core.errors import UserError, nearest
from genjax.data.examples import Table
from genjax.data.labels import check_labels, number_labels
from genjax.data.npz_files import check_finite, read_array, read_header, read_names
from genjax.data.source import Kind, check_split, dtype_levels, split_rows


@dataclasses.dataclass(frozen=True)
class Clips:
    """Audio [length, c] from an .npz file of recordings.

    Attributes:
        path: the file.
        length: samples of each example.
        rate: sampling rate in Hz; not read from the file.
        classes: number of labels 0 ... classes - 1; 0 ignores the labels.
        channels: c of the array `audio`.
        dtype: of the array `audio`: "int16", or floating point in [-1, 1].
        label: name of the labels' array, see `labels`.
        held_out: name of an array [clips] that is true for the clips of the test split; without it, the test split is a
            fixed random tenth.

    Raises:
        UserError: by `load`, if the file is missing or damaged, or does not match these fields.
    """

    path: str
    length: int = 4096
    rate: int = 8000
    classes: int = 0
    channels: int = 1
    dtype: str = "int16"
    label: str = "label"
    held_out: str = "is_test"

    kind: ClassVar[Kind] = "audio"
    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    def __post_init__(self) -> None:
        if min(self.length, self.rate, self.channels) < 1 or self.classes < 0:
            raise UserError(
                f"length={self.length}, rate={self.rate} and channels={self.channels} must be at least 1, "
                f"classes={self.classes} at least 0"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """(length, channels)."""
        return (self.length, self.channels)

    @property
    def levels(self) -> int:
        """Number of values of a sample; 0 for floating point."""
        return dtype_levels(self.dtype, f"the audio of {self.path}")

    def load(self, split: str) -> Table:
        """Reads one split; see `Source.load`."""
        check_split(split, self.splits)
        audio, offsets = self._arrays["audio"], self._arrays["offsets"]
        rows = self._rows(split, len(offsets) - 1)
        arrays = {"x": pad_or_truncate(audio, offsets[:-1][rows], offsets[1:][rows], self.length)}
        if self.classes:
            arrays["label"] = self._arrays["label"][rows]
        return Table(arrays)

    def _rows(self, split: str, num: int) -> Int[np.ndarray, " rows"]:
        """Indices of the clips of a split."""
        held_out = self._arrays.get("held_out")
        if held_out is None:
            return split_rows(num, 0.1, split)
        values = (
            held_out.shape == (num,) and held_out.dtype.kind in "biu" and set(np.unique(held_out).tolist())
        )
        if values != {False, True}:
            raise UserError(
                f"'{self.held_out}' of {self.path} must split the {num} clips in two parts, by one boolean for each"
            )
        return np.flatnonzero(held_out.astype(bool) == (split == "test"))

    @functools.cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        """The arrays "audio" and "offsets", and "label" and "held_out" where they apply."""
        known = read_names(self.path)
        wanted = {"audio": "audio", "offsets": "offsets"}
        wanted |= {"label": self.label} if self.classes else {}
        wanted |= {"held_out": self.held_out} if self.held_out in known else {}
        for key in wanted.values():
            if key not in known:
                raise UserError(f"no array '{key}' in {self.path}: {nearest(key, known)}")
        header = read_header(self.path, "audio")
        channels, dtype = math.prod(header.shape[1:]), header.dtype.name
        if len(header.shape) > 2 or dtype != self.dtype or channels != self.channels:
            raise UserError(
                f"the audio of {self.path} is {dtype} with {channels} channels, not {self.dtype} with "
                f"{self.channels}: set dtype and channels, which come last"
            )
        found = {name: read_array(self.path, key) for name, key in wanted.items()}
        found["offsets"] = self._checked_offsets(found["offsets"], header.shape[0])
        if self.classes:
            found["label"] = self._checked_labels(found["label"], len(found["offsets"]) - 1)
        self._check_amplitudes(found["audio"], found["offsets"])
        return found | {"audio": found["audio"].reshape(-1, self.channels)}

    def _checked_offsets(self, offsets: np.ndarray, total: int) -> Int[np.ndarray, " n"]:
        message = f"offsets of {self.path} must increase from 0 to the {total} samples, for two clips or more"
        if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or len(offsets) < 3:
            raise UserError(message)
        if offsets[0] != 0 or offsets[-1] != total or (offsets[1:] <= offsets[:-1]).any():
            raise UserError(message)
        return offsets.astype(np.int64)

    def _checked_labels(self, label: np.ndarray, num: int) -> Int[np.ndarray, " n"]:
        what = f"'{self.label}' of {self.path}"
        if len(label) != num:
            raise UserError(f"{what} has {len(label)} labels for {num} clips")
        numbering, (numbered,) = number_labels([label], what)
        if numbering.names and numbering.classes != self.classes:
            raise UserError(f"{what} has {numbering.classes} names: set classes={numbering.classes}")
        check_labels(numbered, self.classes, what)
        return numbered

    def _check_amplitudes(self, audio: np.ndarray, offsets: np.ndarray) -> None:
        what = f"the audio of {self.path}"
        check_finite(audio, what, "sample")
        if (
            audio.dtype.kind == "f"
            and (beyond := (np.abs(audio) > 1).reshape(len(audio), -1).any(axis=1)).any()
        ):
            clip = int(np.searchsorted(offsets, beyond.argmax(), side="right")) - 1
            raise UserError(f"{what} has amplitudes outside [-1, 1] in clip {clip}: scale it")


def pad_or_truncate(
    audio: Shaped[np.ndarray, "total c"],
    starts: Int[np.ndarray, " n"],
    ends: Int[np.ndarray, " n"],
    length: int,
) -> Shaped[np.ndarray, "n length c"]:
    """The clips audio[start : end] as rows of one length, truncated or padded with zeros.

    Args:
        audio: concatenated samples of all clips.
        starts: first sample of each clip.
        ends: the sample after its last.
        length: of the rows.

    Returns:
        One row per clip, in the dtype of `audio`.
    """
    rows = np.zeros((len(starts), length, audio.shape[1]), audio.dtype)
    for row, start, end in zip(rows, starts, ends, strict=True):
        row[: end - start] = audio[start : min(end, start + length)]
    return rows
