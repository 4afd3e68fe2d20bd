"""Short documents, one per line of text: names, words, formulas. An example is one document with an end token.

The end token is 0; characters are 1, 2, ... in the order of their code points. A row is a document, the end token, and
padding, which `mask` excludes. A document of `length` tokens or more is truncated without an end token: the row's
probability is that of all documents with this prefix.

Lines are those of `reading`, without blanks and tabs around them. Duplicate lines are removed. A line belongs to the
test split if its CRC-32 is divisible by 10, independently of the other lines, so that no test document is in training.
"""

import dataclasses
import functools
import re
import zlib
from typing import ClassVar

import numpy as np
from jaxtyping import Integer

from genjax.core.errors import UserError
from genjax.data.examples import Table
from genjax.data.packing import fill_rows, pack
from genjax.data.source import check_split
from genjax.data.text import smiles
from genjax.data.text.reading import lines, read_text
from genjax.data.text.text import StdlibBytes, TextSource, Vocabulary

DEFINITION = re.compile(rb"^[ \t]*(?:async[ \t]+def|def|class)[ \t]+([A-Za-z]\w*)", re.MULTILINE)

AMINO_ACIDS_AND_BASES = """
NCC(=O)O CC(N)C(=O)O CC(C)C(N)C(=O)O CC(C)CC(N)C(=O)O CCC(C)C(N)C(=O)O NC(CO)C(=O)O CC(O)C(N)C(=O)O NC(CS)C(=O)O
CSCCC(N)C(=O)O O=C(O)C1CCCN1 NC(Cc1ccccc1)C(=O)O NC(Cc1ccc(O)cc1)C(=O)O NC(Cc1c[nH]c2ccccc12)C(=O)O
NC(Cc1c[nH]cn1)C(=O)O NCCCCC(N)C(=O)O N=C(N)NCCCC(N)C(=O)O NC(CC(=O)O)C(=O)O NC(CCC(=O)O)C(=O)O
NC(=O)CC(N)C(=O)O NC(=O)CCC(N)C(=O)O Nc1ncnc2[nH]cnc12 Nc1nc2[nH]cnc2c(=O)[nH]1 Nc1cc[nH]c(=O)n1
Cc1c[nH]c(=O)[nH]c1=O O=c1cc[nH]c(=O)[nH]1
""".replace(" ", "\n")


@dataclasses.dataclass(frozen=True)
class DocumentVocabulary:
    """A map between documents and tokens with an end token, 0; see `text.Vocabulary`.

    Attributes:
        symbols: the characters of tokens 1, 2, ...
    """

    symbols: str

    def __len__(self) -> int:
        return len(self.symbols) + 1

    def encode(self, text: bytes) -> Integer[np.ndarray, " n"]:
        """Encodes a document or a prefix of one, in UTF-8, as int32 tokens without the end token."""
        return Vocabulary(self.symbols).encode(text).astype(np.int32) + 1

    def decode(self, tokens: Integer[np.ndarray, " n"]) -> str:
        """Decodes the tokens before the first end token, if there is one."""
        ends = np.flatnonzero(tokens == 0)
        return Vocabulary(self.symbols).decode(tokens[: ends[0] if ends.size else None] - 1)


@dataclasses.dataclass(frozen=True)
class Lines(TextSource):
    """The lines of a local text file, or names of Python's standard library.

    Attributes:
        path: the file; empty for the names of functions, methods and classes that the top-level modules of this
            Python's standard library define and that start with a letter. They differ slightly between versions.
        length: tokens of a row.
        packed: whether to pack several documents into a row of the training split, see `packing`; test rows hold one.
    """

    path: str = ""
    length: int = 16
    packed: bool = False

    builtin: ClassVar[str] = "the names of Python's standard library"

    def __post_init__(self) -> None:
        if self.length < 1:
            raise UserError(f"length={self.length} must be at least 1 (config.data.source.length)")

    @functools.cached_property
    def vocabulary(self) -> DocumentVocabulary:
        """Vocabulary of the characters in all documents."""
        return DocumentVocabulary("".join(sorted(set("".join(self._documents)))))

    def documents(self, split: str) -> list[str]:
        """The documents of one split, in the order of their first occurrence.

        Raises:
            UserError: there is no such split.
        """
        check_split(split, self.splits)
        return [
            text for text in self._documents if (zlib.crc32(text.encode()) % 10 == 0) == (split == "test")
        ]

    def load(self, split: str) -> Table:
        """Reads one split: "x" int32, "mask" bool, and "segment" int32 if packed; see `Source.load`.

        Raises:
            UserError: there is no such split, or one of them has no document.
        """
        check_split(split, self.splits)
        if empty := [each for each in self.splits if not self.documents(each)]:
            raise UserError(
                f"none of the {len(self._documents)} documents of {self.file} is in the {empty[0]} split: use more"
            )
        rows = [self._tokens(text) for text in self.documents(split)]
        if self.packed and split == "train":
            return pack(rows, self.length)
        table = fill_rows(rows, np.arange(len(rows)), self.length).arrays
        return Table({name: array for name, array in table.items() if self.packed or name != "segment"})

    def _tokens(self, text: str) -> Integer[np.ndarray, " n"]:
        return np.append(self.vocabulary.encode(text.encode()), np.int32(0))[: self.length]

    @property
    def file(self) -> str:
        """What is read, for messages."""
        return f"'{self.path}'" if self.path else self.builtin

    def describe(self) -> str:
        """The number of documents, duplicates, symbols and of documents that do not fit a row, end included."""
        lengths = [len(text) for text in self._documents]
        notes = {
            "duplicate lines left out": len(self._lines) - len(lengths),
            f"cut to {self.length} tokens, end included": sum(each >= self.length for each in lengths),
        }
        return (
            f"{self.file}: {len(lengths):,} documents, {len(self.vocabulary.symbols)} symbols, longest {max(lengths)}"
            + "".join(f"; {what}: {count:,}" for what, count in notes.items() if count)
        )

    @functools.cached_property
    def _documents(self) -> list[str]:
        found = list(dict.fromkeys(self._lines))
        if len(found) < 20:
            raise UserError(f"{self.file} holds {len(found)} different lines, too few to split")
        return found

    @functools.cached_property
    def _lines(self) -> list[str]:
        """The documents of the file, with duplicates."""
        return self._parse(lines(self._text()))

    def _parse(self, rows: list[str]) -> list[str]:
        return rows

    def _text(self) -> str:
        if not self.path:
            texts = (StdlibBytes().text(split) for split in ("train", "test"))
            return b"\n".join(sorted({name for text in texts for name in DEFINITION.findall(text)})).decode()
        return read_text(self.path)


@dataclasses.dataclass(frozen=True)
class Smiles(Lines):
    """Molecules, one SMILES per line; evaluated by `genjax.metrics.text.molecules` too.

    Titles after the SMILES, comments and a header are left out, see `smiles.molecules`.

    Attributes:
        path: the file; empty for the amino acids of proteins and the bases of nucleic acids, a tiny set for tests and
            demonstrations.
        length: tokens of a row.
        packed: see `Lines`.
    """

    builtin: ClassVar[str] = "amino acids and bases"

    def describe(self) -> str:
        """As `Lines.describe`, and the number of documents that are no molecules."""
        invalid = smiles.describe_invalid(self._documents)
        return super().describe() + (f"; {invalid}" if invalid else "")

    def _parse(self, rows: list[str]) -> list[str]:
        return smiles.molecules(rows, self.path)

    def _text(self) -> str:
        return super()._text() if self.path else AMINO_ACIDS_AND_BASES
