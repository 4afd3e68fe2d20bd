"""Numbers of several seeds, and in words how far they lie apart.

Of n values m = 1/n ∑_i x_i stands beside the sample standard deviation s = (1/(n - 1) ∑_i (x_i - m)²)^½, of which a
single value has none.
"""

import math
from collections.abc import Sequence
from typing import Any


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (None of a single value) and the values themselves."""
    mean = math.fsum(values) / len(values)
    square = math.fsum((value - mean) ** 2 for value in values)
    deviation = math.sqrt(square / (len(values) - 1)) if len(values) > 1 else None
    return {"mean": mean, "spread": deviation, "values": list(values)}


def in_words(mean: float, around: float | None, form: str = "{:.3g}", most: int = 4) -> str:
    """Mean ± what lies around it, which is given two digits.

    Args:
        mean: as it is.
        around: a spread or an error; None where there is none.
        form: how the mean is written where nothing around it says how many digits it has.
        most: digits behind the point; what lies around it is left out where it has none within these.

    Returns:
        "1.27 ± 0.12", or the mean alone.
    """
    if around is None or 0 < around < 0.5 * 10**-most:
        return form.format(mean)
    if around == 0 or not (math.isfinite(around) and math.isfinite(mean)):
        return f"{form.format(mean)} ± {around:.2g}"
    digits = min(most, max(0, 1 - math.floor(math.log10(around))))
    return f"{mean:,.{digits}f} ± {around:,.{digits}f}"
