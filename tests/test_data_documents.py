"""Documents with an end token: splits, tokens, and the total probability of all documents."""

import itertools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_autoregressive import KEY, VALUES, model

from genjax.core.errors import UserError
from genjax.data import Data, Lines
from genjax.metrics.text.documents import novelty
from genjax.reports import exports

WORDS = ["".join(word) for word in itertools.product("aé ", "bc", "cd", "efgh")]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(WORDS) + "\n\n" + WORDS[7] + "\n")
    return str(path)


def test_each_document_is_encoded_and_decoded_once(path):
    source = Lines(path, length=6)
    expected = list(dict.fromkeys(word.strip() for word in WORDS))
    assert sorted(source.documents("train") + source.documents("test")) == sorted(expected)
    for split in source.splits:
        rows = source.load(split).arrays
        documents = source.documents(split)
        assert [source.vocabulary.decode(row) for row in rows["x"]] == documents
        np.testing.assert_array_equal(rows["mask"].sum(1), [len(text) + 1 for text in documents])
        assert all((zlib.crc32(text.encode()) % 10 == 0) == (split == "test") for text in documents)
    assert source.levels == len(set("".join(expected))) + 1
    prompt = source.vocabulary.encode("éb".encode())
    assert source.vocabulary.decode(prompt) == "éb"


def test_long_documents_are_truncated_without_an_end_token(path):
    source = Lines(path, length=3)
    for row, text in zip(source.load("train").arrays["x"], source.documents("train"), strict=True):
        assert source.vocabulary.decode(row) == text[:3]


def test_packed_training_rows_hold_every_document_and_test_rows_one(path):
    alone, packed = Lines(path, length=11), Lines(path, length=11, packed=True)
    rows = packed.load("train").arrays
    found = []
    for row, segment in zip(rows["x"], rows["segment"], strict=True):
        found += [packed.vocabulary.decode(row[segment == number]) for number in range(1, segment.max() + 1)]
    assert sorted(found) == sorted(alone.documents("train"))
    assert len(rows["x"]) < len(found) / 1.9
    test = packed.load("test").arrays
    np.testing.assert_array_equal(test["x"], alone.load("test").arrays["x"])
    np.testing.assert_array_equal(test["segment"], test["mask"])


def test_names_of_the_standard_library_need_no_file():
    source = Lines(length=32)
    train, test = source.documents("train"), source.documents("test")
    assert "heappush" in train + test
    assert len(train) > 8 * len(test) > 1000
    assert not set(train) & set(test)
    assert max(map(len, train + test)) < 32, "the config's length truncates none"


def test_probabilities_of_all_documents_sum_to_one():
    """Rows of up to three tokens, 0 being the end token: (0), (a 0), (a b 0), and (a b c), which is truncated."""
    objective, params = model("learned", (3,), stop=(0,))
    rows = [(*word, 0)[:3] for size in range(4) for word in itertools.product(range(1, VALUES), repeat=size)]
    x = jnp.asarray([(*row, *[0] * (3 - len(row))) for row in rows])
    mask = jnp.arange(3)[None] < jnp.asarray([len(row) for row in rows])[:, None]
    log_p = jax.jit(lambda: objective.log_prob(params, {}, {"x": x, "mask": mask}, KEY))()
    assert abs(float(jnp.exp(log_p).sum()) - 1) < 1e-5
    np.testing.assert_array_equal(objective.elements({"x": x, "mask": mask}), mask.sum(1))


def test_samples_of_documents_are_exported_as_lines(path, tmp_path):
    data = Data(Lines(path, length=6))
    samples = data.source.load("train").arrays["x"][:5]
    said = exports.export(tmp_path / "drawn", data, samples)
    lines = data.source.documents("train")[:5]
    assert said.splitlines()[:5] == lines
    assert (tmp_path / "drawn.txt").read_text().splitlines() == lines


def test_novelty_counts_samples():
    report = novelty(["a", "a", "b", "c"], train=["a", "x"], test=["c", "y"])
    assert report == {"unique": 0.75, "novel": 0.5, "in_test": 0.25}


def test_small_and_missing_files_raise(tmp_path):
    few = tmp_path / "few.txt"
    few.write_text("a\nb\n")
    for file, words in ((few, "2 different lines, too few"), (tmp_path / "none.txt", "cannot read")):
        with pytest.raises(UserError, match=words):
            Lines(str(file)).load("train")
