"""One report on texts that a model made, every number beside the same number for real text of the same count.

Held-out texts are parted at random: A is what samples are compared with, and B, as many, stands in the samples' place
for the numbers that end in "_reference". So nobody has to know which BLEU or MAUVE is good: that of B is.

MAUVE's authors take the features of GPT-2 large. Here any function of texts will do, and the report carries its name;
the default, hashed counts of n-grams of characters, sees spelling and style and nothing of what a text says.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from sklearn.feature_extraction.text import HashingVectorizer

from genjax.core.errors import UserError
from genjax.metrics.text.mauve import mauve
from genjax.metrics.text.ngrams import Unit, distinct, ends_in_loop, repeated, unit_of, units
from genjax.metrics.text.overlap import mean_bleu, rouge, self_bleu, signature

SHORTEST = {"word": 2, "character": 4}  # units of a phrase that may be a loop


@dataclasses.dataclass(frozen=True)
class TextFeatures:
    """A named map from texts to vectors.

    Attributes:
        name: what numbers over these features are reported with.
        extract: texts [n] -> [n, d] floating point.
    """

    name: str
    extract: Callable[[Sequence[str]], Float[ndarray, "n d"]]


def hashed_ngrams(longest: int = 4, size: int = 1024) -> TextFeatures:
    """Counts of 1 to `longest` characters in a row, hashed (MurmurHash3) into `size` sums, as vectors of length 1."""
    table = HashingVectorizer(
        analyzer="char", ngram_range=(1, longest), n_features=size, alternate_sign=False, lowercase=False
    )
    name = f"counts of 1 to {longest} characters hashed into {size}, not a language model's"
    return TextFeatures(name, lambda texts: table.transform(texts).toarray())


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a report is made.

    Attributes:
        most: upper limit on the texts of each set.
        compared: upper limit on the texts of each set where each is compared with each (BLEU, ROUGE).
        least: texts without which there is no MAUVE.
        features: MAUVE's.
    """

    most: int = 2000
    compared: int = 100
    least: int = 100
    features: TextFeatures = hashed_ngrams()


def text_report(
    samples: Sequence[str], real: Sequence[str], *, seed: int = 0, settings: Settings = Settings()
) -> dict[str, float | str]:
    """Compares texts with held-out ones; deterministic given the seed.

    Args:
        samples: what a model made; any number, at least 2.
        real: texts that it has not read, of the same kind; at least 4. The better, twice as many as samples.
        seed: of what is taken, and of MAUVE's k-means.
        settings: counts and features.

    Returns:
        Name -> number, and "_reference" of real text in the samples' place.

        - "unit": of n-grams, "word" or "character"; "count": texts on each side; "characters": the mean of a text.
        - "distinct_1", "distinct_2", "distinct_4"; "repeated_4" (rep-4); "loops": share of texts that end in one.
        - "self_bleu"; "bleu" against held-out texts, the mean over texts; "bleu_signature", sacrebleu's; "bleu_count":
          texts on each side of these and of "rouge_l", the best ROUGE-L (F1) to a held-out text (of words only).
        - "mauve", "mauve_smoothed", "mauve_cells", and "mauve_features" which says of what; for `least` texts or more.

    Raises:
        UserError: too few texts.
    """
    count = min(len(samples), len(real) // 2, settings.most)
    if count < 2:
        raise UserError(
            f"a report on text needs 2 samples and 4 held-out texts, got {len(samples)} and {len(real)}"
        )
    rng = np.random.default_rng(seed)
    made = [samples[i] for i in rng.permutation(len(samples))[:count]]
    order = rng.permutation(len(real))
    known, other = ([real[i] for i in order[start : start + count]] for start in (0, count))
    unit, few = unit_of(known), min(count, settings.compared)
    found: dict[str, float | str] = {"unit": unit, "count": float(count)}
    for suffix, texts in {"": made, "_reference": other}.items():
        values = _variety(texts, unit) | _overlap(texts[:few], known[:few], unit)
        if count >= settings.least:
            values |= _mauve(known, texts, settings.features, seed)
        found |= {name + suffix: value for name, value in values.items()}
    found |= {"bleu_signature": signature(unit), "bleu_count": float(few)}
    if "mauve" in found:
        found["mauve_features"] = settings.features.name
    return found


def _variety(texts: Sequence[str], unit: Unit) -> dict[str, float]:
    """Each text and all together."""
    parts = [units(text, unit) for text in texts]
    values = {"characters": float(np.mean([len(text) for text in texts]))}
    values |= {f"distinct_{n}": distinct(parts, n) for n in (1, 2, 4)}
    loops = float(np.mean([ends_in_loop(part, SHORTEST[unit]) for part in parts]))
    return values | {"repeated_4": repeated(parts, 4), "loops": loops}


def _overlap(texts: Sequence[str], known: Sequence[str], unit: Unit) -> dict[str, float]:
    """Texts with each other, and with held-out ones."""
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
