"""Short documents, each a line of text: names, words, formulas. An example is one document with its end.

The end is a token of its own, 0; the characters are 1, 2, ... in the order of their code points. A row is the tokens of
a document, the end, and nothing after that: `mask` is true for what counts. A document that has no room for its end is
cut, so that the probability of the row is that of all documents that begin so.

Repeated lines count once, and a line belongs to the test split if its CRC-32 is divisible by 10: to the same split
whatever else is in the file, so that no test document was trained on.
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
from genjax.data.packing import lay, pack
from genjax.data.source import Kind, check_split
from genjax.data.text.text import StdlibBytes, Vocabulary, decode_utf8, read_file

DEFINED = re.compile(rb"^[ \t]*(?:async[ \t]+def|def|class)[ \t]+([A-Za-z]\w*)", re.MULTILINE)

AMINO_ACIDS_AND_BASES = """
NCC(=O)O CC(N)C(=O)O CC(C)C(N)C(=O)O CC(C)CC(N)C(=O)O CCC(C)C(N)C(=O)O NC(CO)C(=O)O CC(O)C(N)C(=O)O NC(CS)C(=O)O
CSCCC(N)C(=O)O O=C(O)C1CCCN1 NC(Cc1ccccc1)C(=O)O NC(Cc1ccc(O)cc1)C(=O)O NC(Cc1c[nH]c2ccccc12)C(=O)O
NC(Cc1c[nH]cn1)C(=O)O NCCCCC(N)C(=O)O N=C(N)NCCCC(N)C(=O)O NC(CC(=O)O)C(=O)O NC(CCC(=O)O)C(=O)O
NC(=O)CC(N)C(=O)O NC(=O)CCC(N)C(=O)O Nc1ncnc2[nH]cnc12 Nc1nc2[nH]cnc2c(=O)[nH]1 Nc1cc[nH]c(=O)n1
Cc1c[nH]c(=O)[nH]c1=O O=c1cc[nH]c(=O)[nH]1
""".replace(" ", "\n")


@dataclasses.dataclass(frozen=True)
class Endings:
    """A map between documents and tokens; the counterpart of `text.Vocabulary`.

    Attributes:
        symbols: the characters of tokens 1, 2, ...
    """

    symbols: str

    def __len__(self) -> int:
        return len(self.symbols) + 1

    def encode(self, text: bytes) -> Integer[np.ndarray, " n"]:
        """Turns the beginning of a document, UTF-8, into int32 tokens, without the end; see `text.Vocabulary`."""
        return Vocabulary(self.symbols).encode(text).astype(np.int32) + 1

    def decode(self, tokens: Integer[np.ndarray, " n"]) -> str:
        """The document: what stands before the end, if there is one."""
        ends = np.flatnonzero(tokens == 0)
        return Vocabulary(self.symbols).decode(tokens[: ends[0] if ends.size else None] - 1)


@dataclasses.dataclass(frozen=True)
class Lines:
    """The lines of a local text file, or names of Python's standard library.

    Attributes:
        path: the file; empty for what the top-level modules of this Python's standard library define: names of
            functions, methods and classes that begin with a letter. They differ a little between versions of Python.
        length: tokens of a row.
        packed: put several documents into a row of the training split, see `packing`; the test split keeps one in each.
    """

    path: str = ""
    length: int = 16
    packed: bool = False

    kind: ClassVar[Kind] = "text"
    dtype: ClassVar[str] = "int32"
    classes: ClassVar[int] = 0
    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    @property
    def shape(self) -> tuple[int, ...]:
        """One row."""
        return (self.length,)

    @property
    def levels(self) -> int:
        """Number of tokens; reads the file."""
        return len(self.vocabulary)

    @functools.cached_property
    def vocabulary(self) -> Endings:
        """Of the characters in all documents."""
        return Endings("".join(sorted(set("".join(self._documents)))))

    def documents(self, split: str) -> list[str]:
        """The documents of one split, in the order in which they come first.

        Raises:
            UserError: there is no such split.
        """
        check_split(split, self.splits)
        return [
            text for text in self._documents if (zlib.crc32(text.encode()) % 10 == 0) == (split == "test")
        ]

    def load(self, split: str) -> Table:
        """Reads one split: "x" int32, "mask" bool, and "segment" int32 of packed ones; see `Source.load`."""
        rows = [self._tokens(text) for text in self.documents(split)]
        if self.packed and split == "train":
            return pack(rows, self.length)
        table = lay(rows, np.arange(len(rows)), self.length).arrays
        return Table({name: array for name, array in table.items() if self.packed or name != "segment"})

    def _tokens(self, text: str) -> Integer[np.ndarray, " n"]:
        return np.append(self.vocabulary.encode(text.encode()), np.int32(0))[: self.length]

    @functools.cached_property
    def _documents(self) -> list[str]:
        found = dict.fromkeys(line.strip() for line in self._text().splitlines())
        found.pop("", None)
        if len(found) < 20:
            raise UserError(f"'{self.path}' holds {len(found)} different lines, too few to part")
        return list(found)

    def _text(self) -> str:
        if not self.path:
            texts = (StdlibBytes().text(split) for split in ("train", "test"))
            return b"\n".join(sorted({name for text in texts for name in DEFINED.findall(text)})).decode()
        return decode_utf8(read_file(self.path))


@dataclasses.dataclass(frozen=True)
class Smiles(Lines):
    """Molecules, a SMILES a line: documents that are also judged as molecules (`genjax.metrics.text.molecules`).

    Attributes:
        path: the file; empty for the amino acids of proteins and the bases of nucleic acids, which show no more than
            how it goes.
        length: tokens of a row.
        packed: see `Lines`.
    """

    def _text(self) -> str:
        return super()._text() if self.path else AMINO_ACIDS_AND_BASES
