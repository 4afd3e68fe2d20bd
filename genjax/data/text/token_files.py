"""Writes the folders of token files that `tokens.Tokens` reads.

A document is a file, or a part of one between separators. It belongs to the test split if the CRC-32 of its text is
small enough: to the same split whatever else is prepared with it, and so does every copy of it.
"""

import contextlib
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

from genjax.core.checksums import sealed
from genjax.core.errors import UserError, nearest
from genjax.data.text.text import Vocabulary, decode_utf8, read_file
from genjax.data.text.tokenized import Encoding
from genjax.data.text.tokens import BYTES, FORMAT, KIND, NAME, TOKENIZER

SHARD = 2**27  # tokens in a file, about
TOGETHER = 256  # documents encoded at once
END = "<|endoftext|>"


class Writer:
    """The files of one split, filled one after the other.

    Attributes:
        documents: how many were added.
        files: what tokens.json says of those that are finished.
    """

    def __init__(self, folder: Path, split: str, dtype: str, shard: int):
        """Writes folder/split-00000.bin and so on, of `shard` tokens and what is left of a document."""
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
        """Finishes the file that is being written."""
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        name = Path(self._file.name).name
        self.files.append({"name": name, "size": self._size, "sha256": self._sum.hexdigest()})
        self._file, self._sum, self._size = None, hashlib.sha256(), 0

    def described(self) -> dict[str, Any]:
        """What tokens.json says of the split."""
        tokens = sum(file["size"] for file in self.files) // self._dtype.itemsize
        return {"tokens": tokens, "documents": self.documents, "files": self.files}


def documents(paths: Iterable[str], separator: str, keep: bool) -> Iterator[str]:
    """Walks through the documents of UTF-8 text files; one file at a time is in memory.

    Args:
        paths: of the files.
        separator: what stands between documents; "" if a file is one.
        keep: whether a document includes the separator after it.

    Raises:
        UserError: a file cannot be read, or is not UTF-8.
    """
    for path in paths:
        try:
            text = decode_utf8(read_file(path))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        parts = text.split(separator) if separator else [text]
        last = len(parts) - 1
        for number, part in enumerate(parts):
            if part:
                yield part + separator if keep and number < last else part


def is_test(document: str, fraction: float) -> bool:
    """Whether a document belongs to the test split, of about this fraction of documents."""
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
    """Turns text files into a folder of token files.

    Args:
        paths: of the text files, in the order in which they are written.
        tokenizer: path of a tokenizer.json, or "byte".
        out: the folder, new or empty.
        separator: between documents within a file; "" if a file is one.
        test: fraction of documents in the test split.
        end: the token that follows each document, of the tokenizer; None is "<|endoftext|>" if it has that. Without
            one, and of bytes, the separator stays in the text.
        shard: tokens after which a file is ended.

    Returns:
        What tokens.json says.

    Raises:
        UserError: a file cannot be read or written, the folder is not empty, or a split would be.
    """
    encoding = None if tokenizer == BYTES else Encoding(tokenizer)
    size = 256 if encoding is None else len(encoding)
    last = _end(encoding, end)
    dtype = "uint8" if size <= 2**8 else "uint16" if size <= 2**16 else "uint32"
    if not 0.0 < test < 1.0:
        raise UserError(f"test={test} must lie between 0 and 1")
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise UserError(f"{out} is not empty: choose another folder")
        writers = {split: Writer(out, split, dtype, shard) for split in ("train", "test")}
        walk = documents(paths, separator, keep=last is None)
        while chunk := list(itertools.islice(walk, TOGETHER)):
            for document, tokens in zip(chunk, _encode(encoding, chunk), strict=True):
                ended = tokens if last is None else np.append(tokens, last)
                writers["test" if is_test(document, test) else "train"].add(ended)
        for split, writer in writers.items():
            writer.close()
            if not writer.documents:
                few = sum(each.documents for each in writers.values())
                raise UserError(
                    f"none of the {few} documents is in the {split} split: say --separator, or --test"
                )
        if encoding is not None:
            shutil.copyfile(tokenizer, out / TOKENIZER)
        made = BYTES if encoding is None else TOKENIZER
        body = {
            "format": FORMAT,
            "kind": KIND,
            "dtype": dtype,
            "vocabulary": size,
            "tokenizer": made,
            "end": last,
        }
        body["splits"] = {split: writer.described() for split, writer in writers.items()}
        temporary = out / f"{NAME}.tmp"
        temporary.write_text(sealed(body))
        temporary.replace(out / NAME)
    return body


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None


def _end(encoding: Encoding | None, word: str | None) -> int | None:
    """The token that follows each document."""
    if encoding is None:
        if word is not None:
            raise UserError("bytes have no token for the end of a document: leave out --end")
        return None
    found = encoding.tokenizer.token_to_id(word or END)
    if found is None and word is not None:
        known = [token.content for token in encoding.tokenizer.get_added_tokens_decoder().values()]
        raise UserError(f"the tokenizer has no token '{word}': {nearest(word, known)}")
    return found


def _encode(encoding: Encoding | None, texts: list[str]) -> list[np.ndarray]:
    """The tokens of each text, none added."""
    if encoding is None:
        return [Vocabulary().encode(text.encode()) for text in texts]
    found = encoding.tokenizer.encode_batch(texts, add_special_tokens=False)
    return [np.array(each.ids, np.uint32) for each in found]
