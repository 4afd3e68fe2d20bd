"""A folder of images: .png and .jpg files; see `files`."""

import dataclasses
import functools
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int
from PIL import Image, ImageOps

from genjax.core.errors import UserError
from genjax.core.tree import tunable
from genjax.data.examples import Table, in_memory
from genjax.data.source import Kind
from genjax.data.sources.files import Files

CHUNK = 256
SUFFIXES = (".png", ".jpg", ".jpeg")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Image files, decoded on access.

    Attributes:
        files: their paths.
        label: int32 [n], or None.
        size: height and width of the examples.
        channels: of the examples.
    """

    files: tuple[str, ...]
    label: np.ndarray | None
    size: int
    channels: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, indices: Int[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        """Raises UserError for a file that is not an image."""
        arrays = {"x": np.stack([self._decode(self.files[index]) for index in indices])}
        return arrays if self.label is None else arrays | {"label": self.label[indices]}

    def _decode(self, file: str) -> np.ndarray:
        try:
            with Image.open(file) as image:
                square = ImageOps.fit(
                    image.convert(MODES[self.channels]), (self.size, self.size), Image.Resampling.LANCZOS
                )
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"cannot decode the picture '{file}': {error}") from error
        return np.asarray(square).reshape(self.size, self.size, self.channels)


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """Images of a folder, cropped to a centred square and resized; splits and classes are those of `files`.

    Attributes:
        path: the folder.
        size: height and width in pixels, by Lanczos resampling.
        channels: 1 grey, 3 RGB, 4 RGB and alpha.
        test: fraction of the test split if the folder has no splits.
        memory_mib: MiB of decoded images up to which a split is decoded into memory, once; images of a larger split are
            decoded on access (see `loading.Input.workers`). Tunable.
    """

    path: str
    size: int = 32
    channels: Literal[1, 3, 4] = 3
    test: float = 0.1
    memory_mib: int = tunable(4096)

    kind: ClassVar[Kind] = "image"
    dtype: ClassVar[str] = "uint8"
    levels: ClassVar[int] = 256
    splits: ClassVar[tuple[str, ...]] = Files.splits

    @property
    def shape(self) -> tuple[int, ...]:
        """(size, size, channels)."""
        return (self.size, self.size, self.channels)

    @property
    def classes(self) -> int:
        """Number of classes; 0 without, see `files`."""
        return len(self._files.classes)

    def load(self, split: str) -> Table | Pictures:
        """Lists one split, and decodes it into memory if it takes at most `memory_mib`; see `Source.load`."""
        files = self._files.paths(split)
        pictures = Pictures(files, self._files.labels(split), self.size, self.channels)
        if len(files) * self.size**2 * self.channels > self.memory_mib * 2**20:
            return pictures
        return in_memory(pictures, CHUNK)

    @functools.cached_property
    def _files(self) -> Files:
        return Files(self.path, SUFFIXES, "pictures", self.test)
