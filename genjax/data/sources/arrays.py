"""Arrays in an .npz file, as `numpy.savez` writes them: image, point, audio or token arrays with labels."""

import contextlib
import dataclasses
import functools
import zipfile
import zlib
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from genjax.core.errors import UserError, nearest
from genjax.data.examples import Table
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
        label: name of the labels' array [n], integers from 0; None without labels.
        kind: of an example.
        values: number of integer values that "x" takes; None for all values of its dtype (8 or 16 bits).
        test: fraction of a single array that forms the test split.
        rate: sampling rate of audio, in Hz.

    Raises:
        UserError: on first use, if the file is missing or damaged, or an array is missing or has an unsuitable shape.
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

    @functools.cached_property
    def classes(self) -> int:
        """Largest label plus one, over both splits; reads the labels."""
        if self.label is None:
            return 0
        return 1 + max(int(self._label(split).max()) for split in self.splits)

    def load(self, split: str) -> Table:
        """Reads one split; see `Source.load`."""
        check_split(split, self.splits)
        x = self._read(self.x, split)
        if self.levels:
            low, high = integer_range(self.dtype, self.levels)
            if x.min() < low or x.max() > high:
                raise UserError(
                    f"array '{self.x}' of {self.path} has values outside {low} ... {high}: check the field values"
                )
        arrays = {"x": x.reshape(len(x), *self.shape).astype(self.dtype, copy=False)}
        if self.label is not None:
            arrays["label"] = self._label(split)
        return Table(arrays)

    def _label(self, split: str) -> np.ndarray:
        label = self._read(str(self.label), split)
        if label.ndim != 1 or not np.issubdtype(label.dtype, np.integer) or label.min() < 0:
            raise UserError(f"array '{self.label}' of {self.path} must hold one integer >= 0 per example")
        return label.astype(np.int32)

    def _key(self, name: str, split: str) -> str:
        """Name of the array in the file that holds a split, or both splits, of `name`."""
        for key in (f"{name}_{split}", f"{split}_{name}", name):
            if key in self._keys:
                return key
        raise UserError(f"no array '{name}' in {self.path}: {nearest(name, self._keys)}")

    def _read(self, name: str, split: str) -> np.ndarray:
        key = self._key(name, split)
        with open_npz(self.path), np.load(self.path) as arrays:
            array = arrays[key]
        return array[split_rows(len(array), self.test, split)] if key == name else array

    @functools.cached_property
    def _keys(self) -> tuple[str, ...]:
        with open_npz(self.path) as file:
            return tuple(name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy"))

    @functools.cached_property
    def _header(self) -> tuple[tuple[int, ...], str]:
        """Shape of an example and dtype, which must be equal in both splits."""
        headers = {read_header(self.path, self._key(self.x, split)) for split in self.splits}
        if len(headers) != 1:
            raise UserError(f"train and test of '{self.x}' in {self.path} differ in shape or dtype")
        shape, dtype = headers.pop()
        if len(shape) == RANKS[self.kind] - 1 and self.kind != "text":
            shape = (*shape, 1)
        if len(shape) != RANKS[self.kind] or np.dtype(dtype).kind not in "biuf":
            raise UserError(
                f"array '{self.x}' of {self.path} holds {dtype} {list(shape)}, not {self.kind} examples"
            )
        return shape, dtype


@contextlib.contextmanager
def open_npz(path: str) -> Iterator[zipfile.ZipFile]:
    """Opens an .npz file; errors of reading it within the context become UserErrors of one line.

    Raises:
        UserError: the file is missing, is not an .npz file, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as file:
            yield file
    except FileNotFoundError as error:
        raise UserError(f"no file '{path}'") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
        raise UserError(
            f"'{path}' is not an .npz file, or is damaged ({str(error).splitlines()[0]})"
        ) from error


def read_header(path: str, key: str) -> tuple[tuple[int, ...], str]:
    """Reads shape (without the first axis) and dtype of one array of an .npz file, from its header.

    Raises:
        UserError: as `open_npz`.
    """
    with open_npz(path) as file, file.open(f"{key}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(member)
    return tuple(shape[1:]), dtype.name
