"""A folder of pictures; see `files` for its splits and classes, `pictures` for how a file becomes an array."""

import dataclasses
import functools
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int

from genjax.core.errors import UserError
from genjax.core.tree import tunable
from genjax.data.examples import Table, in_memory
from genjax.data.pictures import SUFFIXES, Colour, read_picture
from genjax.data.source import Kind
from genjax.data.sources.files import Files

CHUNK = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Image files, decoded on access.

    Attributes:
        files: their paths.
        label: int32 [n], or None.
        size: height and width of the examples.
        channels: of the examples.
        background: see `ImageFolder`.
    """

    files: tuple[str, ...]
    label: np.ndarray | None
    size: int
    channels: int
    background: Colour

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        """Raises UserError for a file that cannot be read."""
        read = lambda index: read_picture(self.files[index], self.size, self.channels, self.background)
        arrays = {"x": np.stack([read(index) for index in indices])}
        return arrays if self.label is None else arrays | {"label": self.label[indices]}


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """Images of a folder, cropped to a centred square and resized; splits and classes are those of `files`.

    Attributes:
        path: the folder.
        size: height and width in pixels, by Lanczos resampling.
        channels: 1 grey, 3 RGB, 4 RGB and alpha.
        background: RGB of 0 ... 255 below transparent pixels.
        test: fraction of the test split if the folder has no splits.
        memory_mib: MiB of decoded images up to which a split is decoded into memory, once; images of a larger split are
            decoded on access (see `loading.Input.workers`). Tunable.
    """

    path: str
    size: int = 32
    channels: Literal[1, 3, 4] = 3
    background: Colour = (255, 255, 255)
    test: float = 0.1
    memory_mib: int = tunable(4096)

    kind: ClassVar[Kind] = "image"
    dtype: ClassVar[str] = "uint8"
    levels: ClassVar[int] = 256
    splits: ClassVar[tuple[str, ...]] = Files.splits

    def __post_init__(self) -> None:
        if not all(0 <= value <= 255 for value in self.background):
            raise UserError(f"background={self.background}: RGB of 0 ... 255")

    @property
    def shape(self) -> tuple[int, ...]:
        """(size, size, channels)."""
        return (self.size, self.size, self.channels)

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
        return f"{self._files.describe()}; read as {self.size}x{self.size}x{self.channels}, 0…255"

    def load(self, split: str) -> Table | Pictures:
        """Lists one split, and decodes it into memory if it takes at most `memory_mib`; see `Source.load`."""
        files = self._files.paths(split)
        pictures = Pictures(files, self._files.labels(split), self.size, self.channels, self.background)
        if len(files) * self.size**2 * self.channels > self.memory_mib * 2**20:
            return pictures
        return in_memory(pictures, CHUNK)

    @functools.cached_property
    def _files(self) -> Files:
        return Files(self.path, SUFFIXES, "pictures", self.test)
