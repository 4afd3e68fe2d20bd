"""Rows of numbers as Markdown tables."""

from collections.abc import Sequence
from typing import Any


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    written = lambda value: f"{value:.4g}" if isinstance(value, float) else str(value)
    return "\n".join(
        [*lines, *("| " + " | ".join(written(row.get(name, "")) for name in names) + " |" for row in rows)]
    )
