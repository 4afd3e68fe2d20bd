"""Text as windows of tokens: bytes, or the characters that occur in it.

A training split holds all windows of `length` tokens (stride 1); other splits hold disjoint windows, so that an
evaluation scores each token once (a remainder shorter than `length` is left out).
"""

import abc
import dataclasses
import functools
import pathlib
import sysconfig
import zlib
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from jaxtyping import Integer

from genjax.core.errors import UserError
from genjax.data.examples import Windows
from genjax.data.source import Kind, check_split

Unit = Literal["byte", "char"]


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A one-to-one map between text and tokens.

    Attributes:
        symbols: the characters of tokens 0, 1, ...; "" for the 256 bytes of UTF-8.
    """

    symbols: str = ""

    @classmethod
    def of(cls, text: bytes, unit: Unit) -> "Vocabulary":
        """The vocabulary of bytes, or of the characters of `text` in the order of their code points.

        Raises:
            UserError: the unit is "char", and `text` is not UTF-8.
        """
        return cls("" if unit == "byte" else "".join(sorted(set(decode_utf8(text)))))

    def __len__(self) -> int:
        return len(self.symbols) or 256

    def encode(self, text: bytes) -> Integer[np.ndarray, " n"]:
        """Encodes UTF-8 as tokens: uint8 for bytes, int32 for characters.

        Raises:
            UserError: `text` contains a character that is not in the vocabulary.
        """
        if not self.symbols:
            return np.frombuffer(text, np.uint8)
        points = np.frombuffer(decode_utf8(text).encode("utf-32-le"), np.uint32)
        known = np.frombuffer(self.symbols.encode("utf-32-le"), np.uint32)
        tokens = np.minimum(np.searchsorted(known, points), len(known) - 1)
        unknown = points[known[tokens] != points]
        if unknown.size:
            raise UserError(
                f"character {chr(unknown[0])!r} is not in the vocabulary of {len(self)} characters"
            )
        return tokens.astype(np.int32)

    def decode(self, tokens: Integer[np.ndarray, " n"]) -> str:
        """Decodes tokens; invalid UTF-8 becomes U+FFFD."""
        if not self.symbols:
            return tokens.astype(np.uint8).tobytes().decode("utf-8", errors="replace")
        return "".join(self.symbols[token] for token in tokens)


def decode_utf8(text: bytes) -> str:
    """Decodes UTF-8.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"the text is not UTF-8 ({error}): use unit='byte'") from error


def read_file(path: str) -> bytes:
    """Reads a text file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the text file '{path}': {error.strerror}") from error


def windows(stream: Integer[np.ndarray, " n"], length: int, split: str) -> Windows:
    """The windows of one split's tokens.

    Args:
        stream: the tokens of the split.
        length: tokens in a window.
        split: "train" for all windows, another name for disjoint ones.

    Returns:
        The windows, as examples.

    Raises:
        UserError: the stream is shorter than a window.
    """
    return Windows(stream, length, stride=1 if split == "train" else length)


S = TypeVar("S", bound=Sequence | np.ndarray)


def split_contiguous(whole: S, splits: tuple[str, ...], train: float, validation: float) -> dict[str, S]:
    """Splits a text, or its tokens, into three contiguous parts.

    Args:
        whole: text or tokens.
        splits: names of the parts, in order.
        train: the first part's fraction of the whole.
        validation: the second part's fraction of the rest.

    Returns:
        Name -> part; the third part is what remains.
    """
    ends = [0, *(round(end * len(whole)) for end in (train, train + validation * (1 - train))), len(whole)]
    return {split: whole[a:b] for split, a, b in zip(splits, ends[:-1], ends[1:], strict=True)}  # type: ignore[misc]


class TextSource(abc.ABC):
    """Sources of text: examples are `length` tokens without labels; a subclass has the `vocabulary`."""

    length: int

    kind: ClassVar[Kind] = "text"
    dtype: ClassVar[str] = "int32"
    classes: ClassVar[int] = 0
    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    @property
    def shape(self) -> tuple[int, ...]:
        """(length,)."""
        return (self.length,)

    @property
    @abc.abstractmethod
    def vocabulary(self) -> Any:
        """The map between text and tokens."""

    @property
    def levels(self) -> int:
        """Size of the vocabulary."""
        return len(self.vocabulary)


@dataclasses.dataclass(frozen=True)
class StdlibBytes(TextSource):
    """The source files of the Python standard library's top-level modules: a corpus that needs no download.

    A module belongs to the test split if the CRC-32 of its file name is divisible by 10, hence to the same split in
    every version of Python; the contents differ between versions. Files are concatenated in the order of their names.

    Attributes:
        length: bytes in a window.
    """

    length: int = 128

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of bytes."""
        return Vocabulary()

    def load(self, split: str) -> Windows:
        """Reads the files of one split; see `Source.load`."""
        return windows(self.vocabulary.encode(self.text(split)), self.length, split)

    def text(self, split: str) -> bytes:
        """The concatenated files of one split.

        Raises:
            UserError: there is no such split, or this Python is installed without source files.
        """
        check_split(split, self.splits)
        folder = pathlib.Path(sysconfig.get_path("stdlib"))
        files = [file for file in sorted(folder.glob("*.py")) if self._split(file.name) == split]
        if not files:
            raise UserError(f"this Python has no source files in {folder}: use TextFile")
        return b"".join(file.read_bytes() for file in files)

    def _split(self, name: str) -> str | None:
        if name.startswith("_sysconfigdata"):  # generated when Python was built; it depends on the machine
            return None
        return "train" if zlib.crc32(name.encode()) % 10 else "test"


@dataclasses.dataclass(frozen=True)
class TextFile(TextSource):
    """A local text file; by default the first 90 % of tokens train, then 5 % validation, the last 5 % test.

    Attributes:
        path: the file.
        length: tokens in a window.
        unit: "byte" (256 tokens) or "char" (the characters in the whole file).
        train: fraction of tokens for training.
        validation: fraction of the rest for validation; the remainder is the test split.
    """

    path: str = ""
    length: int = 128
    unit: Unit = "byte"
    train: float = 0.9
    validation: float = 0.5

    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test")

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """The map between text and tokens."""
        return Vocabulary.of(read_file(self.path) if self.unit == "char" else b"", self.unit)

    def load(self, split: str) -> Windows:
        """Reads one split; see `Source.load`."""
        check_split(split, self.splits)
        tokens = self.vocabulary.encode(read_file(self.path))
        part = split_contiguous(tokens, self.splits, self.train, self.validation)[split]
        return windows(part, self.length, split)
