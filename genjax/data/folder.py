"""A folder of pictures: .png and .jpg files, whose sub-folders are their classes."""

import dataclasses
import functools
import pathlib
from typing import ClassVar, Literal

import numpy as np
from PIL import Image, ImageOps

from genjax.data.examples import Table
from genjax.data.source import Kind, check_split, split_rows
from genjax.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """Pictures of a folder, cut to a square at the centre, scaled to one size and decoded once into memory.

    `path/train` and `path/test`, if both are there, are the splits; otherwise a fixed random part of all
    files is the test split. Within them, a file's folder is its class (classes in the order of their names);
    files that lie directly in the split's folder have none, and then no file has.

    Attributes:
        path: the folder.
        size: height and width, in pixels, that every picture is scaled to (Lanczos' filter).
        channels: 1 grey, 3 RGB, 4 RGB and opacity.
        test: fraction of the test split where the folder has none.
    """

    path: str
    size: int = 32
    channels: Literal[1, 3, 4] = 3
    test: float = 0.1

    kind: ClassVar[Kind] = "image"
    dtype: ClassVar[str] = "uint8"
    levels: ClassVar[int] = 256
    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    @property
    def shape(self) -> tuple[int, ...]:
        """(size, size, channels)."""
        return (self.size, self.size, self.channels)

    @property
    def classes(self) -> int:
        """Number of sub-folders that hold pictures; 0 if pictures lie beside them."""
        return len(self._class_names)

    def load(self, split: str) -> Table:
        """Decodes one split; see `Source.load`."""
        check_split(split, self.splits)
        files = self._files[split]
        arrays = {"x": np.stack([self._decode(file) for file in files])}
        if self._class_names:
            label = [self._class_names.index(file.parent.name) for file in files]
            arrays["label"] = np.array(label, np.int32)
        return Table(arrays)

    @functools.cached_property
    def _files(self) -> dict[str, list[pathlib.Path]]:
        root = pathlib.Path(self.path)
        if not root.is_dir():
            raise UserError(f"no folder '{self.path}'")
        if all((root / split).is_dir() for split in self.splits):
            return {split: pictures(root / split) for split in self.splits}
        files = pictures(root)
        return {split: [files[i] for i in split_rows(len(files), self.test, split)] for split in self.splits}

    @functools.cached_property
    def _class_names(self) -> tuple[str, ...]:
        root = pathlib.Path(self.path)
        parents = {file.parent for files in self._files.values() for file in files}
        if parents & {root, *(root / split for split in self.splits)}:
            return ()
        return tuple(sorted({parent.name for parent in parents}))

    def _decode(self, file: pathlib.Path) -> np.ndarray:
        try:
            with Image.open(file) as image:
                square = ImageOps.fit(
                    image.convert(MODES[self.channels]), (self.size, self.size), Image.Resampling.LANCZOS
                )
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"cannot decode the picture '{file}': {error}") from error
        return np.asarray(square).reshape(self.shape)


def pictures(folder: pathlib.Path) -> list[pathlib.Path]:
    """Lists the pictures of a folder and of its sub-folders, in the order of their names.

    Raises:
        UserError: there are none.
    """
    files = sorted(
        file for file in folder.glob("**/*") if file.suffix.lower() in SUFFIXES and file.name[0] != "."
    )
    if not files:
        raise UserError(f"no pictures ({', '.join(SUFFIXES)}) in the folder '{folder}'")
    return files
