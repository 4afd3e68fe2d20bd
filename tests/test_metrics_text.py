"""Text metrics: n-grams by closed forms, BLEU and ROUGE by other libraries, MAUVE by quadrature, and rankings."""

import collections
import itertools
import re

import numpy as np
import pytest
import sacrebleu
from scipy.integrate import quad
from scipy.special import beta

from genjax.core.errors import UserError
from genjax.data import Data, Lines, StdlibBytes, TextFile
from genjax.evaluation.text import scored_bytes, text_metrics
from genjax.metrics.text.mauve import curve_area, divergence_curve, mauve, quantise
from genjax.metrics.text.ngrams import distinct, ends_in_loop, ngrams, repeated, unit_of, units
from genjax.metrics.text.overlap import corpus_bleu, mean_bleu, rouge, self_bleu, signature
from genjax.metrics.text.text import Settings, hashed_ngrams, text_report

RNG = np.random.default_rng(0)


def different(values, draws):
    """Expected number of distinct values among uniform independent draws."""
    return values * (1 - (1 - 1 / values) ** draws)


def test_ngrams_by_hand():
    text = ["a", "b", "a", "b", "c"]
    assert ngrams(text, 2) == [("a", "b"), ("b", "a"), ("a", "b"), ("b", "c")]
    assert distinct([text], 2) == 3 / 4
    assert distinct([text, text], 2) == 3 / 8
    assert repeated([text, ["c", "d", "e"]], 2) == (1 / 4 + 0) / 2
    assert distinct([["a"]], 2) == repeated([["a"]], 2) == 0.0
    assert units("ab c", "word") == ["ab", "c"]
    assert units("ab c", "character") == ["a", "b", " ", "c"]
    assert unit_of(["one two three four five six", "one two three four"]) == "word"
    assert unit_of(["CCO", "a b c d"]) == "character"


@pytest.mark.parametrize("n", [1, 2])
def test_distinct_of_independent_uniform_units_is_its_expectation(n):
    """Texts of n units each, so that their n-grams are independent: V^n (1 - (1 - V^-n)^T) / T."""
    values, draws, rounds = 7, 40, 400
    found = [distinct(RNG.integers(values, size=(draws, n)).astype(str).tolist(), n) for _ in range(rounds)]
    error = np.std(found) / rounds**0.5
    assert abs(np.mean(found) - different(values**n, draws) / draws) < 4 * error
    assert error < 0.01


def test_repetition_of_independent_uniform_units_is_its_expectation():
    values, length = 9, 12
    found = repeated(RNG.integers(values, size=(4000, length)).astype(str).tolist(), 1)
    assert abs(found - (1 - different(values, length) / length)) < 0.01


@pytest.mark.parametrize(("least", "times"), [(1, 2), (2, 3), (3, 2)])
def test_loops_match_a_regular_expression(least, times):
    """All texts over two letters of up to nine characters."""
    loop = re.compile(rf"(.{{{least},}})" + r"\1" * (times - 1) + "$")
    texts = ["".join(text) for size in range(10) for text in itertools.product("ab", repeat=size)]
    expected = [bool(loop.search(text)) for text in texts]
    assert [ends_in_loop(text, least, times) for text in texts] == expected
    assert 0 < sum(expected) < len(texts)


WORDS = ["the", "cat", "sat", "down", "again"]
TEXTS = [" ".join(RNG.choice(WORDS, size=12)) for _ in range(12)]
OTHERS = [" ".join(RNG.choice(WORDS, size=12)) for _ in range(12)]


def test_self_bleu_of_equal_and_of_disjoint_texts():
    assert self_bleu([TEXTS[0]] * 5) == pytest.approx(100.0)
    assert self_bleu([f"a{i} b{i} c{i} d{i} e{i}" for i in range(5)]) == 0.0
    assert self_bleu(["aaab", "aaab", "cdef"], unit="character") == pytest.approx(200 / 3)
    assert self_bleu(TEXTS, max_texts=3) == self_bleu(TEXTS[:3]) < self_bleu(TEXTS)


def test_bleu_equals_sacrebleus():
    references = [[a, b] for a, b in zip(OTHERS, TEXTS[::-1], strict=True)]
    expected = sacrebleu.corpus_bleu(TEXTS, [list(column) for column in zip(*references, strict=True)])
    assert corpus_bleu(TEXTS, references) == pytest.approx(expected.score, abs=1e-9)
    single = [sacrebleu.sentence_bleu(text, OTHERS).score for text in TEXTS]
    assert mean_bleu(TEXTS, OTHERS) == pytest.approx(np.mean(single), abs=1e-9)
    said = [sacrebleu.sentence_bleu(t, [o for o in TEXTS if o is not t]).score for t in TEXTS]
    assert self_bleu(TEXTS) == pytest.approx(np.mean(said), abs=1e-9)
    assert "eff:yes|tok:char|smooth:exp" in signature("character")


def test_bleu_equals_papinenis_formula():
    """exp(min(0, 1 - r / c) + mean_n log p_n), with one reference each."""
    count = lambda text, n: collections.Counter(ngrams(text.split(), n))
    logs = []
    for n in range(1, 5):
        matched = sum((count(a, n) & count(b, n)).total() for a, b in zip(TEXTS, OTHERS, strict=True))
        logs.append(np.log(matched / sum(count(a, n).total() for a in TEXTS)))
    assert corpus_bleu(TEXTS, [[text] for text in OTHERS]) == pytest.approx(100 * np.exp(np.mean(logs)))


def longest_common(a, b):
    """Length of the longest common subsequence, by the recurrence."""
    row = [0] * (len(b) + 1)
    for x in a:
        row = list(
            itertools.accumulate(
                range(1, len(b) + 1),
                lambda left, j, x=x, row=row: row[j - 1] + 1 if x == b[j - 1] else max(left, row[j]),
                initial=0,
            )
        )
    return row[-1]


def test_rouge_is_its_definition():
    """F1 of common words, and of the longest common subsequence, 2 common / (both lengths); the best reference."""
    made = [" ".join(text.split()[: 5 + i % 4]) for i, text in enumerate(TEXTS)]  # precision is not recall
    f1 = lambda count, a, b: 2 * count / (len(a.split()) + len(b.split()))
    words = lambda a, b: f1((collections.Counter(a.split()) & collections.Counter(b.split())).total(), a, b)
    common = lambda a, b: f1(longest_common(a.split(), b.split()), a, b)
    pairs = list(zip(made, OTHERS, strict=True))
    found = rouge(made, [[text] for text in OTHERS])
    assert found["rouge1"] == pytest.approx(np.mean([words(*pair) for pair in pairs]))
    assert found["rougeL"] == pytest.approx(np.mean([common(*pair) for pair in pairs]))
    best = rouge(made, [OTHERS] * len(made), ("rougeL",))["rougeL"]
    assert best == pytest.approx(np.mean([max(common(text, other) for other in OTHERS) for text in made]))


def area(p, q, scale):
    """int exp(-c KL(p || r)) d exp(-c KL(q || r)), by adaptive quadrature with the analytic derivative.

    If supp q is within supp p, the curve reaches (exp(-c KL(q || p)), 1) and is constant from there to (0, 1).
    """
    p, q = p / p.sum(), q / q.sum()
    kl = lambda h, r: float((h[h > 0] * np.log(h[h > 0] / r[h > 0])).sum())

    def slope(w):
        r = w * p + (1 - w) * q
        seen = q > 0
        falls = (q[seen] * (p - q)[seen] / r[seen]).sum()
        return -scale * falls * np.exp(-scale * (kl(q, r) + kl(p, r)))

    level = np.exp(-scale * kl(q, p)) if (p[q > 0] > 0).all() else 0.0
    return quad(slope, 0.0, 1.0, epsabs=1e-12, limit=200)[0] + level


HISTOGRAMS = {
    "near": (np.array([3.0, 4, 5]), np.array([4.0, 4, 4])),
    "far": (np.array([9.0, 1, 1, 1]), np.array([1.0, 1, 2, 8])),
    "partly disjoint": (np.array([5.0, 0, 3]), np.array([0.0, 4, 3])),
}


@pytest.mark.parametrize("name", HISTOGRAMS)
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_mauve_is_the_area_by_quadrature(name, scale):
    p, q = HISTOGRAMS[name]
    found = curve_area(divergence_curve(p, q, scale, points=20_001))
    assert found == pytest.approx(area(p, q, scale), abs=1e-6)
    assert found == pytest.approx(curve_area(divergence_curve(q, p, scale, points=20_001)), abs=1e-9)
    few = curve_area(divergence_curve(p, q, scale))
    assert abs(found - few) < 2e-3


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_mauve_of_equal_and_of_disjoint_histograms(scale):
    """Disjoint ones have the curve ((1 - w)^c, w^c) and the area c B(c + 1, c): 0.004 for c = 5."""
    p = np.array([1.0, 2, 3, 0])
    assert curve_area(divergence_curve(p, 7 * p, scale)) == pytest.approx(1.0)
    disjoint = divergence_curve(p, np.array([0.0, 0, 0, 5]), scale, points=20_001)
    assert curve_area(disjoint) == pytest.approx(scale * beta(scale + 1, scale), abs=1e-6)


def test_quantisation_counts_separated_clusters():
    centres = np.eye(5) * 10
    wanted = np.array([[30, 1], [10, 20], [0, 9], [5, 0], [15, 30]])
    sides = [
        np.concatenate(
            [c[None] + RNG.normal(size=(n, 5)) for c, n in zip(centres, wanted[:, side], strict=True)]
        )
        for side in (0, 1)
    ]
    found = np.stack(quantise(*sides, 5), axis=1)
    assert sorted(map(tuple, found)) == sorted(map(tuple, wanted))
    longer = [side * np.exp(2 * RNG.normal(size=(len(side), 1))) for side in sides]  # directions alone count
    np.testing.assert_array_equal(np.stack(quantise(*longer, 5), axis=1), found)
    result = mauve(*sides, cells=5)
    assert result.score == pytest.approx(curve_area(divergence_curve(wanted[:, 0], wanted[:, 1])))
    half = curve_area(divergence_curve(wanted[:, 0] + 0.5, wanted[:, 1] + 0.5))
    assert result.smoothed == pytest.approx(half) != result.score
    assert mauve(np.ones((30, 3)), np.ones((40, 3))).score == pytest.approx(1.0)


def test_hashed_ngrams_count_shared_characters():
    x = hashed_ngrams(longest=1, size=4096).extract(["ab", "abab", "cd", "abcd"])
    np.testing.assert_allclose(
        x @ x.T, [[1, 1, 0, 0.5**0.5], [1, 1, 0, 0.5**0.5], [0, 0, 1, 0.5**0.5], [0.5**0.5] * 3 + [1]]
    )


@pytest.fixture(scope="module")
def reports():
    """Reports on windows of source text and on corrupted versions of them."""
    rng = np.random.default_rng(1)
    text = StdlibBytes().text("train").decode()
    starts = rng.permutation(len(text) // 300)[:330] * 300
    windows = [text[start : start + 300] for start in starts]
    made, real = windows[:110], windows[110:]
    shuffled = [" ".join(rng.permutation(window.split())) for window in made]
    looped = [(window[:30] + " ") * 9 for window in made]
    letters = ["".join(rng.permutation(list(window))) for window in made]
    sets = {
        "real": made,
        "shuffled": shuffled,
        "looped": looped,
        "letters": letters,
        "one": made[:1] * len(made),
    }
    settings = Settings(max_pairwise=10, features=hashed_ngrams(3, 256))
    found = {name: text_report(texts, real, settings=settings) for name, texts in sets.items()}
    assert found["real"] == text_report(made, real, settings=settings)
    return found


def test_reports_rank_texts(reports):
    real, shuffled, looped, letters, one = reports.values()
    for name in ("bleu", "rouge_l", "mauve", "distinct_2"):
        assert 0.5 * real[f"{name}_reference"] < real[name] < 2 * real[f"{name}_reference"], name
    assert real["bleu"] > 1.2 * shuffled["bleu"] > 2 * letters["bleu"]
    assert real["rouge_l"] > 1.3 * letters["rouge_l"]
    assert real["mauve"] > 0.7 > 0.3 > looped["mauve"] > one["mauve"]
    assert shuffled["mauve"] > 0.7 > 0.3 > letters["mauve"], "character n-grams are insensitive to word order"
    assert one["self_bleu"] == pytest.approx(100.0)
    assert real["self_bleu"] < 30
    assert looped["loops"] == 1.0 > 0.02 > real["loops"]
    assert looped["rep_4"] > 0.6 > 0.1 > real["rep_4"]
    assert one["distinct_2"] < 0.05 < 0.5 < real["distinct_2"]
    assert {report["mauve_reference"] for report in reports.values()} == {real["mauve_reference"]}


def test_text_of_documents_is_evaluated_by_characters():
    data = Data(Lines(length=32))
    report = text_metrics(data, data.load("train")[np.arange(120)]["x"], 0, Settings(max_pairwise=10))["text"]
    assert report["unit"] == "character"
    assert report["count"] == 120
    assert "rouge_l" not in report
    assert text_metrics(data, data.load("train")[np.arange(1)]["x"], 0) == {"text": {}}


def test_scored_bytes(tmp_path):
    """Of a document its characters and its end; of a window the last characters; of byte tokens their number."""
    path = tmp_path / "words.txt"
    path.write_text("\n".join("".join(w) for w in itertools.product("aé", "bü", "cd", "efgh")))
    lines = Data(Lines(str(path), length=5))
    batch, texts = lines.load("train").arrays, lines.source.documents("train")
    expected = [len(text.encode()) + 1 for text in texts]
    np.testing.assert_array_equal(scored_bytes(lines, batch["x"], batch["mask"].sum(1)), expected)
    cut = Data(Lines(str(path), length=3))
    rows = cut.load("train").arrays
    np.testing.assert_array_equal(
        scored_bytes(cut, rows["x"], rows["mask"].sum(1)), [len(text[:3].encode()) for text in texts]
    )
    window = Data(TextFile(str(path), length=6, unit="char", validation=0.0))
    x = window.load("test")[np.arange(2)]["x"]
    text = [window.source.vocabulary.decode(row) for row in x]
    scored = scored_bytes(window, x, np.array([6, 5]))
    assert scored.tolist() == [len(text[0].encode()), len(text[1][1:].encode())]
    assert scored_bytes(Data(StdlibBytes()), np.zeros((2, 128), np.int32), np.array([128, 3])).tolist() == [
        128,
        3,
    ]


NO_ROUGES = ("rouge", "rouge0", "rouge34", "rouge 3", "3")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: text_report(["a"], ["b"] * 9), "2 samples and 4 held-out texts, got 1 and 9"),
        (lambda: corpus_bleu(["a", "b"], [["a"]]), "2 hypotheses, 1 lists"),
        (lambda: corpus_bleu(["a", "b"], [["a"], ["b", "c"]]), "equally many references"),
        (lambda: mean_bleu(["a"], []), "1 texts against 0"),
        (lambda: self_bleu(["a"]), "at least 2 texts, got 1"),
        (lambda: rouge(["a"], [[]]), "ROUGE needs references"),
        (lambda: rouge(["a"], [["b"]], ("rougel",)), "did you mean 'rougeL'"),
        *((lambda kind=kind: rouge(["a"], [["b"]], (kind,)), f"no ROUGE '{kind}'") for kind in NO_ROUGES),
        (lambda: mauve(np.ones((9, 2)), np.ones((9, 3))), "features of one size"),
        (lambda: mauve(np.ones((9, 2)), np.ones((9, 2)), cells=10), "at least 10 of each"),
        (lambda: mauve(np.full((9, 2), np.nan), np.ones((9, 2))), "NaN"),
        (lambda: divergence_curve(np.array([1.0, -1, 3]), np.array([1.0, 1, 1])), "two histograms"),
        (lambda: divergence_curve(np.zeros(3), np.ones(3)), "two histograms"),
    ],
)
def test_wrong_input_is_one_line(call, message):
    with pytest.raises(UserError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
        call()
