"""Emoji of 64 x 64 pixels, from .npz files with lists of captions: in one style, in two styles, and as line art.

    Emoji        one style                                               images for any generator
    EmojiStyles  the same emoji in two styles, side by side              pairs, see `pairs`; unpaired by default
    LineArt      black lines, and the coloured picture (OpenMoji)        pairs

A folder holds STYLE_64x64.npz and STYLE_captions.json: `images` (or `color`) uint8 [n, 64, 64, 4], RGB with straight
(not premultiplied) alpha, `line_alpha` uint8 [n, 64, 64], the coverage of lines; and a list of n objects with `key`,
`group`, `split` ("train" or "test") and `skin_tone`. Images are composited on white. Flags and symbols that are not
Unicode emoji are left out.
"""

import dataclasses
import json
import pathlib
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8

from genjax.core.errors import UserError
from genjax.data.examples import Table
from genjax.data.npz_files import read_array, read_header, read_names
from genjax.data.source import Kind, check_split
from genjax.data.sources.pairs import pair_table

SIZE = 64
EXCLUDED_GROUPS = ("Flags", "extras-openmoji", "extras-unicode")
Items = dict[str, int]  # key of each emoji -> its row


class _Pictures:
    """Common attributes of the sources of this module: images of 256 levels, without labels."""

    kind: ClassVar[Kind] = "image"
    dtype: ClassVar[str] = "uint8"
    classes: ClassVar[int] = 0
    levels: ClassVar[int] = 256
    splits: ClassVar[tuple[str, ...]] = ("train", "test")


@dataclasses.dataclass(frozen=True)
class Emoji(_Pictures):
    """Emoji of one style, uint8 [size, size, 3].

    Attributes:
        data_dir: the folder.
        style: prefix of the files' names.
        size: height and width, 64 or a divisor of it: blocks of pixels are averaged.
        skin_tones: whether to include the variants with skin tones.
    """

    data_dir: str = "emoji_text2image"
    style: str = "twemoji"
    size: int = SIZE
    skin_tones: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """(size, size, 3)."""
        return (self.size, self.size, 3)

    def load(self, split: str) -> Table:
        """Reads one split; see `Source.load`."""
        check_split(split, self.splits)
        items = _items(self.data_dir, self.style, split, self.skin_tones)
        images = _array(self.data_dir, self.style, "images", (SIZE, SIZE, 4), items)
        return Table({"x": downsample(composite_on_white(images), self.size)})


@dataclasses.dataclass(frozen=True)
class EmojiStyles(_Pictures):
    """The emoji that exist in both of two styles, without skin tones, uint8 [size, 2 size, 3].

    Attributes:
        data_dir: the folder.
        left: style of the left images.
        right: style of the right images.
        paired: see `pairs`.
        size: see `Emoji`.
    """

    data_dir: str = "emoji_text2image"
    left: str = "twemoji"
    right: str = "noto_emoji"
    paired: bool = False
    size: int = SIZE

    @property
    def shape(self) -> tuple[int, ...]:
        """(size, 2 size, 3)."""
        return (self.size, 2 * self.size, 3)

    def load(self, split: str) -> Table:
        """Reads one split; see `Source.load`."""
        check_split(split, self.splits)
        items = [_items(self.data_dir, style, split, False) for style in (self.left, self.right)]
        shared = [key for key in items[0] if key in items[1]]
        sides = [
            _array(self.data_dir, style, "images", (SIZE, SIZE, 4), {key: own[key] for key in shared})
            for style, own in zip((self.left, self.right), items, strict=True)
        ]
        left, right = (downsample(composite_on_white(side), self.size) for side in sides)
        return pair_table(left, right, split, self.paired)


@dataclasses.dataclass(frozen=True)
class LineArt(_Pictures):
    """OpenMoji's black lines on white on the left, its colour images on the right, uint8 [size, 2 size, 3].

    Attributes:
        data_dir: the folder.
        paired: see `pairs`.
        size: see `Emoji`.
    """

    data_dir: str = "openmoji_line2color"
    paired: bool = True
    size: int = SIZE

    @property
    def shape(self) -> tuple[int, ...]:
        """(size, 2 size, 3)."""
        return (self.size, 2 * self.size, 3)

    def load(self, split: str) -> Table:
        """Reads one split; see `Source.load`."""
        check_split(split, self.splits)
        items = _items(self.data_dir, "openmoji", split, False)
        colour = composite_on_white(_array(self.data_dir, "openmoji", "color", (SIZE, SIZE, 4), items))
        lines = 255 - _array(self.data_dir, "openmoji", "line_alpha", (SIZE, SIZE), items)
        lines = np.repeat(lines[..., None], 3, axis=-1)
        return pair_table(downsample(lines, self.size), downsample(colour, self.size), split, self.paired)


def composite_on_white(x: UInt8[np.ndarray, "n h w 4"]) -> UInt8[np.ndarray, "n h w 3"]:
    """RGB images composited over white by their alpha channel, rounded."""
    opacity = x[..., 3:].astype(np.float32) / 255
    return np.rint(opacity * x[..., :3] + 255 * (1 - opacity)).astype(np.uint8)


def downsample(x: UInt8[np.ndarray, "n h w c"], size: int) -> UInt8[np.ndarray, "n s s c"]:
    """Averages blocks of pixels, rounded, to height and width `size`.

    Raises:
        UserError: `size` does not divide the height of x.
    """
    if size < 1 or x.shape[1] % size:
        raise UserError(f"size={size} must divide the images' {x.shape[1]} pixels")
    block = x.shape[1] // size
    blocks = x.reshape(len(x), size, block, size, block, x.shape[-1]).astype(np.float32)
    return np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8)


def _items(folder: str, style: str, split: str, skin_tones: bool) -> Items:
    """Key -> row of each emoji of a split, in the order of the file.

    Raises:
        UserError: the list of captions is missing or damaged.
    """
    path = pathlib.Path(folder) / f"{style}_captions.json"
    try:
        items: list[dict[str, Any]] = json.loads(path.read_text())
        return {
            item["key"]: row
            for row, item in enumerate(items)
            if item["split"] == split
            and item["group"] not in EXCLUDED_GROUPS
            and (skin_tones or not item["skin_tone"])
        }
    except FileNotFoundError as error:
        raise UserError(f"no file '{path}': set its folder with config.data.source.data_dir=DIR") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"'{path}' is not a list of captions, or is damaged") from error


def _array(folder: str, style: str, name: str, shape: tuple[int, ...], items: Items) -> np.ndarray:
    """The rows `items` of an array of a style's file.

    Raises:
        UserError: the file is missing or damaged, or does not match `shape` or the captions.
    """
    path = str(pathlib.Path(folder) / f"{style}_{SIZE}x{SIZE}.npz")
    known = set(read_names(path))
    if name not in known:
        raise UserError(f"no array '{name}' in {path}: it has {', '.join(sorted(known))}")
    header = read_header(path, name)
    if (header.shape[1:], header.dtype) != (shape, np.uint8):
        raise UserError(f"array '{name}' of {path} must hold uint8 images {list(shape)}")
    array = read_array(path, name)
    rows = np.fromiter(items.values(), int)
    if not len(rows) or rows.max() >= len(array):
        raise UserError(f"{path} has {len(array)} images, which do not match its captions")
    return array[rows]
