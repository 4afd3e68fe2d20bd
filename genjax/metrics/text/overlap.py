"""Overlap between texts: BLEU by sacrebleu, ROUGE by rouge-score, and self-BLEU within a set of texts.

    self-BLEU = mean over texts of the BLEU of each with all others as its references

(Zhu et al. 2018, arXiv:1802.01886): 100 if all texts are equal, 0 if no two share a unit. BLEU (Papineni et al. 2002)
uses n-grams of up to four units and is in per cent; sentence BLEU is smoothed and of effective order, as in sacrebleu
(see `signature`). ROUGE (Lin 2004) is in 0 ... 1. Both libraries are imported on first use, which takes two seconds.
"""

import re
from collections.abc import Sequence
from typing import Any

from genjax.core.errors import UserError, nearest
from genjax.core.extras import require
from genjax.metrics.text.ngrams import Unit

ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def _scorer(unit: Unit, sentence: bool) -> Any:
    """sacrebleu's BLEU over words (mteval tokenization, "13a") or characters."""
    return require("sacrebleu.metrics", "science", "BLEU").BLEU(
        tokenize="13a" if unit == "word" else "char", effective_order=sentence
    )


def signature(unit: Unit = "word") -> str:
    """The sacrebleu signature of `mean_bleu` and `self_bleu`, without the number of references."""
    scorer = _scorer(unit, sentence=True)
    scorer.sentence_score("a", ["a"])
    return str(scorer.get_signature()).removeprefix("nrefs:1|")


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]], unit: Unit = "word") -> float:
    """Corpus BLEU, 0 ... 100, as published for translations.

    Args:
        hypotheses: generated texts.
        references: one or more references per hypothesis, the same number for each.
        unit: unit of the n-grams.

    Returns:
        Corpus BLEU in per cent.

    Raises:
        UserError: no hypotheses, or the numbers of references differ.
    """
    counts = {len(some) for some in references}
    if not hypotheses or len(references) != len(hypotheses) or len(counts) != 1 or 0 in counts:
        raise UserError(
            f"BLEU needs equally many references for each hypothesis: {len(hypotheses)} hypotheses, "
            f"{len(references)} lists of {sorted(counts)} references"
        )
    streams = [list(stream) for stream in zip(*references, strict=True)]
    return float(_scorer(unit, sentence=False).corpus_score(list(hypotheses), streams).score)


def mean_bleu(hypotheses: Sequence[str], references: Sequence[str], unit: Unit = "word") -> float:
    """Mean sentence BLEU, 0 ... 100, each text against all references.

    Args:
        hypotheses: generated texts.
        references: references of every hypothesis, such as held-out text.
        unit: unit of the n-grams.

    Returns:
        Mean sentence BLEU in per cent.

    Raises:
        UserError: no text on one side.
    """
    if not hypotheses or not references:
        raise UserError(
            f"BLEU of {len(hypotheses)} texts against {len(references)}: needs at least one of each"
        )
    scorer, known = _scorer(unit, sentence=True), list(references)
    return sum(scorer.sentence_score(text, known).score for text in hypotheses) / len(hypotheses)


def self_bleu(texts: Sequence[str], max_texts: int = 100, unit: Unit = "word") -> float:
    """Self-BLEU of the first texts, 0 ... 100; quadratic time in their number.

    Args:
        texts: at least two.
        max_texts: upper limit on the texts compared. The value grows with their number: compare equal numbers.
        unit: unit of the n-grams.

    Returns:
        Self-BLEU in per cent.

    Raises:
        UserError: fewer than two texts.
    """
    some = list(texts[:max_texts])
    if len(some) < 2:
        raise UserError(f"self-BLEU needs at least 2 texts, got {len(some)}")
    scorer = _scorer(unit, sentence=True)
    scores = [scorer.sentence_score(text, some[:i] + some[i + 1 :]).score for i, text in enumerate(some)]
    return sum(scores) / len(scores)


def rouge(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    kinds: Sequence[str] = ("rouge1", "rouge2", "rougeL"),
    stem: bool = False,
) -> dict[str, float]:
    """Mean ROUGE F1 of each kind, 0 ... 1, with the best reference of each hypothesis.

    Args:
        hypotheses: generated texts.
        references: one or more references per hypothesis.
        kinds: members of `ROUGES`, or "rouge" and a digit from 3 to 9.
        stem: compare English words by their Porter stems.

    Returns:
        Kind -> mean F1.

    Raises:
        UserError: no hypotheses or references, or an unknown kind.
    """
    if not hypotheses or len(references) != len(hypotheses) or not all(references):
        raise UserError(
            f"ROUGE needs references for each hypothesis: {len(hypotheses)} hypotheses, {len(references)} lists"
        )
    for kind in kinds:
        if kind not in ROUGES and not re.fullmatch("rouge[3-9]", kind):
            raise UserError(f"no ROUGE '{kind}': {nearest(kind, ROUGES)}")
    scorer = require("rouge_score.rouge_scorer", "science", "ROUGE").RougeScorer(
        list(kinds), use_stemmer=stem
    )
    rows = [scorer.score_multi(list(some), text) for text, some in zip(hypotheses, references, strict=True)]
    return {kind: sum(float(row[kind].fmeasure) for row in rows) / len(rows) for kind in kinds}
