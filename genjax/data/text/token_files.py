"""Writes the folders of token files that `tokens.Tokens` reads.

A document is a file, or a part of one between separators. It belongs to the test split if the CRC-32 of its text is
below a threshold: all copies of a document are in the same split, whichever other documents are prepared.
"""

import hashlib
import itertools
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Integer

from genjax.core.checksums import with_checksum
from genjax.core.errors import UserError, nearest
from genjax.core.files import write_atomic, writing
from genjax.data.text.reading import read_text, with_newlines
from genjax.data.text.text import Vocabulary
from genjax.data.text.tokenized import Encoding
from genjax.data.text.tokens import BYTES, FORMAT, KIND, NAME, TOKENIZER

SHARD = 2**27  # approximate number of tokens in a file
BATCH_SIZE = 256  # documents encoded in one call
END = "<|endoftext|>"


class Writer:
    """Writes the files of one split, one after the other.

    Attributes:
        documents: number of documents added.
        files: entries of tokens.json for the finished files.
    """

    def __init__(self, folder: Path, split: str, dtype: str, shard: int):
        """Starts the files folder/split-00000.bin, folder/split-00001.bin, ...

        Args:
            folder: existing.
            split: prefix of the files' names.
            dtype: name of the tokens' integer dtype; files are little-endian.
            shard: number of tokens after which a file ends, at the end of a document.
        """
        self._folder, self._split, self._shard = folder, split, shard
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self.documents, self.files = 0, list[dict[str, Any]]()
        self._file: BinaryIO | None = None
        self._sum, self._size = hashlib.sha256(), 0

    def add(self, tokens: Integer[np.ndarray, " n"]) -> None:
        """Appends one document."""
        if self._file is None:
            self._file = (self._folder / f"{self._split}-{len(self.files):05}.bin").open("wb")
        data = tokens.astype(self._dtype).tobytes()
        self._file.write(data)
        self._sum.update(data)
        self._size += len(data)
        self.documents += 1
        if self._size >= self._shard * self._dtype.itemsize:
            self.close()

    def close(self) -> None:
        """Finishes the current file."""
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        name = Path(self._file.name).name
        self.files.append({"name": name, "size": self._size, "sha256": self._sum.hexdigest()})
        self._file, self._sum, self._size = None, hashlib.sha256(), 0

    def summary(self) -> dict[str, Any]:
        """The entry of the split in tokens.json."""
        tokens = sum(file["size"] for file in self.files) // self._dtype.itemsize
        return {"tokens": tokens, "documents": self.documents, "files": self.files}


def documents(paths: Iterable[str], separator: str, keep: bool) -> Iterator[str]:
    """Iterates over the documents of UTF-8 text files, with one file at a time in memory.

    Args:
        paths: of the files.
        separator: between documents of a file, with any line ends; "" if each file is one document.
        keep: whether a document includes the separator after it.

    Yields:
        Documents that are not empty.

    Raises:
        UserError: a file cannot be read, or is not UTF-8.
    """
    for path in paths:
        text, between = read_text(path), with_newlines(separator)
        parts = text.split(between) if between else [text]
        last = len(parts) - 1
        for number, part in enumerate(parts):
            if part:
                yield part + between if keep and number < last else part


def is_test(document: str, fraction: float) -> bool:
    """Whether a document belongs to the test split, which has about this fraction of all documents."""
    return zlib.crc32(document.encode()) < fraction * 2**32


def write(
    paths: Sequence[str],
    tokenizer: str,
    out: Path,
    *,
    separator: str = "",
    test: float = 0.1,
    end: str | None = None,
    shard: int = SHARD,
) -> dict[str, Any]:
    """Converts text files to a folder of token files.

    Args:
        paths: of the text files; documents keep their order.
        tokenizer: path of a tokenizer.json, or "byte".
        out: the folder, new or empty.
        separator: between documents of a file; "" if each file is one document.
        test: approximate fraction of documents in the test split.
        end: the tokenizer's token that ends each document; None for "<|endoftext|>" if the tokenizer has it. Without
            an end token, and for bytes, the separator stays in the text.
        shard: approximate number of tokens in a file.

    Returns:
        The contents of tokens.json, without its checksum.

    Raises:
        UserError: a file cannot be read or written, the folder is not empty, or a split would be empty.
    """
    encoding = None if tokenizer == BYTES else Encoding(tokenizer)
    size = 256 if encoding is None else len(encoding)
    last = _end_token(encoding, end)
    dtype = "uint8" if size <= 2**8 else "uint16" if size <= 2**16 else "uint32"
    if not 0.0 < test < 1.0:
        raise UserError(f"test={test} must lie between 0 and 1")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise UserError(f"{out} is not empty: choose another folder")
        writers = {split: Writer(out, split, dtype, shard) for split in ("train", "test")}
        stream = ((path, text) for path in paths for text in documents([path], separator, keep=last is None))
        while chunk := list(itertools.islice(stream, BATCH_SIZE)):
            for (_, document), tokens in zip(chunk, _encode(encoding, chunk, last), strict=True):
                complete = tokens if last is None else np.append(tokens, last)
                writers["test" if is_test(document, test) else "train"].add(complete)
        for split, writer in writers.items():
            writer.close()
            if not writer.documents:
                count = sum(each.documents for each in writers.values())
                raise UserError(
                    f"none of the {count} documents is in the {split} split: set separator=... or test=..."
                )
        if encoding is not None:
            shutil.copyfile(tokenizer, out / TOKENIZER)
        body = {
            "format": FORMAT,
            "kind": KIND,
            "dtype": dtype,
            "vocabulary": size,
            "tokenizer": BYTES if encoding is None else TOKENIZER,
            "end": last,
        }
        body["splits"] = {split: writer.summary() for split, writer in writers.items()}
        write_atomic(out / NAME, with_checksum(body))
    return body


def _end_token(encoding: Encoding | None, word: str | None) -> int | None:
    """The token that ends each document, or None."""
    if encoding is None:
        if word is not None:
            raise UserError("bytes have no token for the end of a document: leave out end=...")
        return None
    found = encoding.tokenizer.token_to_id(word or END)
    if found is None and word is not None:
        known = [token.content for token in encoding.tokenizer.get_added_tokens_decoder().values()]
        raise UserError(f"the tokenizer has no token '{word}': {nearest(word, known)}")
    return found


def _encode(
    encoding: Encoding | None, chunk: list[tuple[str, str]], end: int | None
) -> list[Integer[np.ndarray, " _"]]:
    """The tokens of documents, given as (path of the file, text), without special tokens.

    Raises:
        UserError: one cannot be encoded, or has the token that ends documents; names its file.
    """
    texts = [text for _, text in chunk]
    if encoding is None:
        return [Vocabulary().encode(text.encode()) for text in texts]
    try:
        rows = encoding.encode_all(texts)
    except UserError as error:
        if len(chunk) == 1:
            raise UserError(f"'{chunk[0][0]}': {error}") from None
        return [row for each in chunk for row in _encode(encoding, [each], end)]  # raises for the file
    for (path, _), row in zip(chunk, rows, strict=True):
        if end is not None and end in row:
            word = encoding.decode(np.array([end]))
            raise UserError(
                f"'{path}' has the token {word!r}, which ends documents, in a document: choose another end="
            )
    return [row.astype(np.uint32) for row in rows]
