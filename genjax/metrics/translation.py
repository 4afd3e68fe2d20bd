"""L1 distances of translated images from their targets, with a nearest-neighbour baseline.

d(x, y) = mean over examples, pixels and channels of |x - y|, as a fraction of the range from black to white.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped

Pictures = Shaped[np.ndarray, "_ h w c"]


def l1(x: Pictures, y: Pictures, levels: int) -> float:
    """Mean absolute difference d(x, y), as a fraction of the value range.

    Args:
        x: images [n, h, w, c].
        y: images [n, h, w, c].
        levels: number of levels of integer pixels; 0 for floating point in [-1, 1].

    Returns:
        d(x, y) in [0, 1].
    """
    return float(np.mean(np.abs(x.astype(np.float64) - y.astype(np.float64)))) / (levels - 1 if levels else 2)


def neighbours(known: Pictures, asked: Pictures) -> np.ndarray:
    """Index of the nearest `known` image (Euclidean) of each image in `asked`, [n]."""
    rows, columns = (x.reshape(len(x), -1).astype(np.float64) for x in (asked, known))
    squared = (
        np.sum(columns**2, axis=1)[None] - 2.0 * rows @ columns.T
    )  # up to |row|^2, constant in the argmin
    return np.argmin(squared, axis=1)


def translation_report(
    shown: Mapping[str, Pictures], known: tuple[Pictures, Pictures] | None, levels: int
) -> dict[str, float]:
    """L1 distances of a translator's outputs.

    Args:
        shown: outputs of `HasTranslation.translate` on the test split, in the data's own units.
        known: inputs and targets of the training split if the data are paired, else None.
        levels: see `l1`.

    Returns:
        "l1" between output and target, "l1_input" between input and target, "l1_neighbour" between the target of the
        nearest training input and the target, "l1_back" between input and its cycle reconstruction; "..._reversed" for
        the other direction.
    """
    numbers: dict[str, float] = {}
    for ending in ("", "_reversed"):
        if "output" + ending not in shown:
            continue
        given, made, target = (shown[name + ending] for name in ("input", "output", "target"))
        numbers |= {"l1" + ending: l1(made, target, levels), "l1_input" + ending: l1(given, target, levels)}
        if known is not None:
            inputs, targets = known if not ending else known[::-1]
            numbers["l1_neighbour" + ending] = l1(targets[neighbours(inputs, given)], target, levels)
        if "back" + ending in shown:
            numbers["l1_back" + ending] = l1(shown["back" + ending], given, levels)
    return numbers
