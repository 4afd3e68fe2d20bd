"""Uniqueness and novelty of generated short texts."""

from collections.abc import Sequence


def novelty(samples: Sequence[str], train: Sequence[str], test: Sequence[str]) -> dict[str, float]:
    """Shares of unique, novel and held-out texts among the samples.

    Args:
        samples: generated texts, at least one.
        train: training texts.
        test: held-out texts.

    Returns:
        - "unique": distinct samples over all samples.
        - "novel": share of samples not in `train`.
        - "in_test": share of samples in `test`.
    """
    known, held_out = set(train), set(test)
    share = lambda count: count / len(samples)
    return {
        "unique": share(len(set(samples))),
        "novel": share(sum(sample not in known for sample in samples)),
        "in_test": share(sum(sample in held_out for sample in samples)),
    }
