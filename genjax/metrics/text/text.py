"""Report on generated texts; every number comes with the same number for as many real texts.

Held-out texts are split at random into A, which samples are compared with, and B of the same size, which replaces the
samples in the numbers that end in "_reference": the value to aim for.

MAUVE's authors use features of GPT-2 large. Here the features are any function of texts, named in the report; the
default, hashed counts of character n-grams, captures spelling and style but not meaning.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from sklearn.feature_extraction.text import HashingVectorizer

from genjax.core.errors import UserError
from genjax.metrics.text.mauve import mauve
from genjax.metrics.text.ngrams import Unit, distinct, ends_in_loop, repeated, unit_of, units
from genjax.metrics.text.overlap import mean_bleu, rouge, self_bleu, signature

SHORTEST = {"word": 2, "character": 4}  # units of the shortest phrase that counts as a loop


@dataclasses.dataclass(frozen=True)
class TextFeatures:
    """A named map from texts to vectors.

    Attributes:
        name: name of the features in reports.
        extract: texts [n] -> [n, d] floating point.
    """

    name: str
    extract: Callable[[Sequence[str]], Float[ndarray, "n d"]]


def hashed_ngrams(longest: int = 4, size: int = 1024) -> TextFeatures:
    """Counts of character n-grams, n = 1 ... `longest`, hashed (MurmurHash3) into `size` bins, L2-normalised."""
    table = HashingVectorizer(
        analyzer="char", ngram_range=(1, longest), n_features=size, alternate_sign=False, lowercase=False
    )
    name = f"counts of 1 to {longest} characters hashed into {size}, not a language model's"
    return TextFeatures(name, lambda texts: table.transform(texts).toarray())


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a text report.

    Attributes:
        max_texts: upper limit on the texts of each set.
        max_pairwise: upper limit on the texts of each set in pairwise comparisons (BLEU, ROUGE).
        min_mauve: smallest number of texts with MAUVE.
        features: features of MAUVE.
    """

    max_texts: int = 2000
    max_pairwise: int = 100
    min_mauve: int = 100
    features: TextFeatures = hashed_ngrams()


def text_report(
    samples: Sequence[str], real: Sequence[str], *, seed: int = 0, settings: Settings = Settings()
) -> dict[str, float | str]:
    """Compares texts with held-out ones; deterministic given the seed.

    Args:
        samples: generated texts, at least 2.
        real: held-out texts of the same kind, at least 4; ideally twice as many as samples.
        seed: seed of the random subsets and of MAUVE's k-means.
        settings: counts and features.

    Returns:
        Name -> number, and the same with "_reference" for real text.

        - "unit": of n-grams, "word" or "character"; "count": texts on each side; "characters": mean length.
        - "distinct_1", "distinct_2", "distinct_4"; "rep_4" (rep-4); "loops": share of texts that end in a loop.
        - "self_bleu"; "bleu": mean sentence BLEU against held-out texts; "bleu_signature", sacrebleu's; "bleu_count":
          texts on each side of these and of "rouge_l", the best ROUGE-L (F1) to a held-out text (words only).
        - "mauve", "mauve_smoothed", "mauve_cells" and "mauve_features", with at least `settings.min_mauve` texts.

    Raises:
        UserError: too few texts.
    """
    count = min(len(samples), len(real) // 2, settings.max_texts)
    if count < 2:
        raise UserError(
            f"a report on text needs 2 samples and 4 held-out texts, got {len(samples)} and {len(real)}"
        )
    rng = np.random.default_rng(seed)
    made = [samples[i] for i in rng.permutation(len(samples))[:count]]
    order = rng.permutation(len(real))
    known, other = ([real[i] for i in order[start : start + count]] for start in (0, count))
    unit, few = unit_of(known), min(count, settings.max_pairwise)
    found: dict[str, float | str] = {"unit": unit, "count": float(count)}
    overlap: Callable[..., dict[str, float]] = functools.partial(_overlap, unit=unit)
    try:
        found |= {"bleu_signature": signature(unit), "bleu_count": float(few)}
    except UserError as error:  # the extra is not installed
        found["bleu_signature"], overlap = f"not measured: {error}", lambda texts, known: {}
    for suffix, texts in {"": made, "_reference": other}.items():
        values = _variety(texts, unit) | overlap(texts[:few], known[:few])
        if count >= settings.min_mauve:
            values |= _mauve(known, texts, settings.features, seed)
        found |= {name + suffix: value for name, value in values.items()}
    if "mauve" in found:
        found["mauve_features"] = settings.features.name
    return found


def _variety(texts: Sequence[str], unit: Unit) -> dict[str, float]:
    """Length, distinct-n, rep-n and loops."""
    parts = [units(text, unit) for text in texts]
    values = {"characters": float(np.mean([len(text) for text in texts]))}
    values |= {f"distinct_{n}": distinct(parts, n) for n in (1, 2, 4)}
    loops = float(np.mean([ends_in_loop(part, SHORTEST[unit]) for part in parts]))
    return values | {"rep_4": repeated(parts, 4), "loops": loops}


def _overlap(texts: Sequence[str], known: Sequence[str], unit: Unit) -> dict[str, float]:
    """Self-BLEU, and BLEU and ROUGE-L against held-out texts."""
    values = {
        "self_bleu": self_bleu(texts, len(texts), unit),
        "bleu": mean_bleu(texts, known, unit),
    }
    if unit == "word":
        values["rouge_l"] = rouge(texts, [known] * len(texts), ("rougeL",))["rougeL"]
    return values


def _mauve(known: Sequence[str], texts: Sequence[str], features: TextFeatures, seed: int) -> dict[str, float]:
    result = mauve(*(features.extract(some) for some in (known, texts)), seed=seed)
    return {
        "mauve": result.score,
        "mauve_smoothed": result.smoothed,
        "mauve_cells": float(result.cells),
    }
