"""Signs that a generator makes only a part of the data: missing modes, low recall, samples that repeat each other.

A sample has a twin if another one lies nearer to it than `NEAR` times the median distance between a real example and
its nearest neighbour among as many. Every sign is judged beside the same number for real data.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray

from genjax.metrics.distances.coverage import neighbour_radii

NEAR = 0.2
MODES = 0.95  # smallest share of the modes that real data cover
RECALL = 0.5  # smallest share of the recall of real data
TWINS = 0.2  # largest share of twins beyond that of real data


def _rows(x: Shaped[ndarray, "n ..."]) -> Float[ndarray, "n d"]:
    return x.reshape(len(x), -1).astype(np.float64)


def twin_report(samples: Shaped[ndarray, "n ..."], real: Shaped[ndarray, "m ..."]) -> dict[str, float]:
    """How many samples repeat another one.

    Args:
        samples: generated examples, in the data's units.
        real: unseen data; as many of both are compared as the smaller set has, at least 2.

    Returns:
        "twins" and "twins_reference": shares of samples and of real examples that have a twin.
    """
    count = min(len(samples), len(real))
    drawn, known = (neighbour_radii(_rows(x[:count]), 1) for x in (samples, real))
    near = NEAR * float(np.median(known))
    return {"twins": float((drawn <= near).mean()), "twins_reference": float((known < near).mean())}


def collapse(found: Mapping[str, float | str]) -> str:
    """Says in words what a generator misses, or "" if nothing does.

    Args:
        found: numbers of `twin_report`, `report.distribution_report` and `modes.mode_report`, by their names.
    """
    number = lambda name, default: float(found.get(name, default))
    words = []
    if number("modes_covered", 1.0) < MODES * number("modes_covered_reference", 1.0):
        words.append(f"{number('modes_covered', 0):.0f} of {number('modes', 0):.0f} modes are covered")
    if number("recall", 1.0) < RECALL * number("recall_reference", 1.0):
        words.append(
            f"recall is {number('recall', 0):.2f}, that of real data {number('recall_reference', 0):.2f}"
        )
    if number("twins", 0.0) > TWINS + number("twins_reference", 0.0):
        words.append(f"{number('twins', 0):.0%} of the samples have a twin")
    return "; ".join(words)
