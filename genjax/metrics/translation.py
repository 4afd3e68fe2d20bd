"""How far made pictures are from the true ones: L1 distances, and the nearest neighbour that a translator must beat.

d(x, y) = mean over examples, pixels and channels of |x - y|, as a fraction of the range from black to white.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped

Pictures = Shaped[np.ndarray, "_ h w c"]


def l1(x: Pictures, y: Pictures, levels: int) -> float:
    """d(x, y); integers have `levels` levels, floating point (0 levels) lies in [-1, 1]."""
    return float(np.mean(np.abs(x.astype(np.float64) - y.astype(np.float64)))) / (levels - 1 if levels else 2)


def neighbours(known: Pictures, asked: Pictures) -> np.ndarray:
    """For each asked picture the index of the known one at the least Euclidean distance."""
    rows, columns = (x.reshape(len(x), -1).astype(np.float64) for x in (asked, known))
    squared = np.sum(columns**2, axis=1)[None] - 2.0 * rows @ columns.T  # plus what the asked have alike
    return np.argmin(squared, axis=1)


def translation_report(
    shown: Mapping[str, Pictures], known: tuple[Pictures, Pictures] | None, levels: int
) -> dict[str, float]:
    """Distances of a translator's pictures.

    Args:
        shown: as `HasTranslation.translate` gives them, of the test split, in the data's own units.
        known: inputs and targets of the training split, where they are pairs.
        levels: see `l1`.

    Returns:
        "l1" of output and target, "l1_input" of input and target, "l1_neighbour" of the nearest neighbour's target and
        the target, "l1_back" of input and the way there and back; of the other direction the same, "..._reversed".
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
