"""Folders whose files are examples: their splits and classes.

`path/train` and `path/test`, if both exist, are the splits; otherwise a fixed random part of all files is the test
split. Within a split, a file's folder is its class (classes in the order of their names). If any file lies directly
in the split's folder, the data set has no classes.
"""

import dataclasses
import functools
import pathlib
from typing import ClassVar

import numpy as np
from jaxtyping import Int32

from genjax.core.errors import UserError
from genjax.data.source import check_split, split_rows


@dataclasses.dataclass(frozen=True)
class Files:
    """The files of a folder and of its sub-folders, in the order of their names.

    Attributes:
        path: the folder.
        suffixes: of the files that are used, in lower case; hidden files are ignored.
        what: plural noun for the files, for messages.
        test: fraction of the test split if the folder has no splits.

    Raises:
        UserError: by every method, if there is no such folder, or no file with these suffixes in it.
    """

    path: str
    suffixes: tuple[str, ...]
    what: str
    test: float

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    def paths(self, split: str) -> tuple[str, ...]:
        """Paths of one split.

        Raises:
            UserError: there is no such split.
        """
        check_split(split, self.splits)
        return tuple(map(str, self._by_split[split]))

    def labels(self, split: str) -> Int32[np.ndarray, " n"] | None:
        """The class index of each file of a split, or None without classes."""
        if not self.classes:
            return None
        numbers = {name: number for number, name in enumerate(self.classes)}
        return np.array([numbers[file.parent.name] for file in self._by_split[split]], np.int32)

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty without classes."""
        root = pathlib.Path(self.path)
        parents = {file.parent for files in self._by_split.values() for file in files}
        if parents & {root, *(root / split for split in self.splits)}:
            return ()
        return tuple(sorted({parent.name for parent in parents}))

    @functools.cached_property
    def _by_split(self) -> dict[str, list[pathlib.Path]]:
        root = pathlib.Path(self.path)
        if not root.is_dir():
            raise UserError(f"no folder '{self.path}'")
        if all((root / split).is_dir() for split in self.splits):
            return {split: self._listed(root / split) for split in self.splits}
        files = self._listed(root)
        return {split: [files[i] for i in split_rows(len(files), self.test, split)] for split in self.splits}

    def _listed(self, folder: pathlib.Path) -> list[pathlib.Path]:
        found = (file for file in folder.glob("**/*") if file.name[0] != ".")
        files = sorted(file for file in found if file.suffix.lower() in self.suffixes)
        if not files:
            raise UserError(f"no {self.what} ({', '.join(self.suffixes)}) in the folder '{folder}'")
        return files
