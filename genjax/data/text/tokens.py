"""Memory-mapped token files: a corpus of any size, of which only the requested windows are read.

`./launch/local.sh prepare` (see `token_files`) writes a folder:

    tokens.json          {"format", "kind", "dtype", "vocabulary", "tokenizer", "end", "splits", "sha256"}; written last
    train-00000.bin ...  little-endian tokens of concatenated documents; a stream continues in the next file
    test-00000.bin ...
    tokenizer.json       the tokenizer, unless tokens are bytes
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Integer

from genjax.core import checksums
from genjax.core.errors import UserError
from genjax.core.tree import tunable
from genjax.data.text.text import StreamSource, Vocabulary
from genjax.data.text.tokenized import Encoding

FORMAT, KIND = 1, "genjax tokens"
NAME, TOKENIZER, BYTES = "tokens.json", "tokenizer.json", "byte"
DTYPES = ("uint8", "uint16", "uint32")


@dataclasses.dataclass(frozen=True, eq=False)
class Shards:
    """A stream of tokens in several files, which each process maps on first access; see `examples.Stream`.

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
        """Reads tokens[start : start + length] for each start, across file boundaries."""
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
class Tokens(StreamSource):
    """Windows of the token files that `prepare` has written.

    Attributes:
        path: the folder.
        length: tokens in a window; the training split holds all windows, the test split disjoint ones.
        verify: whether to check the files' SHA-256 sums and the range of their tokens when they are opened, about a
            second per GiB; sizes are always checked. Tunable.
    """

    path: str = ""
    length: int = 128
    verify: bool = tunable(True)

    @property
    def levels(self) -> int:
        """Size of the vocabulary, from tokens.json; 256 if `path` is empty."""
        return self.metadata["vocabulary"] if self.path else 256

    @property
    def end(self) -> int | None:
        """The token that ends each document, or None."""
        return self.metadata["end"]

    @functools.cached_property
    def vocabulary(self) -> Vocabulary | Encoding:
        """The map between text and tokens.

        Raises:
            UserError: the tokenizer has not as many tokens as tokens.json says.
        """
        if self.metadata["tokenizer"] == BYTES:
            return Vocabulary()
        encoding = Encoding(str(Path(self.path) / TOKENIZER))
        if len(encoding) != self.levels:
            raise UserError(
                f"{TOKENIZER} in '{self.path}' has {len(encoding)} tokens, {NAME} says {self.levels}: prepare it again"
            )
        return encoding

    @functools.cached_property
    def metadata(self) -> dict[str, Any]:
        """The contents of tokens.json.

        Raises:
            UserError: it is missing, damaged, of another format or kind, or has an entry that cannot be; names it.
        """
        if not self.path:
            raise UserError(
                "Tokens needs a folder that `prepare` has written: set config.data.source.path=DIR"
            )
        try:
            body = checksums.read_checksummed(Path(self.path) / NAME)
        except checksums.ChecksumError as error:
            raise UserError(f"'{self.path}' is not a folder of token files, or is damaged: {error}") from None
        if body.get("kind") != KIND or body.get("format") != FORMAT:
            raise UserError(
                f"{NAME} in '{self.path}' is {body.get('kind')} of format {body.get('format')}; this genjax reads "
                f"{KIND} of format {FORMAT}: prepare it again"
            )
        if wrong := _wrong_entry(body):
            raise UserError(f"{wrong!r} of {NAME} in '{self.path}' cannot be: prepare it again")
        return body

    @property
    def file(self) -> str:
        """See `StreamSource.file`."""
        return f"'{self.path}'"

    def stream(self, split: str) -> Shards:
        """Opens the files of one split.

        Raises:
            UserError: a file is missing, has changed, or has a token outside the vocabulary.
        """
        dtype, levels = np.dtype(self.metadata["dtype"]), self.levels
        files = self.metadata["splits"][split]["files"]
        for file in files:
            path = Path(self.path) / file["name"]
            _check(path, file["size"], file["sha256"] if self.verify else None)
            if self.verify and levels <= np.iinfo(dtype).max:
                largest = _largest(path, dtype.name, path.stat().st_mtime_ns)
                if largest >= levels:
                    raise UserError(
                        f"token file {path} has the token {largest}, outside the vocabulary of {levels} in {NAME}: "
                        "prepare it again"
                    )
        paths = tuple(str(Path(self.path) / file["name"]) for file in files)
        return Shards(paths, tuple(file["size"] // dtype.itemsize for file in files), dtype.name)


def _wrong_entry(body: dict[str, Any]) -> str:
    """The first entry of tokens.json that is missing or impossible, "" if all are right."""
    dtype, size, end = body.get("dtype"), body.get("vocabulary"), body.get("end")
    if dtype not in DTYPES:
        return "dtype"
    if not isinstance(size, int) or not 1 <= size <= np.iinfo(dtype).max + 1:
        return "vocabulary"
    tokenizer = body.get("tokenizer")
    if tokenizer not in (BYTES, TOKENIZER) or (tokenizer == BYTES and size != 256):
        return "tokenizer"
    if end is not None and not (isinstance(end, int) and 0 <= end < size):
        return "end"
    splits, item = body.get("splits"), np.dtype(dtype).itemsize
    try:
        files = [file for split in Tokens.splits for file in splits[split]["files"]]  # type: ignore[index]
        right = all(
            {"name": str, "size": int, "sha256": str} == {name: type(value) for name, value in file.items()}
            and file["size"] % item == 0
            for file in files
        )
    except (KeyError, TypeError, AttributeError):
        right = False
    return "" if right else "splits"


@functools.lru_cache(maxsize=1024)
def _largest(path: Path, dtype: str, modified: int) -> int:
    """The largest token of a file; `modified` is part of the cache key."""
    tokens = np.memmap(path, np.dtype(dtype).newbyteorder("<"), "r") if path.stat().st_size else np.zeros(1)
    return int(max(tokens[start : start + 2**24].max() for start in range(0, len(tokens), 2**24)))


def _check(path: Path, size: int, sha256: str | None) -> None:
    """Checks the size and the SHA-256 sum (None to skip it) of a file.

    Raises:
        UserError: it is missing, or has changed.
    """
    try:
        status = path.stat()
        if status.st_size != size:
            raise UserError(
                f"token file {path} has {status.st_size} bytes instead of {size}: prepare it again"
            )
        if sha256 is not None and _sha256(path, status.st_mtime_ns) != sha256:
            raise UserError(f"token file {path} has changed since it was written: prepare it again")
    except OSError as error:
        raise UserError(f"cannot read the token file {path}: {error.strerror}") from None


@functools.lru_cache(maxsize=1024)
def _sha256(path: Path, modified: int) -> str:
    """The SHA-256 of a file; `modified` is part of the cache key."""
    return checksums.file_checksum(path)["sha256"]
