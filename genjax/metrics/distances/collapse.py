"""Signs of mode collapse: missing modes, low recall, near-duplicate samples.

A sample has a near-duplicate if another sample is closer than `NEAR` times the median nearest-neighbour distance of as
many real examples. Every sign is compared with the same number for real data.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray

from genjax.metrics.distances.coverage import neighbour_radii

NEAR = 0.2
MODES = 0.95  # minimum, relative to the modes that real data cover
RECALL = 0.5  # minimum, relative to the recall of real data
DUPLICATES = 0.2  # maximum share of near-duplicates above that of real data


def _rows(x: Shaped[ndarray, "n ..."]) -> Float[ndarray, "n d"]:
    return x.reshape(len(x), -1).astype(np.float64)


def near_duplicate_report(
    samples: Shaped[ndarray, "n ..."], real: Shaped[ndarray, "m ..."]
) -> dict[str, float]:
    """Shares of near-duplicates within the samples and within real data.

    Args:
        samples: generated examples, in the data's units.
        real: unseen data; both sets are cut to the size of the smaller one, at least 2.

    Returns:
        "near_duplicates" and "near_duplicates_reference": shares of samples and of real examples with a near-duplicate.
    """
    count = min(len(samples), len(real))
    drawn, known = (neighbour_radii(_rows(x[:count]), 1) for x in (samples, real))
    near = NEAR * float(np.median(known))
    return {
        "near_duplicates": float((drawn <= near).mean()),
        "near_duplicates_reference": float((known < near).mean()),
    }


def collapse(found: Mapping[str, float | str]) -> str:
    """Describes the signs of collapse, "" if there are none.

    Args:
        found: numbers of `near_duplicate_report`, `report.distribution_report` and `modes.mode_report`, by name.
    """
    number = lambda name, default: float(found.get(name, default))
    words = []
    if number("modes_covered", 1.0) < MODES * number("modes_covered_reference", 1.0):
        words.append(f"{number('modes_covered', 0):.0f} of {number('modes', 0):.0f} modes are covered")
    if number("recall", 1.0) < RECALL * number("recall_reference", 1.0):
        words.append(
            f"recall is {number('recall', 0):.2f}, that of real data {number('recall_reference', 0):.2f}"
        )
    if number("near_duplicates", 0.0) > DUPLICATES + number("near_duplicates_reference", 0.0):
        words.append(f"{number('near_duplicates', 0):.0%} of the samples have a near-duplicate")
    return "; ".join(words)
