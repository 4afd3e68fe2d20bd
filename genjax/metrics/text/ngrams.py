"""Diversity and repetition of texts by n-grams.

With the list and the set of the n-grams of a text:

    distinct-n = |set of all texts' n-grams| / |list of all texts' n-grams|     (Li et al. 2016, arXiv:1510.03055)
    rep-n      = mean over texts of 1 - |set| / |list|                          (Welleck et al. 2020, arXiv:1908.04319)

A text ends in a loop if its last units are one phrase three times in a row (Holtzman et al. 2020, arXiv:1904.09751,
with phrases of two or more tokens). distinct-n falls with the number of texts: compare equal numbers.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

Unit = Literal["word", "character"]


def units(text: str, unit: Unit) -> list[str]:
    """The words of a text (split at white space), or its characters."""
    return text.split() if unit == "word" else list(text)


def unit_of(texts: Sequence[str], min_words: float = 5.0) -> Unit:
    """ "word" for texts of at least `min_words` words on average, else "character" (names, formulas)."""
    return "word" if sum(len(text.split()) for text in texts) >= min_words * len(texts) else "character"


def ngrams(text: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All n-grams in order; empty for a text of fewer than n units."""
    return list(zip(*(text[i:] for i in range(n)), strict=False))


def distinct(texts: Iterable[Sequence[str]], n: int) -> float:
    """distinct-n over all texts together, 0 ... 1; 0 without n-grams.

    Args:
        texts: sequences of units.
        n: units per n-gram, at least 1.
    """
    found = [ngram for text in texts for ngram in ngrams(text, n)]
    return len(set(found)) / len(found) if found else 0.0


def repeated(texts: Sequence[Sequence[str]], n: int) -> float:
    """rep-n, 0 ... 1: the mean share of repeated n-grams per text; 0 for a text without n-grams.

    Args:
        texts: sequences of units, at least one.
        n: units per n-gram, at least 1.
    """
    found = [ngrams(text, n) for text in texts]
    return sum(1.0 - len(set(some)) / len(some) for some in found if some) / len(texts)


def ends_in_loop(text: Sequence[str], min_length: int = 2, times: int = 3) -> bool:
    """Whether a text ends with one phrase repeated `times` times.

    Args:
        text: sequence of units.
        min_length: units of the shortest phrase that counts.
        times: repetitions of the phrase at the end.

    Returns:
        True if such a phrase exists.
    """
    for size in range(min_length, len(text) // times + 1):
        end = text[len(text) - times * size :]
        if all(end[i] == end[i - size] for i in range(size, len(end))):
            return True
    return False
