"""Recordings of different lengths in one .npz file, as audio of one length.

The file holds the concatenated samples of all clips, `audio` [total] or [total, c], and `offsets` [clips + 1]: clip i
is audio[offsets[i] : offsets[i + 1]]. Shorter clips are padded with zeros to `length`, longer ones truncated. The
padding is part of the modelled data.
"""

import dataclasses
import functools
from typing import ClassVar

import numpy as np
from jaxtyping import Int, Shaped

from genjax.core.errors import UserError, nearest
from genjax.data.examples import Table
from genjax.data.source import Kind, check_split, dtype_levels, split_rows
from genjax.data.sources.arrays import open_npz, read_header


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
        label: name of the labels' array [clips].
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
        if len(offsets) < 3 or offsets[0] < 0 or offsets[-1] > len(audio) or (np.diff(offsets) < 1).any():
            raise UserError(
                f"offsets of {self.path} must increase from 0 to the {len(audio)} samples, for two clips or more"
            )
        rows = self._rows(split, len(offsets) - 1)
        arrays = {"x": pad_or_truncate(audio, offsets[:-1][rows], offsets[1:][rows], self.length)}
        if self.classes:
            label = self._arrays["label"]
            if len(label) != len(offsets) - 1 or label.min() < 0 or label.max() >= self.classes:
                raise UserError(
                    f"'{self.label}' of {self.path} must hold an integer in 0 ... {self.classes - 1} for each clip"
                )
            arrays["label"] = label[rows].astype(np.int32)
        return Table(arrays)

    def _rows(self, split: str, num: int) -> Int[np.ndarray, " rows"]:
        """Indices of the clips of a split."""
        held_out = self._arrays.get("held_out")
        if held_out is None:
            return split_rows(num, 0.1, split)
        if len(held_out) != num or not 0 < np.count_nonzero(held_out) < num:
            raise UserError(f"'{self.held_out}' of {self.path} must split the {num} clips in two parts")
        return np.flatnonzero(held_out.astype(bool) == (split == "test"))

    @functools.cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        """The arrays "audio" and "offsets", and "label" and "held_out" where they apply."""
        with open_npz(self.path) as file:
            known = {name.removesuffix(".npy") for name in file.namelist()}
        wanted = {"audio": "audio", "offsets": "offsets"}
        wanted |= {"label": self.label} if self.classes else {}
        wanted |= {"held_out": self.held_out} if self.held_out in known else {}
        for key in wanted.values():
            if key not in known:
                raise UserError(f"no array '{key}' in {self.path}: {nearest(key, known)}")
        shape, dtype = read_header(self.path, "audio")
        if dtype != self.dtype or (shape or (1,)) != (self.channels,):
            raise UserError(
                f"the audio of {self.path} is {dtype} with {(shape or (1,))[0]} channels, not {self.dtype} with "
                f"{self.channels}: set dtype and channels"
            )
        with open_npz(self.path), np.load(self.path) as arrays:
            found = {name: arrays[key] for name, key in wanted.items()}
        return found | {"audio": found["audio"].reshape(-1, self.channels)}


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
