"""Text tokenised by byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909), by the library `tokenizers`.

All of a text is encoded as text: a special token that it spells ("<|endoftext|>") is the characters of this word, and
what the tokenizer cannot encode is refused. A prompt is encoded as `transformers` does it: special tokens that it
spells are these tokens, and the tokenizer's template adds its own, such as one that begins a text.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Integer

from genjax.core.errors import UserError
from genjax.core.extras import require
from genjax.core.files import writing
from genjax.data.text.reading import read_text
from genjax.data.text.text import StdlibBytes, StreamSource, check_fractions, decode_utf8, split_contiguous

if TYPE_CHECKING:
    from tokenizers import Encoding as TokenizersEncoding
    from tokenizers import Tokenizer


def _library() -> ModuleType:
    """The library, with its submodules."""
    return require("tokenizers", "multimodal", "text tokenised by byte pairs")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).split("\n")), "") or type(error).__name__


@dataclasses.dataclass(frozen=True)
class Encoding:
    """The map between text and tokens of a tokenizer.json; see `text.Vocabulary`.

    Attributes:
        path: of a tokenizer.json.
    """

    path: str

    @functools.cached_property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer of the library, without the truncation and the padding that its file may ask for.

        Raises:
            UserError: the file cannot be read, or is damaged.
        """
        tokenizer = self._open()
        tokenizer.encode_special_tokens = True  # as text
        return tokenizer

    def _open(self) -> "Tokenizer":
        if not pathlib.Path(self.path).is_file():
            raise UserError(f"no tokenizer '{self.path}'")
        library = _library()
        try:
            tokenizer = library.Tokenizer.from_file(self.path)
        except Exception as error:  # the library raises Exception
            raise UserError(f"the tokenizer '{self.path}' is damaged: {_first_line(error)}") from None
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def __len__(self) -> int:
        return self._size

    def encode(self, text: bytes) -> Integer[np.ndarray, " n"]:
        """Encodes UTF-8 as int32 tokens, none of them special.

        Raises:
            UserError: as `encode_all`.
        """
        return self.encode_all([decode_utf8(text)])[0]

    def encode_all(self, texts: Sequence[str]) -> list[Integer[np.ndarray, " _"]]:
        """Encodes each text as int32 tokens, none of them special.

        Raises:
            UserError: the tokenizer has no token for a part of a text, or cannot tell a special token that it spells
                from text; names the part.
        """
        self._check_characters(texts)
        rows = []
        for text, found in zip(texts, self._encode(texts), strict=True):
            row = np.array(found.ids, np.int32)
            if (places := np.flatnonzero(np.isin(row, list(self._special)))).size:
                token, (start, end) = int(row[places[0]]), found.offsets[places[0]]
                word = text[start:end]
                if token == self._unknown:
                    raise UserError(f"the tokenizer '{self.path}' has no token for {word!r}")
                raise UserError(
                    f"the tokenizer '{self.path}' cannot tell its special token {word!r} from text"
                )
            rows.append(row)
        return rows

    def _check_characters(self, texts: Sequence[str]) -> None:
        for char in sorted(set().union(*texts) - self._kept):
            if self._drops(char):
                raise UserError(f"the tokenizer '{self.path}' has no token for {char!r}")
            self._kept.add(char)

    def encode_prompt(self, text: str) -> Integer[np.ndarray, " n"]:
        """Encodes a prompt as int32 tokens, with the special tokens that it spells and those of the file's template.

        Raises:
            UserError: the tokenizer has no token for a part of the text.
        """
        self._check_characters([text])
        try:
            found = self._prompt_tokenizer.encode(text, add_special_tokens=True)
        except Exception as error:  # the library raises Exception
            raise UserError(f"the tokenizer '{self.path}' cannot encode: {_first_line(error)}") from None
        for token, (start, end) in zip(found.ids, found.offsets, strict=True):
            if token == self._unknown and end > start:
                raise UserError(f"the tokenizer '{self.path}' has no token for {text[start:end]!r}")
        return np.array(found.ids, np.int32)

    @functools.cached_property
    def _prompt_tokenizer(self) -> "Tokenizer":
        return self._open()

    def _encode(self, texts: Sequence[str]) -> list["TokenizersEncoding"]:
        try:
            if len(texts) == 1:  # without the library's threads, which do not survive a fork
                return [self.tokenizer.encode(texts[0], add_special_tokens=False)]
            return self.tokenizer.encode_batch(texts, add_special_tokens=False)
        except Exception as error:  # the library raises Exception
            raise UserError(f"the tokenizer '{self.path}' cannot encode: {_first_line(error)}") from None

    def _drops(self, char: str) -> bool:
        """Whether the model has no token for a character that its normaliser and splitter of words keep."""
        if char.isspace() or self._encode([char])[0].ids:
            return False
        normalizer, splitter = self.tokenizer.normalizer, self.tokenizer.pre_tokenizer
        kept = normalizer.normalize_str(char) if normalizer else char
        return bool(kept and (not splitter or splitter.pre_tokenize_str(kept)))

    @functools.cached_property
    def _kept(self) -> set[str]:
        """Characters that are known to be encoded."""
        return set()

    @functools.cached_property
    def _size(self) -> int:
        return 1 + max(self.tokenizer.get_vocab().values(), default=-1)  # numbers may be left out

    @functools.cached_property
    def _special(self) -> frozenset[int]:
        """The tokens that no text is encoded as."""
        added = self.tokenizer.get_added_tokens_decoder()
        special = {number for number, token in added.items() if token.special}
        return frozenset(special if self._unknown is None else special | {self._unknown})

    @functools.cached_property
    def _unknown(self) -> int | None:
        """The token of unknown words, which the library shows in the file alone."""
        model = json.loads(pathlib.Path(self.path).read_text(encoding="utf-8"))["model"]
        if model.get("unk_id") is not None:
            return int(model["unk_id"])
        return self.tokenizer.token_to_id(model.get("unk_token") or "")

    def decode(self, tokens: Integer[np.ndarray, " n"]) -> str:
        """Decodes tokens, special tokens included."""
        return self.tokenizer.decode(tokens.tolist(), skip_special_tokens=False)

    def trim(self, tokens: Integer[np.ndarray, " n"]) -> Integer[np.ndarray, " m"]:
        """The tokens without special ones at both ends, which begin, end and pad a sample."""
        text = np.flatnonzero(~np.isin(tokens, list(self._special)))
        return tokens[text[0] : text[-1] + 1] if text.size else tokens[:0]

    def decode_completion(self, tokens: Integer[np.ndarray, " n"]) -> str:
        """Decodes tokens, special tokens left out."""
        return self.tokenizer.decode(tokens.tolist(), skip_special_tokens=True)


@dataclasses.dataclass(frozen=True)
class TokenizedText(StreamSource):
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

    def __post_init__(self) -> None:
        check_fractions(self.train, self.validation)

    @functools.cached_property
    def vocabulary(self) -> Encoding:
        """The map between text and tokens."""
        return Encoding(self.tokenizer)

    @property
    def file(self) -> str:
        """See `StreamSource.file`."""
        return f"'{self.path}'" if self.path else StdlibBytes().file

    def stream(self, split: str) -> Integer[np.ndarray, " n"]:
        """The tokens of one split. Splits are encoded separately: no token spans two of them."""
        if split not in self._streams:
            try:
                self._streams[split] = self.vocabulary.encode(self._text(split))
            except UserError as error:
                raise UserError(f"{self.file}: {error}") from None
        return self._streams[split]

    @functools.cached_property
    def _streams(self) -> dict[str, Integer[np.ndarray, " n"]]:
        return {}

    def _text(self, split: str) -> bytes:
        if not self.path:
            return StdlibBytes().text("train" if split == "train" else "test")
        return split_contiguous(read_text(self.path), self.splits, self.train, self.validation)[
            split
        ].encode()


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
    with writing(path):
        path.write_text(tokenizer.to_str(), encoding="utf-8")
    return tokenizer
