"""Text as windows of tokens: bytes, or the characters that occur in it.

Files are read by `reading`: byte order marks and line ends are normalised for every unit, bytes included.
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
from genjax.data.examples import Stream, Windows
from genjax.data.source import Kind, check_split
from genjax.data.text.reading import read_text, read_utf8

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


def windows(stream: Integer[np.ndarray, " n"] | Stream, length: int, split: str) -> Windows:
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

    @abc.abstractmethod
    def describe(self) -> str:
        """What was read, in one line; see `source.Describes`."""


class StreamSource(TextSource):
    """Sources of windows of one stream of tokens for each split."""

    @abc.abstractmethod
    def stream(self, split: str) -> Integer[np.ndarray, " n"] | Stream:
        """The tokens of a split."""

    @property
    @abc.abstractmethod
    def file(self) -> str:
        """What is read, for messages."""

    def load(self, split: str) -> Windows:
        """Reads one split; see `Source.load`.

        Loading the training split also checks the test split, so that no run ends in an evaluation that cannot be done.

        Raises:
            UserError: there is no such split, or one has fewer tokens than a window.
        """
        check_split(split, self.splits)
        if self.length < 1:
            raise UserError(f"length={self.length} must be at least 1 (config.data.source.length)")
        for each in ("train", "test") if split == "train" else (split,):
            count = len(self.stream(each))
            if count < self.length:
                most = f"set config.data.source.length to at most {count:,}, or " if count else ""
                raise UserError(
                    f"length={self.length} is longer than the {each} split of {self.file}, {count:,} tokens: {most}"
                    "use a longer text"
                )
        return windows(self.stream(split), self.length, split)

    def describe(self) -> str:
        """The number of tokens of each split, and of the vocabulary."""
        sizes = ", ".join(f"{len(self.stream(split)):,} {split}" for split in self.splits)
        return f"{self.file}: {sizes} tokens of a vocabulary of {self.levels:,}; windows of {self.length:,}"


def check_fractions(train: float, validation: float) -> None:
    """Checks the fractions of `split_contiguous`.

    Raises:
        UserError: one is outside its range; names the field.
    """
    if not 0.0 < train < 1.0:
        raise UserError(f"train={train} must be between 0 and 1 (config.data.source.train)")
    if not 0.0 <= validation < 1.0:
        raise UserError(f"validation={validation} must be in [0, 1) (config.data.source.validation)")


@dataclasses.dataclass(frozen=True)
class StdlibBytes(StreamSource):
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

    @property
    def file(self) -> str:
        """See `StreamSource.file`."""
        return "Python's standard library"

    def stream(self, split: str) -> Integer[np.ndarray, " n"]:
        """The bytes of one split."""
        if split not in self._streams:
            self._streams[split] = self.vocabulary.encode(self.text(split))
        return self._streams[split]

    @functools.cached_property
    def _streams(self) -> dict[str, Integer[np.ndarray, " n"]]:
        return {}

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
        return b"".join(read_utf8(str(file)) for file in files)

    def _split(self, name: str) -> str | None:
        if name.startswith("_sysconfigdata"):  # generated when Python was built; it depends on the machine
            return None
        return "train" if zlib.crc32(name.encode()) % 10 else "test"


@dataclasses.dataclass(frozen=True)
class TextFile(StreamSource):
    """A local text file; by default the first 90 % of tokens train, then 5 % validation, the last 5 % test.

    Attributes:
        path: the file.
        length: tokens in a window.
        unit: "byte" (256 tokens; of UTF-8, or what the file has instead) or "char" (the characters in the whole file).
            Line ends and byte order marks are normalised before for both, see `reading`.
        train: fraction of tokens for training.
        validation: fraction of the rest for validation; the remainder is the test split.
    """

    path: str = ""
    length: int = 128
    unit: Unit = "byte"
    train: float = 0.9
    validation: float = 0.5

    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test")

    def __post_init__(self) -> None:
        check_fractions(self.train, self.validation)

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """The map between text and tokens."""
        return Vocabulary.of(self._read() if self.unit == "char" else b"", self.unit)

    @property
    def file(self) -> str:
        """See `StreamSource.file`."""
        return f"'{self.path}'"

    def stream(self, split: str) -> Integer[np.ndarray, " n"]:
        """The tokens of one split."""
        return self._streams[split]

    @functools.cached_property
    def _streams(self) -> dict[str, Integer[np.ndarray, " n"]]:
        return split_contiguous(
            self.vocabulary.encode(self._read()), self.splits, self.train, self.validation
        )

    def _read(self) -> bytes:
        return read_utf8(self.path) if self.unit == "byte" else read_text(self.path).encode()
