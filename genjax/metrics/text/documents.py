"""Short texts that a model made: how many differ, and how many it cannot have read."""

from collections.abc import Sequence


def novelty(samples: Sequence[str], train: Sequence[str], test: Sequence[str]) -> dict[str, float]:
    """Shares of samples.

    Args:
        samples: what was made, at least one.
        train: what the model has read.
        test: what it has not.

    Returns:
        - "unique": different samples, as a share of all.
        - "novel": samples that are not in `train`.
        - "in_test": samples that are in `test`: documents of the data that the model has not read.
    """
    known, held_out = set(train), set(test)
    share = lambda count: count / len(samples)
    return {
        "unique": share(len(set(samples))),
        "novel": share(sum(sample not in known for sample in samples)),
        "in_test": share(sum(sample in held_out for sample in samples)),
    }
