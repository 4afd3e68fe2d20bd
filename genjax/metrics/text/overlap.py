"""How much texts share with others: BLEU by sacrebleu, ROUGE by rouge-score, and BLEU within a set of texts.

    self-BLEU = mean over texts of the BLEU of each with all others as its references

(Zhu et al. 2018, arXiv:1802.01886): 100 if all texts are equal, 0 if no two share a unit. BLEU (Papineni et al. 2002)
is of up to four units, in per cent, and that of one text is smoothed and of effective order, as sacrebleu has it;
`signature` says all of this. ROUGE (Lin 2004) is in 0 ... 1. Both libraries are imported when they are first used, as
that takes two seconds.
"""

import re
from collections.abc import Sequence
from typing import Any

from genjax.core.errors import UserError, nearest
from genjax.metrics.text.ngrams import Unit

ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def _scorer(unit: Unit, sentence: bool) -> Any:
    """sacrebleu's BLEU over words (mteval's tokens, "13a") or characters."""
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize="13a" if unit == "word" else "char", effective_order=sentence)


def signature(unit: Unit = "word") -> str:
    """What `mean_bleu` and `self_bleu` compute, in sacrebleu's words, less the number of references."""
    scorer = _scorer(unit, sentence=True)
    scorer.sentence_score("a", ["a"])
    return str(scorer.get_signature()).removeprefix("nrefs:1|")


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]], unit: Unit = "word") -> float:
    """BLEU of a corpus, 0 ... 100, as published for translations.

    Args:
        hypotheses: what was made.
        references: of each hypothesis its references, one or more; as many of each.
        unit: what n-grams are of.

    Raises:
        UserError: nothing to compare, or another number of references.
    """
    counts = {len(some) for some in references}
    if not hypotheses or len(references) != len(hypotheses) or len(counts) != 1 or 0 in counts:
        raise UserError(
            f"BLEU needs as many references for each hypothesis: {len(hypotheses)} hypotheses, "
            f"{len(references)} lists of {sorted(counts)} references"
        )
    streams = [list(stream) for stream in zip(*references, strict=True)]
    return float(_scorer(unit, sentence=False).corpus_score(list(hypotheses), streams).score)


def mean_bleu(hypotheses: Sequence[str], references: Sequence[str], unit: Unit = "word") -> float:
    """Mean BLEU of single texts, 0 ... 100, each against all references.

    Args:
        hypotheses: what was made.
        references: what all of them are compared with, such as held-out text.
        unit: what n-grams are of.

    Raises:
        UserError: no text on one side.
    """
    if not hypotheses or not references:
        raise UserError(f"BLEU of {len(hypotheses)} texts against {len(references)}: give one or more")
    scorer, known = _scorer(unit, sentence=True), list(references)
    return sum(scorer.sentence_score(text, known).score for text in hypotheses) / len(hypotheses)


def self_bleu(texts: Sequence[str], most: int = 100, unit: Unit = "word") -> float:
    """Self-BLEU of the first texts, 0 ... 100; its time grows with the square of their number.

    Args:
        texts: at least two.
        most: how many are looked at. The value grows with their number: compare equal numbers.
        unit: what n-grams are of.

    Raises:
        UserError: fewer than two texts.
    """
    some = list(texts[:most])
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
    """Mean F1 of each kind, 0 ... 1, of the best reference of each hypothesis.

    Args:
        hypotheses: what was made.
        references: of each hypothesis its references, one or more.
        kinds: of `ROUGES`, or "rouge" and a digit from 3 to 9.
        stem: compare English words by their stems (Porter).

    Raises:
        UserError: nothing to compare, or no such kind.
    """
    if not hypotheses or len(references) != len(hypotheses) or not all(references):
        raise UserError(
            f"ROUGE needs references for each hypothesis: {len(hypotheses)} hypotheses, {len(references)} lists"
        )
    for kind in kinds:
        if kind not in ROUGES and not re.fullmatch("rouge[3-9]", kind):
            raise UserError(f"no ROUGE '{kind}': {nearest(kind, ROUGES)}")
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(kinds), use_stemmer=stem)
    rows = [scorer.score_multi(list(some), text) for text, some in zip(hypotheses, references, strict=True)]
    return {kind: sum(float(row[kind].fmeasure) for row in rows) / len(rows) for kind in kinds}
