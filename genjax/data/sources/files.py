"""Folders whose files are examples: their splits and classes.

Splits: sub-folders named train (training), test (testing) and validation (val, valid, dev), in any case, are the splits
that they say; a folder with such names has no others beside them. Without a test folder, validation is the test split;
with neither, or without such names at all, a fixed random part of the files is.

Classes: the first folder below the split is a file's class (classes in the order of their names). If any file lies
directly in the split's folder, the data set has no classes.

Files and folders whose names begin with a dot never count; links are followed.
"""

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Int32

from genjax.core.errors import UserError
from genjax.data.labels import check_class_names
from genjax.data.source import check_split, split_rows

ROLES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
}


def walk(folder: pathlib.Path, above: tuple[str, ...] = ()) -> Iterator[pathlib.Path]:
    """Visible files of a folder and its sub-folders, in the order of their names; links are followed.

    Args:
        folder: where to begin.
        above: real paths of the folders on the way to this one.

    Yields:
        Paths of files.

    Raises:
        UserError: a link leads back to a folder above it, or a folder cannot be read.
    """
    real = os.path.realpath(folder)
    if real in above:
        raise UserError(f"the folder '{folder}' is a link to a folder above it: remove the link")
    try:
        entries = sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read the folder '{folder}': {error.strerror}") from error
    for name in entries:
        path = folder / name
        if path.is_dir():
            yield from walk(path, (*above, real))
        else:
            yield path


@dataclasses.dataclass(frozen=True)
class Files:
    """The files of a folder and of its sub-folders, in the order of their names.

    Attributes:
        path: the folder.
        suffixes: of the files that are used, in lower case.
        what: plural noun for the files, for messages.
        test: fraction of the test split if the folder has no splits.

    Raises:
        UserError: by every method, if there is no such folder or no file with these suffixes in it, or if its splits or
            classes can be read in two ways.
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
        return np.array([numbers[self._class(file)] for file in self._by_split[split]], np.int32)

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty without classes.

        Raises:
            UserError: two names differ in case only, or the test split has a class that training lacks.
        """
        names = {split: {self._class(file) for file in files} for split, files in self._by_split.items()}
        if any("" in found for found in names.values()):
            return ()
        classes = sorted(set().union(*names.values()))
        check_class_names(classes, f"'{self.path}'")
        if self._folders and (extra := sorted(names["test"] - names["train"])):
            raise UserError(f"class '{extra[0]}' of '{self.path}' has {self.what} for the test split alone")
        return tuple(classes)

    def describe(self) -> str:
        """One line: number of files by split and by class, and what is left out."""
        counts = {split: len(files) for split, files in self._by_split.items()}
        line = (
            f"{sum(counts.values()):,} {self.what} ({', '.join(f'{n:,} {s}' for s, n in counts.items())}), "
        )
        if self.classes:
            files = [file for files in self._by_split.values() for file in files]
            sizes = collections.Counter(map(self._class, files))
            shown = ", ".join(f"{name} {sizes[name]:,}" for name in self.classes[:10])
            more = f", {len(self.classes) - 10} more" if len(self.classes) > 10 else ""
            line += f"{len(self.classes)} classes ({shown}{more})"
        else:
            line += "no classes"
        if self._folders and "test" not in self._folders and "validation" in self._folders:
            line += f"; the test split is {self._folders['validation'].name}/"
        elif "validation" in self._folders:
            line += f"; left out: {self._folders['validation'].name}/"
        if others := self._others():
            line += "; left out: " + ", ".join(f"{count:,} {suffix}" for suffix, count in others.items())
        return line

    def _others(self) -> Mapping[str, int]:
        """Number of files of other suffixes in the splits, by suffix."""
        used = {file for files in self._by_split.values() for file in files}
        parts = [self._folders[role] for role in self._used] or [pathlib.Path(self.path)]
        left = [file for part in parts for file in walk(part) if file not in used]
        return collections.Counter(file.suffix.lower() or "without suffix" for file in sorted(left))

    def _class(self, file: pathlib.Path) -> str:
        """Name of the first folder below the split; empty for a file directly in it."""
        for folder in self._folders.values():
            if file.is_relative_to(folder):
                return _first(file, folder)
        return _first(file, pathlib.Path(self.path))

    @functools.cached_property
    def _folders(self) -> dict[str, pathlib.Path]:
        """Role ("train", "test", "validation") -> folder; empty if the folder has no split names."""
        root = pathlib.Path(self.path)
        if not root.is_dir():
            raise UserError(f"no folder '{self.path}'")
        found = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        roles = [ROLES.get(path.name.casefold()) for path in found]
        if not any(roles):
            return {}
        named = [path.name for path, role in zip(found, roles, strict=True) if role]
        if other := next((path.name for path, role in zip(found, roles, strict=True) if not role), None):
            raise UserError(
                f"'{self.path}' has the split '{named[0]}' and '{other}' beside it: move '{other}' into a split, or "
                f"all into a folder train, if '{named[0]}' is a class"
            )
        if len(set(roles)) < len(roles):
            raise UserError(f"'{self.path}' has two folders for one split, among {', '.join(named)}")
        if "train" not in roles:
            raise UserError(f"'{self.path}' has {', '.join(named)} and no train")
        return {str(role): path for role, path in zip(roles, found, strict=True)}

    @property
    def _used(self) -> Sequence[str]:
        """Roles of the folders that are read."""
        held_out = next((role for role in ("test", "validation") if role in self._folders), None)
        return [role for role in ("train", held_out) if role in self._folders]

    @functools.cached_property
    def _by_split(self) -> dict[str, list[pathlib.Path]]:
        if len(self._used) == 2:
            return {
                split: self._listed(self._folders[role])
                for split, role in zip(self.splits, self._used, strict=True)
            }
        files = self._listed(self._folders.get("train", pathlib.Path(self.path)))
        return {split: [files[i] for i in split_rows(len(files), self.test, split)] for split in self.splits}

    def _listed(self, folder: pathlib.Path) -> list[pathlib.Path]:
        files = sorted(file for file in walk(folder) if file.suffix.lower() in self.suffixes)
        if not files:
            raise UserError(f"no {self.what} ({', '.join(self.suffixes)}) in the folder '{folder}'")
        return files


def _first(file: pathlib.Path, folder: pathlib.Path) -> str:
    """The first part of a file's path below a folder, if it is a folder, else ""."""
    parts = file.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""
