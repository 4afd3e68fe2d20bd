"""Mean and standard deviation over seeds, and their text.

The mean is m = 1/n ∑_i x_i, the sample standard deviation s = (1/(n - 1) ∑_i (x_i - m)²)^½, undefined for n = 1.
"""

import math
from collections.abc import Sequence
from typing import Any


def mean_and_std(values: Sequence[float]) -> dict[str, Any]:
    """ "mean", "std" (sample standard deviation; None for a single value) and "values"."""
    mean = math.fsum(values) / len(values)
    square = math.fsum((value - mean) ** 2 for value in values)
    std = math.sqrt(square / (len(values) - 1)) if len(values) > 1 else None
    return {"mean": mean, "std": std, "values": list(values)}


def format_mean(mean: float, error: float | None, form: str = "{:.3g}", max_digits: int = 4) -> str:
    """Formats "mean ± error" with two significant digits of the error.

    Args:
        mean: the mean.
        error: a standard deviation or standard error; None if unknown.
        form: format string of the mean if the error does not set its digits.
        max_digits: most decimal places; an error that rounds to zero at this precision is omitted.

    Returns:
        "1.27 ± 0.12", or the mean alone.
    """
    if error is None or 0 < error < 0.5 * 10**-max_digits:
        return form.format(mean)
    if error == 0 or not (math.isfinite(error) and math.isfinite(mean)):
        return f"{form.format(mean)} ± {error:.2g}"
    digits = min(max_digits, max(0, 1 - math.floor(math.log10(error))))
    return f"{mean:,.{digits}f} ± {error:,.{digits}f}"
