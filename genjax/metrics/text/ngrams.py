"""Variety and repetition of texts, by their n-grams.

With the n-grams of a text as a list, as long as it is, and as the set of those that differ:

    distinct-n = |set of all texts' n-grams| / |list of all texts' n-grams|     (Li et al. 2016, arXiv:1510.03055)
    rep-n      = mean over texts of 1 - |set| / |list|                          (Welleck et al. 2020, arXiv:1908.04319)

A text ends in a loop if its last units are one phrase three times over (Holtzman et al. 2020, arXiv:1904.09751, who
count phrases of two or more tokens). distinct-n falls with the number of texts: compare equal numbers.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

Unit = Literal["word", "character"]


def units(text: str, unit: Unit) -> list[str]:
    """The words of a text (what white space parts), or its characters."""
    return text.split() if unit == "word" else list(text)


def unit_of(texts: Sequence[str], least: float = 5.0) -> Unit:
    """Words for texts of `least` words or more on average; characters for names, formulas and the like."""
    return "word" if sum(len(text.split()) for text in texts) >= least * len(texts) else "character"


def ngrams(text: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All n-grams in their order; none of a text of fewer units."""
    return list(zip(*(text[i:] for i in range(n)), strict=False))


def distinct(texts: Iterable[Sequence[str]], n: int) -> float:
    """distinct-n of all texts together, 0 ... 1; 0 where there is no n-gram.

    Args:
        texts: in units.
        n: units of an n-gram, at least 1.
    """
    found = [ngram for text in texts for ngram in ngrams(text, n)]
    return len(set(found)) / len(found) if found else 0.0


def repeated(texts: Sequence[Sequence[str]], n: int) -> float:
    """rep-n, 0 ... 1: the mean share of a text's n-grams that it has already said; 0 of one without n-grams.

    Args:
        texts: in units, at least one.
        n: units of an n-gram, at least 1.
    """
    found = [ngrams(text, n) for text in texts]
    return sum(1.0 - len(set(some)) / len(some) for some in found if some) / len(texts)


def ends_in_loop(text: Sequence[str], least: int = 2, times: int = 3) -> bool:
    """Whether a text ends with one phrase `times` times over.

    Args:
        text: in units.
        least: units of the shortest phrase that counts.
        times: how often it stands at the end.
    """
    for size in range(least, len(text) // times + 1):
        end = text[len(text) - times * size :]
        if all(end[i] == end[i - size] for i in range(size, len(end))):
            return True
    return False
