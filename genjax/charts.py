"""Charts as SVG within a page: they take the page's colours, light or dark, and stay sharp at any width."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

# Okabe & Ito (2008): told apart by the colour-blind, and on white as on black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f", "#b8a800")
WIDTH, HEIGHT = 640, 380
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 46


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
        name: what it says.
        low: smallest value.
        high: largest value.
        log: logarithmic; `low` is then positive.
    """

    name: str
    low: float
    high: float
    log: bool = False

    @staticmethod
    def around(name: str, values: Sequence[float], log: bool = False) -> "Axis":
        """Holds all the values, with a margin; logarithmic only if all are positive."""
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        log = log and min(finite) > 0
        low, high = (math.log10(v) if log else v for v in (min(finite), max(finite)))
        margin = 0.07 * (high - low) or 0.5 * abs(high) or 0.5
        low, high = low - margin, high + margin
        return Axis(name, 10**low, 10**high, True) if log else Axis(name, low, high)

    def place(self, value: float) -> float:
        """From `low` to `high`, as a share of the axis."""
        scale = math.log10 if self.log else float
        return (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))

    def ticks(self) -> list[float]:
        """Round values within the axis."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            marks = [m * 10.0**d for d in decades for m in (1, 2, 5)]
            found = [mark for mark in marks if self.low <= mark <= self.high]
            if len(found) >= 3:
                return found if len(found) <= 9 else [m for m in found if f"{m:e}"[0] == "1"]
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 4))
        step *= next(m for m in (1, 2, 5, 10) if (self.high - self.low) / (m * step) <= 7)
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step) + 1)]


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM)


def _frame(x: Axis, y: Axis) -> list[str]:
    """Grid lines, their values and the names of both axes."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for mark in x.ticks():
        at = _x(x, mark)
        parts.append(f'<line class="grid" x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{bottom}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{mark:.4g}</text>')
    for mark in y.ticks():
        at = _y(y, mark)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{mark:.4g}</text>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(x.name)}</text>')
    centre = (TOP + bottom) / 2
    turned = f'transform="rotate(-90 14 {centre})"'
    parts.append(f'<text x="14" y="{centre}" text-anchor="middle" {turned}>{html.escape(y.name)}</text>')
    return parts


def _svg(parts: Sequence[str], label: str) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(label)}">{body}</svg>'


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other one is below and to the left of, by rising x (Pareto's front)."""
    best, found = math.inf, []
    for index in sorted(range(len(points)), key=lambda i: points[i]):
        if points[index][1] < best:
            best = points[index][1]
            found.append(index)
    return found


def scatter(points: Sequence[tuple[str, float, float]], x_name: str, y_name: str) -> str:
    """Named points on logarithmic axes, less being better along both, with the line of those that are best.

    Args:
        points: (name, x, y), in the order of the colours.
        x_name: label of the axis.
        y_name: label of the axis.

    Returns:
        SVG.
    """
    x = Axis.around(x_name, [point[1] for point in points], log=True)
    y = Axis.around(y_name, [point[2] for point in points], log=True)
    parts = _frame(x, y)
    places = [(_x(x, px), _y(y, py)) for _, px, py in points]
    line = " ".join(
        f"{places[i][0]:.1f},{places[i][1]:.1f}" for i in front([(px, py) for _, px, py in points])
    )
    parts.append(f'<polyline class="front" points="{line}"/>')
    for number, ((name, *_), (px, py)) in enumerate(zip(points, places, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        side = ("end", -9) if px > 0.6 * WIDTH else ("start", 9)
        parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5.5" fill="{colour}"/>')
        words = html.escape(name)
        parts.append(f'<text x="{px + side[1]:.1f}" y="{py - 7:.1f}" text-anchor="{side[0]}">{words}</text>')
    return _svg(parts, f"{y_name} against {x_name}")


def lines(curves: Sequence[tuple[str, int, Sequence[tuple[float, float]]]], x_name: str, y_name: str) -> str:
    """Curves in one panel.

    Args:
        curves: (name, index of the colour, points).
        x_name: label of the axis.
        y_name: label of the axis.

    Returns:
        SVG; values that are not finite are left out.
    """
    kept = [(name, colour, [p for p in points if math.isfinite(p[1])]) for name, colour, points in curves]
    x = Axis.around(x_name, [p[0] for _, _, points in kept for p in points])
    y = Axis.around(y_name, [p[1] for _, _, points in kept for p in points])
    parts = _frame(x, y)
    for name, colour, points in kept:
        line = " ".join(f"{_x(x, px):.1f},{_y(y, py):.1f}" for px, py in points)
        title = f"<title>{html.escape(name)}</title>"
        stroke = COLOURS[colour % len(COLOURS)]
        parts.append(f'<polyline class="curve" stroke="{stroke}" points="{line}">{title}</polyline>')
    return _svg(parts, f"{y_name} against {x_name}")
