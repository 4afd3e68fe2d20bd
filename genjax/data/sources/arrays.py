"""Arrays in an .npz file, as `numpy.savez` writes them: image, point, audio or token arrays with labels."""

import dataclasses
import functools
from typing import ClassVar

import numpy as np

from genjax.core.errors import UserError, nearest
from genjax.data.examples import Table
from genjax.data.labels import Numbering, number_labels
from genjax.data.npz_files import check_finite, read_array, read_header, read_names
from genjax.data.source import Kind, check_split, dtype_levels, integer_range, split_rows

RANKS = {"image": 3, "points": 1, "text": 1, "audio": 2}


@dataclasses.dataclass(frozen=True)
class Npz:
    """Examples from the arrays of an .npz file.

    The file holds either one array for each split, named "x_train" and "x_test" or "train_x" and "test_x" (with the
    values of the fields `x` and `label`), or one array "x", of which a fixed random part is the test split. Shapes and
    dtypes are read from the headers; only `load` reads the arrays.

    Attributes:
        path: the file.
        x: name of the examples' array [n, ...]; images [n, h, w] and audio [n, t] get a channel axis.
        label: name of the labels' array, see `labels`; None without labels.
        kind: of an example.
        values: number of integer values that "x" takes; None for all values of its dtype (8 or 16 bits).
        test: fraction of a single array that forms the test split.
        rate: sampling rate of audio, in Hz.

    Raises:
        UserError: on first use, if the file is missing or damaged, or an array is missing or has an unsuitable shape or
            unsuitable values. Channels come last.
    """

    path: str
    x: str = "x"
    label: str | None = None
    kind: Kind = "image"
    values: int | None = None
    test: float = 0.1
    rate: int = 8000

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self._header[0]

    @property
    def dtype(self) -> str:
        """The array's dtype; "uint8" for booleans."""
        return self._header[1].replace("bool", "uint8")

    @property
    def levels(self) -> int:
        """Number of integer values of "x"; 0 for floating point."""
        stored = self._header[1]
        if self.values is not None:
            return self.values
        return 2 if stored == "bool" else dtype_levels(stored, f"array '{self.x}' of {self.path}")

    @property
    def classes(self) -> int:
        """Number of classes, over both splits; reads the labels."""
        return self._labels[0].classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by number; empty if the labels are numbers."""
        return self._labels[0].names

    def load(self, split: str) -> Table:
        """Reads one split; see `Source.load`."""
        check_split(split, self.splits)
        rows = self._rows(self.x, split)
        self._check_length(split)
        x = read_array(self.path, self._key(self.x, split))
        check_finite(x, self._what(self.x, split))
        if self.levels:
            low, high = integer_range(self.dtype, self.levels)
            bad = np.flatnonzero(((x < low) | (x > high)).reshape(len(x), -1).any(axis=1))
            if len(bad):
                raise UserError(
                    f"{self._what(self.x, split)} has values outside {low} ... {high} in example {bad[0]}: "
                    "check the field values"
                )
        x = x if rows is None else x[rows]
        arrays = {"x": x.reshape(len(x), *self.shape).astype(self.dtype, copy=False)}
        if self.label is not None:
            arrays["label"] = self._labels[1][split]
        return Table(arrays)

    @functools.cached_property
    def _labels(self) -> tuple[Numbering, dict[str, np.ndarray]]:
        """The numbering of the classes, and the class indices of each split."""
        if self.label is None:
            return Numbering(0), {}
        keys = [self._key(self.label, split) for split in self.splits]
        found = [read_array(self.path, key) for key in dict.fromkeys(keys)]
        numbering, numbered = number_labels(found, f"array '{self.label}' of {self.path}")
        by_key = dict(zip(dict.fromkeys(keys), numbered, strict=True))
        rows = {split: self._rows(self.label, split) for split in self.splits}
        return numbering, {
            split: by_key[key] if rows[split] is None else by_key[key][rows[split]]
            for split, key in zip(self.splits, keys, strict=True)
        }

    def _check_length(self, split: str) -> None:
        if self.label is None:
            return
        keys = self._key(self.x, split), self._key(self.label, split)
        x, label = (read_header(self.path, key).shape[0] for key in keys)
        if x != label:
            raise UserError(
                f"{self._what(self.label, split)} has {label} labels for the {x} examples of '{keys[0]}'"
            )

    def _what(self, name: str, split: str) -> str:
        return f"array '{self._key(name, split)}' of {self.path}"

    def _rows(self, name: str, split: str) -> np.ndarray | None:
        """Rows of the array that holds both splits; None if each has its own."""
        key = self._key(name, split)
        if key != name:
            return None
        num = read_header(self.path, key).shape[0]
        if num < 2:
            raise UserError(f"{self._what(name, split)} has {num} examples, too few for train and test")
        return split_rows(num, self.test, split)

    def _key(self, name: str, split: str) -> str:
        """Name of the array in the file that holds a split, or both splits, of `name`."""
        for key in (f"{name}_{split}", f"{split}_{name}", name):
            if key in self._keys:
                return key
        raise UserError(f"no array '{name}' in {self.path}: {nearest(name, self._keys)}")

    @functools.cached_property
    def _keys(self) -> tuple[str, ...]:
        return read_names(self.path)

    @functools.cached_property
    def _header(self) -> tuple[tuple[int, ...], str]:
        """Shape of an example and dtype, which must be equal in both splits."""
        headers = [read_header(self.path, self._key(self.x, split)) for split in self.splits]
        if len({(header.shape[1:], header.dtype) for header in headers}) != 1:
            raise UserError(f"train and test of '{self.x}' in {self.path} differ in shape or dtype")
        stored, dtype = headers[0].shape[1:], headers[0].dtype
        shape = (*stored, 1) if len(stored) == RANKS[self.kind] - 1 and self.kind != "text" else stored
        if len(shape) != RANKS[self.kind] or dtype.kind not in "biuf" or 0 in shape:
            raise UserError(
                f"array '{self.x}' of {self.path} holds {dtype} {list(stored)}, not {self.kind} examples"
            )
        if (self.kind == "image" and channels_first(shape)) or (
            self.kind == "audio" and shape[0] <= 2 < shape[1]
        ):
            raise UserError(
                f"array '{self.x}' of {self.path} has shape {list(headers[0].shape)}: channels come last, save "
                f"numpy.moveaxis({self.x}, 1, -1)"
            )
        if self.values is not None and not (
            dtype.kind in "biu" and 1 < self.values <= 2 ** min(8 * dtype.itemsize, 31)
        ):
            raise UserError(
                f"values={self.values} does not fit array '{self.x}' of {self.path}, which is {dtype}"
            )
        return shape, dtype.name


def channels_first(shape: tuple[int, ...]) -> bool:
    """Whether the shape [c, h, w] of an image can hardly be one of [h, w, c]."""
    first, second, last = shape
    return first < last and ((first in (1, 3) and last > 4) or (first <= 4 and second == last))
