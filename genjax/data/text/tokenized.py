"""Text tokenised by byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909), by the library `tokenizers`."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Integer

from genjax.core.errors import UserError
from genjax.core.extras import require
from genjax.data.examples import Windows
from genjax.data.source import check_split
from genjax.data.text.text import StdlibBytes, TextSource, decode_utf8, read_file, split_contiguous, windows

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def _library() -> ModuleType:
    """The library, with its submodules."""
    return require("tokenizers", "multimodal", "text tokenised by byte pairs")


@dataclasses.dataclass(frozen=True)
class Encoding:
    """The map between text and tokens of a tokenizer.json; see `text.Vocabulary`.

    Attributes:
        path: of a tokenizer.json.
    """

    path: str

    @functools.cached_property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer of the library.

        Raises:
            UserError: the file cannot be read, or is damaged.
        """
        if not pathlib.Path(self.path).is_file():
            raise UserError(f"no tokenizer '{self.path}'")
        library = _library()
        try:
            return library.Tokenizer.from_file(self.path)
        except Exception as error:  # the library raises Exception
            raise UserError(f"the tokenizer '{self.path}' is damaged: {error}") from None

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def encode(self, text: bytes) -> Integer[np.ndarray, " n"]:
        """Encodes UTF-8 as int32 tokens, without special tokens."""
        return np.array(self.tokenizer.encode(decode_utf8(text), add_special_tokens=False).ids, np.int32)

    def decode(self, tokens: Integer[np.ndarray, " n"]) -> str:
        """Decodes tokens, special tokens included."""
        return self.tokenizer.decode(tokens.tolist(), skip_special_tokens=False)


@dataclasses.dataclass(frozen=True)
class TokenizedText(TextSource):
    """Windows of tokens of a local text file; see `text.TextFile` for its splits.

    Attributes:
        path: the file; empty for the modules of the Python standard library, see `text.StdlibBytes`.
        tokenizer: path of a tokenizer.json.
        length: tokens in a window.
        train: fraction of characters for training.
        validation: fraction of the rest for validation; the remainder is the test split.
    """

    path: str
    tokenizer: str
    length: int = 128
    train: float = 0.9
    validation: float = 0.5

    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test")

    @functools.cached_property
    def vocabulary(self) -> Encoding:
        """The map between text and tokens."""
        return Encoding(self.tokenizer)

    def load(self, split: str) -> Windows:
        """Reads one split; see `Source.load`. Splits are encoded separately: no token spans two of them."""
        if not self.path:
            whole = StdlibBytes().text("train" if split == "train" else "test")
            return windows(self.vocabulary.encode(whole), self.length, split)
        check_split(split, self.splits)
        part = split_contiguous(decode_utf8(read_file(self.path)), self.splits, self.train, self.validation)[
            split
        ]
        return windows(self.vocabulary.encode(part.encode()), self.length, split)


def train_tokenizer(texts: Iterable[str], size: int, path: pathlib.Path) -> "Tokenizer":
    """Trains a byte-level BPE tokenizer, which can encode any text, and writes it as tokenizer.json.

    Args:
        texts: training corpus.
        size: of the vocabulary, at least 257: the 256 bytes, and <|endoftext|> as token 0.
        path: the file to write.

    Returns:
        The tokenizer.

    Raises:
        UserError: the size is too small, or the file cannot be written.
    """
    if size < 257:
        raise UserError(f"a byte-level vocabulary needs at least 257 tokens, not {size}")
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    try:
        path.write_text(tokenizer.to_str())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    return tokenizer
