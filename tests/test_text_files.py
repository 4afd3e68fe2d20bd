"""Text files: the same text in any spelling of its lines and marks gives the same data, and every character stays."""

import codecs
import itertools
import sys

import numpy as np
import pytest

from genjax.core.errors import UserError
from genjax.data import Lines, Smiles, TextFile, TokenizedText, Tokens
from genjax.data.text import token_files
from genjax.data.text.tokenized import Encoding, train_tokenizer

LINE_ENDS, MARKS, LAST = ("\n", "\r\n", "\r"), (b"", codecs.BOM_UTF8), (True, False)
WIDE = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE, "utf-32-le": codecs.BOM_UTF32_LE}
SEPARATORS = ("", "\n", "\n\n", "\r\n\r\n", "<|sep|>", "---\n", "\n<|endoftext|>\n")
SPACES = [
    chr(i)
    for i in range(sys.maxunicode + 1)
    if chr(i) not in "\n\r" and (chr(i).isspace() or len(f"a{chr(i)}b".splitlines()) > 1)
]
SPECIAL = ("<|endoftext|>", "<s>", "</s>", "[PAD]", "[MASK]", "<|im_start|>", "<unk>")
MOLECULES = [f"{'C' * n}{end}" for n in range(1, 25) for end in ("", "O", "N")]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    train_tokenizer(["the quick brown fox, the lazy dog\n"] * 9, 290, path)
    return str(path)


def windows(source):
    assert {"train", "test"} <= set(source.splits)
    return [np.asarray(source.load(split).stream).tolist() for split in source.splits]


def joined(source):
    return list(itertools.chain(*windows(source)))


def rows(source):
    arrays = [source.load(split).arrays for split in source.splits]
    return [source.documents("train"), source.documents("test"), source.vocabulary.symbols] + [
        {name: array.tolist() for name, array in each.items()} for each in arrays
    ]


def prepared(path, tokenizer, separator):
    out = path.parent / "tokens"
    body = token_files.write([str(path)], tokenizer, out, separator=separator, test=0.3)
    return windows(Tokens(str(out), length=2)), [body["splits"][each]["documents"] for each in body["splits"]]


TEXT = "".join(f"line {n} é 日\n" + "\n" * (n % 3 == 0) for n in range(41))
READ = {
    "byte": (TEXT, lambda path, bpe: windows(TextFile(str(path), length=8))),
    "char": (
        TEXT,
        lambda path, bpe: (
            windows(TextFile(str(path), length=8, unit="char")),
            TextFile(str(path), length=8, unit="char").vocabulary.symbols,
        ),
    ),
    "byte pairs": (TEXT, lambda path, bpe: windows(TokenizedText(str(path), bpe, length=8))),
    "lines": (TEXT, lambda path, bpe: rows(Lines(str(path), length=32))),
    "packed lines": (TEXT, lambda path, bpe: rows(Lines(str(path), length=32, packed=True))),
    "molecules": (
        "# a comment\nSMILES\tname\n" + "".join(f"{each}\tno. {each}\n" for each in MOLECULES),
        lambda path, bpe: rows(Smiles(str(path), length=32)),
    ),
}
for _separator in SEPARATORS[1:]:
    _body = "".join(f"{n} é\n{n * n}" + _separator.replace("\r\n", "\n") for n in range(40)) + "end\n"
    for _kind in ("byte", "bpe") if _separator in ("\n\n", "<|sep|>") else ("byte",):
        READ[f"token files {_kind} {_separator!r}"] = (
            _body,
            lambda path, bpe, kind=_kind, separator=_separator: prepared(
                path, bpe if kind == "bpe" else "byte", separator
            ),
        )


def spellings(text):
    """The text's file in all line ends, with and without a byte order mark and the last line end; UTF-16 and 32."""
    for end, mark, last in itertools.product(LINE_ENDS, MARKS, LAST):
        yield mark + (text if last else text.removesuffix("\n")).replace("\n", end).encode()
    for encoding, mark in WIDE.items():
        yield mark + text.replace("\n", "\r\n").encode(encoding)


@pytest.mark.parametrize("name", READ)
def test_every_spelling_of_a_text_file_gives_the_same_data(name, tmp_path, bpe):
    text, read = READ[name]
    found = []
    for number, data in enumerate(spellings(text)):
        path = tmp_path / str(number) / "text.txt"
        path.parent.mkdir()
        path.write_bytes(data)
        try:
            found.append(read(path, bpe))
        except UserError as error:
            found.append(str(error))
    wrong = [number for number, each in enumerate(found) if each != found[0]]
    assert not wrong, f"{len(wrong)} of {len(found)} spellings differ: {wrong}"


def test_plain_files_give_the_tokens_of_their_bytes(tmp_path, bpe):
    """Files of ASCII with newlines, the oracle being their bytes."""
    text = "".join(f"word {n % 37} and\tmore \n" for n in range(60))
    path = tmp_path / "a.txt"
    path.write_text(text)
    assert joined(TextFile(str(path), length=4)) == list(text.encode())
    symbols = sorted(set(text))
    chars = joined(TextFile(str(path), length=4, unit="char"))
    assert chars == [symbols.index(char) for char in text]
    source = Lines(str(path), length=32)
    documents = dict.fromkeys(line.strip() for line in text.split("\n") if line.strip())
    assert sorted(source.documents("train") + source.documents("test")) == sorted(documents)
    out = tmp_path / "out"
    token_files.write([str(path)], "byte", out, separator="\n", test=0.5)
    halves = {True: b"", False: b""}
    for line in text.split("\n")[:-1]:
        halves[token_files.is_test(line + "\n", 0.5)] += (line + "\n").encode()
    assert [bytes(each) for each in windows(Tokens(str(out), length=2))] == [halves[False], halves[True]]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"U+{ord(space):04X}")
def test_other_white_space_splits_no_line_and_stays(space, tmp_path, bpe):
    path = tmp_path / "a.txt"
    ends = space if space not in " \t" else ""
    documents = [f"{ends}{a}{space}{b}{ends}" for a in "abcdef" for b in "ghijkl"]
    text = "".join(f"{document}\n" for document in documents)
    path.write_bytes(text.encode())
    lines = Lines(str(path), length=16)
    assert sorted(lines.documents("train") + lines.documents("test")) == sorted(documents)
    assert space in lines.vocabulary.symbols
    for source in (
        TextFile(str(path), length=4),
        TextFile(str(path), length=4, unit="char"),
        TokenizedText(str(path), bpe, length=4),
    ):
        streams = [
            np.asarray(source.load(split).stream) for split in source.splits
        ]  # splits of bytes may cut a character
        assert source.vocabulary.decode(np.concatenate(streams)) == text
    found = list(token_files.documents([str(path)], "\n", keep=False))
    assert found == documents


@pytest.fixture(scope="module")
def chatty(tmp_path_factory, bpe):
    """A tokenizer with many special tokens, and a file that truncates and pads."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(bpe)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=7, pad_id=tokenizer.token_to_id("[PAD]"), pad_token="[PAD]")
    path = tmp_path_factory.mktemp("chatty") / "tokenizer.json"
    tokenizer.save(str(path))
    return str(path)


@pytest.mark.parametrize("word", SPECIAL)
@pytest.mark.parametrize(
    "form", ["{0}", "a{0}b", "{0}{0}", "\n{0}\n", " {0} é", "<{0}>", "so long a text that {0}"]
)
def test_a_special_token_that_a_text_spells_is_text(word, form, chatty, tmp_path):
    encoding, text = Encoding(chatty), form.format(word)
    special = {encoding.tokenizer.token_to_id(each) for each in SPECIAL}
    tokens = encoding.encode(text.encode())
    assert encoding.decode(tokens) == text
    assert not special & set(tokens.tolist())
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{n} {text}=====" for n in range(12)) + "12\n")
    source = TokenizedText(str(path), chatty, length=2)
    assert source.vocabulary.decode(np.array(joined(source))) == path.read_text()
    assert not special & set(joined(source))
    out, expected = tmp_path / "out", [f"{n} {text}" for n in range(12)] + ["12\n"]
    end = token_files.write([str(path)], chatty, out, separator="=====", test=0.5)["end"]
    for split, stream in zip(("train", "test"), windows(Tokens(str(out), length=2)), strict=True):
        documents = np.split(np.array(stream), np.flatnonzero(np.array(stream) == end) + 1)[:-1]
        texts = [each for each in expected if token_files.is_test(each, 0.5) == (split == "test")]
        assert [encoding.decode(document[:-1]) for document in documents] == texts
