"""Text files: the same text in any spelling of its lines and marks gives the same data, and every character stays."""

import codecs
import itertools
import sys
import zlib

import numpy as np
import pytest

from genjax.api.train import train
from genjax.core.checksums import read_checksummed, with_checksum
from genjax.core.errors import UserError
from genjax.data import Data, Lines, Smiles, TextFile, TokenizedText, Tokens
from genjax.data.text import token_files
from genjax.data.text.tokenized import Encoding, train_tokenizer
from genjax.networks.transformers.token_transformer import gpt2
from genjax.objectives.autoregressive import Autoregressive
from genjax.training.experiment import Experiment
from genjax.training.optimizers import AdamW

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


SMI = """# made by hand
{header}CCO ethanol
CC(=O)O\tacetic acid, in water
# a comment
  c1ccccc1 \t benzene
CC(
[Na+].[Cl-]
""" + "\n".join(MOLECULES)


@pytest.mark.parametrize("header", ["", "smiles\n", "SMILES\tname\n", "Canonical_SMILES ID\n", '"smiles"\n'])
def test_lines_of_molecules_have_titles_comments_and_a_header(header, tmp_path, monkeypatch):
    path = tmp_path / "a.smi"
    path.write_text(SMI.format(header=header))
    source = Smiles(str(path), length=16)
    expected = ["CCO", "CC(=O)O", "c1ccccc1", "CC(", "[Na+].[Cl-]", *MOLECULES]
    assert sorted(source.documents("train") + source.documents("test")) == sorted(set(expected))
    cut, symbols = sum(len(each) >= 16 for each in expected), len(set("".join(expected)))
    said = f"'{path}': 76 documents, {symbols} symbols, longest 25; duplicate lines left out: 1; cut to 16 tokens, end"
    monkeypatch.setitem(sys.modules, "rdkit", None)
    assert source.describe() == f"{said} included: {cut}; with unmatched brackets or ring bonds: 1"
    monkeypatch.undo()
    pytest.importorskip("rdkit")
    assert source.describe() == f"{said} included: {cut}; no molecules to RDKit: 1"


def test_sources_say_what_they_read(tmp_path, bpe):
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{n:02}\n" for n in range(40)))
    windows = "train, 6 validation, 6 test tokens of a vocabulary of"
    assert TextFile(str(path), 4).describe() == f"'{path}': 108 {windows} 256; windows of 4"
    assert TextFile(str(path), 4, unit="char").describe() == f"'{path}': 108 {windows} 11; windows of 4"
    assert (
        TokenizedText(str(path), bpe, 4).describe()
        == f"'{path}': 108 {windows} {len(Encoding(bpe))}; windows of 4"
    )
    assert Lines(str(path), 3).describe() == f"'{path}': 40 documents, 10 symbols, longest 2"
    body = token_files.write([str(path)], "byte", tmp_path / "out", separator="\n", test=0.3)
    train, test = (body["splits"][split]["tokens"] for split in ("train", "test"))
    assert train + test == 120
    said = Tokens(str(tmp_path / "out"), 4).describe()
    assert said == f"'{tmp_path}/out': {train} train, {test} test tokens of a vocabulary of 256; windows of 4"


def _tokenizer(path, model, special=()):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(model(tokenizers.models))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(special))
    tokenizer.save(str(path))
    return str(path)


def _words(models):
    return models.WordLevel({"a": 0, "[UNK]": 1, "<s>": 2}, unk_token="[UNK]")


def _letters(models):
    return models.BPE({"a": 0, "b": 1}, [])


def _unigrams(models):
    return models.Unigram([("<unk>", -9.0), ("a", -1.0)], unk_id=0)


def _tokens(root, **changes):
    """A folder of token files of 300 tokens, changed."""
    (root / "b.txt").write_text("".join(f"{n}\n" for n in range(90)))
    token_files.write([str(root / "b.txt")], "byte", root / "out", separator="\n", test=0.3)
    path = root / "out" / "tokens.json"
    path.write_text(with_checksum({**read_checksummed(path), **changes}))
    return Tokens(str(root / "out"), 8)


def _file(root, data=b"a b c\n" * 40, name="a.txt"):
    (root / name).write_bytes(data)
    return str(root / name)


WRONG = {
    "missing": (lambda root: TextFile(f"{root}/no.txt").load("train"), "cannot read .*no.txt': No such file"),
    "folder": (lambda root: TextFile(str(root)).load("train"), "cannot read .*Is a directory"),
    "no path": (lambda root: TextFile().load("train"), r"config\.data\.source\.path=FILE"),
    "NUL in the path": (lambda root: TextFile("a\0b").load("train"), "cannot read the text file 'a"),
    "latin-1": (
        lambda root: Lines(_file(root, b"\xef\xbb\xbfab\r\n\xe9\n")).levels,
        r"a.txt' is not UTF-8: .* at byte offset 7; convert",
    ),
    "cut UTF-8": (lambda root: TextFile(_file(root, b"a\xc3"), unit="char").levels, "at byte offset 1;"),
    "UTF-16 cut": (
        lambda root: TextFile(_file(root, codecs.BOM_UTF16_LE + b"a\0b")).load("train"),
        "UTF-16-LE: truncated data at byte offset 4",
    ),
    "UTF-16 without a mark": (
        lambda root: TextFile(_file(root, "ab".encode("utf-16-le"))).load("train"),
        "NUL at byte offset 1; .*UTF-16 without",
    ),
    "NUL in UTF-16": (
        lambda root: Smiles(_file(root, codecs.BOM_UTF16_BE + "é\0".encode("utf-16-be"))).levels,
        "NUL at byte offset 4",
    ),
    "NUL in documents": (
        lambda root: token_files.write([_file(root, b"a\0")], "byte", root / "out"),
        "a.txt' .*NUL at byte offset 1",
    ),
    "long windows": (
        lambda root: TextFile(_file(root), 64).load("train"),
        r"length=64 is longer than the test split of '.*a.txt', 12 tokens: set config.data.source.length to at most 12",
    ),
    "no length": (lambda root: TextFile(_file(root), 0).load("train"), "length=0 must be at least 1"),
    "empty lines": (lambda root: Lines(_file(root), length=0), "length=0 must be at least 1"),
    "fraction": (
        lambda root: TextFile(_file(root), train=1.5),
        r"train=1\.5 must .*config\.data\.source\.train",
    ),
    "validation": (lambda root: TokenizedText(_file(root), "", validation=1.0), r"validation=1\.0 must"),
    "empty": (
        lambda root: TextFile(_file(root, b"")).load("train"),
        "train split of .*a.txt', 0 tokens: use",
    ),
    "no test lines": (
        lambda root: Lines(
            _file(root, "".join(f"{n}\n" for n in range(99) if zlib.crc32(b"%d" % n) % 10).encode())
        ).load("train"),
        "none of the 90 documents of .*a.txt' is in the test split",
    ),
    "unknown word": (
        lambda root: TokenizedText(
            _file(root), _tokenizer(root / "t.json", _words, ("[UNK]", "<s>")), 2
        ).load("train"),
        "a.txt': the tokenizer .*t.json' has no token for 'b'",
    ),
    "unknown word that is not special": (
        lambda root: Encoding(_tokenizer(root / "t.json", _words)).encode(b"a b"),
        "no token for 'b'",
    ),
    "unknown piece": (
        lambda root: Encoding(_tokenizer(root / "t.json", _unigrams)).encode(b"aab"),
        "no token for 'b'",
    ),
    "dropped letter": (
        lambda root: Encoding(_tokenizer(root / "t.json", _letters)).encode(b"abc"),
        "no token for 'c'",
    ),
    "special word": (
        lambda root: token_files.write(
            [_file(root, b"a <s> a")], _tokenizer(root / "t.json", _words, ("<s>",)), root / "out"
        ),
        "a.txt': the tokenizer .* cannot tell its special token '<s>' from text",
    ),
    "end in the text": (
        lambda root: token_files.write(
            [_file(root, b"a b a")], _tokenizer(root / "t.json", _letters), root / "out", end="b"
        ),
        "a.txt' has the token 'b', which ends documents",
    ),
    "tokens outside": (
        lambda root: _tokens(root, dtype="uint16").load("train"),
        r"train-00000\.bin has the token \d+, outside the vocabulary of 256 in tokens\.json",
    ),
    "comma": (
        lambda root: Smiles(_file(root, b"smiles,name\nC,a\n")).levels,
        "a.txt' are separated by commas",
    ),
    "column": (lambda root: Smiles(_file(root, b"ID\tSMILES\n1\tC\n")).levels, "first one is 'ID'"),
    **{
        f"tokens.json {name}": (
            lambda root, name=name, value=value: _tokens(root, **{name: value}).load("train"),
            f"'{name}' of tokens.json",
        )
        for name, value in {
            "dtype": "float32",
            "vocabulary": 300,
            "tokenizer": "x.json",
            "end": 256,
            "splits": {"train": 3},
        }.items()
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_meant_is_refused_in_one_line(name, tmp_path):
    call, words = WRONG[name]
    with pytest.raises(UserError, match=words) as error:
        call(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_a_model_of_fewer_values_than_tokens_is_not_trained(tmp_path):
    data = Data(TextFile(_file(tmp_path), length=8, unit="char"))
    model = Autoregressive(gpt2(1, 8, 1, extra=1), (8,), data.levels - 1)
    with pytest.raises(
        UserError, match=r"TextFile has 5 tokens, the model 4: set config\.objective\.values=5"
    ):
        train(Experiment(model, data, AdamW(), steps=1))
