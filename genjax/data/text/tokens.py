"""Token files, read by mapping them into memory: a corpus of any size, of which only the windows asked for are read.

`./launch/local.sh prepare` (see `token_files`) writes a folder:

    tokens.json          {"format", "kind", "dtype", "vocabulary", "tokenizer", "end", "splits", "sha256"}; written last
    train-00000.bin ...  little-endian tokens, the documents one after the other; a stream goes on in the next file
    test-00000.bin ...
    tokenizer.json       what made them, unless they are bytes
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int, Integer

from genjax.core import checksums
from genjax.core.errors import UserError
from genjax.core.tree import tunable
from genjax.data.examples import Windows
from genjax.data.source import Kind, check_split
from genjax.data.text.text import Vocabulary
from genjax.data.text.tokenized import Encoding

FORMAT, KIND = 1, "genjax tokens"
NAME, TOKENIZER, BYTES = "tokens.json", "tokenizer.json", "byte"


@dataclasses.dataclass(frozen=True, eq=False)
class Shards:
    """One stream of tokens in several files; a process maps them when it first reads. See `examples.Stream`.

    Attributes:
        files: their paths, in order.
        counts: tokens in each.
        dtype: of the tokens.
    """

    files: tuple[str, ...]
    counts: tuple[int, ...]
    dtype: str

    def __len__(self) -> int:
        return sum(self.counts)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.concatenate(self._maps).astype(dtype or self.dtype, copy=False)

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens."""
        return len(self) * np.dtype(self.dtype).itemsize

    def windows(self, starts: Int[np.ndarray, " b"], length: int) -> Integer[np.ndarray, "b length"]:
        """Reads tokens[start : start + length] for each start, across the ends of files."""
        rows = np.empty((len(starts), length), self.dtype)
        for row, start, number in zip(
            rows, starts, np.searchsorted(self._ends, starts, "right"), strict=True
        ):
            filled = 0
            while filled < length:
                file = self._maps[number]
                first = start + filled - (self._ends[number] - len(file))
                part = file[first : first + length - filled]
                row[filled : filled + len(part)] = part
                filled, number = filled + len(part), number + 1
        return rows

    @functools.cached_property
    def _maps(self) -> list[np.ndarray]:
        return [np.memmap(file, np.dtype(self.dtype).newbyteorder("<"), "r") for file in self.files]

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(self.counts)


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Windows of the tokens in a folder that `prepare` has written.

    Attributes:
        path: the folder.
        length: tokens in a window; a training split holds every window, the test split disjoint ones.
        verify: compare the files with their sums when they are opened, about a second for each GiB; their sizes are
            always compared. Tunable.
    """

    path: str = ""
    length: int = 128
    verify: bool = tunable(True)

    kind: ClassVar[Kind] = "text"
    dtype: ClassVar[str] = "int32"
    classes: ClassVar[int] = 0
    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    @property
    def shape(self) -> tuple[int, ...]:
        """One window."""
        return (self.length,)

    @property
    def levels(self) -> int:
        """Size of the vocabulary; reads tokens.json, and is 256 while no path is said."""
        return self.described["vocabulary"] if self.path else 256

    @property
    def end(self) -> int | None:
        """The token that ends each document, if there is one."""
        return self.described["end"]

    @functools.cached_property
    def vocabulary(self) -> Vocabulary | Encoding:
        """Between text and tokens."""
        if self.described["tokenizer"] == BYTES:
            return Vocabulary()
        return Encoding(str(Path(self.path) / TOKENIZER))

    @functools.cached_property
    def described(self) -> dict[str, Any]:
        """What tokens.json says.

        Raises:
            UserError: it is missing, damaged, of another format, or of something else.
        """
        if not self.path:
            raise UserError("Tokens reads what `prepare` has written: say --config.data.source.path=DIR")
        try:
            body = checksums.unsealed(Path(self.path) / NAME)
        except checksums.Damaged as error:
            raise UserError(f"'{self.path}' is no folder of token files, or is damaged: {error}") from None
        if body.get("kind") != KIND or body.get("format") != FORMAT:
            raise UserError(
                f"{NAME} in '{self.path}' is {body.get('kind')} of format {body.get('format')}; this genjax reads "
                f"{KIND} of format {FORMAT}: prepare it again"
            )
        return body

    def load(self, split: str) -> Windows:
        """Opens one split; see `Source.load`.

        Raises:
            UserError: also if a file is missing or is not as it was written.
        """
        check_split(split, self.splits)
        files = self.described["splits"][split]["files"]
        for file in files:
            _check(Path(self.path) / file["name"], file["size"], file["sha256"] if self.verify else None)
        paths = tuple(str(Path(self.path) / file["name"]) for file in files)
        size = np.dtype(self.described["dtype"]).itemsize
        shards = Shards(paths, tuple(file["size"] // size for file in files), self.described["dtype"])
        return Windows(shards, self.length, stride=1 if split == "train" else self.length)


def _check(path: Path, size: int, sha256: str | None) -> None:
    """Compares a file with what was written.

    Raises:
        UserError: it is missing, or differs.
    """
    try:
        status = path.stat()
        if status.st_size != size:
            raise UserError(
                f"token file {path} has {status.st_size} bytes instead of {size}: prepare it again"
            )
        if sha256 is not None and _sum(path, status.st_mtime_ns) != sha256:
            raise UserError(f"token file {path} has changed since it was written: prepare it again")
    except OSError as error:
        raise UserError(f"cannot read the token file {path}: {error.strerror}") from None


@functools.lru_cache(maxsize=1024)
def _sum(path: Path, modified: int) -> str:
    """The SHA-256 of a file, computed once for each time that it was changed."""
    return checksums.summed(path)["sha256"]
