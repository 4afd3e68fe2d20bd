"""Inline SVG charts that follow the page's light or dark colour scheme and scale to any width."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

# The colour-blind safe palette of Okabe & Ito (2008), then more colours that work on white and on black.
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#7f7f7f",
    "#b8a800",
    "#8a63d2",
    "#a6611a",
    "#e0559a",
    "#2aa7a0",
)
WIDTH, HEIGHT = 640, 380
LEFT, RIGHT, TOP, BOTTOM = 74, 16, 14, 46


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
        name: label.
        low: smallest value.
        high: largest value.
        log: logarithmic scale; `low` is then positive.
    """

    name: str
    low: float
    high: float
    log: bool = False

    @staticmethod
    def around(name: str, values: Sequence[float], log: bool = False) -> "Axis":
        """An axis that covers all finite values with a margin of 7 percent.

        Args:
            name: label.
            values: the data along this axis; values that are not finite are ignored.
            log: use a logarithmic scale if all values are positive.

        Returns:
            The axis; 0 ... 1 with its margin if no value is finite.
        """
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        log = log and min(finite) > 0
        low, high = (math.log10(v) if log else v for v in (min(finite), max(finite)))
        margin = 0.07 * (high - low) or 0.5 * abs(high) or 0.5
        low, high = low - margin, high + margin
        return Axis(name, 10**low, 10**high, True) if log else Axis(name, low, high)

    def fraction(self, value: float) -> float:
        """Position of a value along the axis: 0 at `low`, 1 at `high`."""
        scale = math.log10 if self.log else float
        return (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))

    def ticks(self) -> list[float]:
        """Round tick values within the axis."""
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
    return LEFT + axis.fraction(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.fraction(value) * (HEIGHT - TOP - BOTTOM)


def _frame(x: Axis, y: Axis) -> list[str]:
    """Grid lines, tick labels and the labels of both axes."""
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
    turned = f'transform="rotate(-90 20 {centre})"'
    parts.append(f'<text x="20" y="{centre}" text-anchor="middle" {turned}>{html.escape(y.name)}</text>')
    return parts


def _svg(parts: Sequence[str], label: str, height: int = HEIGHT) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(label)}">{body}</svg>'


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the Pareto front (no other point is below and to the left), sorted by x."""
    best, found = math.inf, []
    for index in sorted(range(len(points)), key=lambda i: points[i]):
        if points[index][1] < best:
            best = points[index][1]
            found.append(index)
    return found


def colour(number: int) -> str:
    """Colour of the row with this index; the palette repeats."""
    return COLOURS[number % len(COLOURS)]


@dataclass(frozen=True)
class Point:
    """A named point of a scatter.

    Attributes:
        name: label.
        number: index of its colour.
        x: horizontal coordinate.
        y: vertical coordinate.
        std: half the length of the vertical error bar; 0 for none.
    """

    name: str
    number: int
    x: float
    y: float
    std: float = 0.0


Box = tuple[float, float, float, float]  # left, top, right, bottom


def _label(name: str, x: float, y: float, taken: list[Box]) -> str:
    """Places a point's label where it overlaps `taken` least, and appends its box to `taken`."""
    width, best = 6.6 * len(name), None
    for dy in (-9.0, 4.0, 19.0, -23.0, 33.0):
        for anchor, left in (("start", x + 9), ("end", x - 9 - width)):
            box = (left, y + dy - 11, left + width, y + dy + 3)
            inside = (
                box[0] >= LEFT and box[2] <= WIDTH - RIGHT + 4 and box[1] >= 0 and box[3] <= HEIGHT - BOTTOM
            )
            met = sum(
                max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
                * max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
                for other in taken
            )
            cost = met + (0.0 if inside else 1e6)
            if best is None or cost < best[0]:
                best = (cost, box, anchor, dy)
    assert best is not None
    _, box, anchor, dy = best
    taken.append(box)
    at = box[0] if anchor == "start" else box[2]
    words = html.escape(name)
    return f'<text class="name" x="{at:.1f}" y="{y + dy:.1f}" text-anchor="{anchor}">{words}</text>'


def scatter(points: Sequence[Point], x_name: str, y_name: str) -> str:
    """Scatter plot of named points on logarithmic axes with the Pareto front; smaller is better on both axes.

    Args:
        points: the points to draw.
        x_name: label of the x axis.
        y_name: label of the y axis.

    Returns:
        SVG.
    """
    low = lambda p: p.y - p.std if p.std < p.y else p.y
    x = Axis.around(x_name, [point.x for point in points], log=True)
    y = Axis.around(y_name, [v for p in points for v in (low(p), p.y + p.std)], log=True)
    parts = _frame(x, y)
    places = [(_x(x, p.x), _y(y, p.y)) for p in points]
    line = " ".join(
        f"{places[i][0]:.1f},{places[i][1]:.1f}" for i in pareto_front([(p.x, p.y) for p in points])
    )
    parts.append(f'<polyline class="front" points="{line}"/>')
    taken = [(px - 7, py - 7, px + 7, py + 7) for px, py in places]
    for point, (px, py) in zip(points, places, strict=True):
        if point.std:
            top, bottom = _y(y, point.y + point.std), _y(y, low(point))
            ends = f'x1="{px:.1f}" x2="{px:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"'
            parts.append(f'<line class="bar" {ends} stroke="{colour(point.number)}"/>')
        title = f"<title>{html.escape(point.name)}: {point.x:.3g}, {point.y:.3g}</title>"
        parts.append(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5.5" fill="{colour(point.number)}">{title}</circle>'
        )
        parts.append(_label(point.name, px, py, taken))
    return _svg(parts, f"{y_name} against {x_name}")


def strip(rows: Sequence[tuple[str, Sequence[float]]], name: str, log: bool = False) -> str:
    """Strip plot: the values of each row as dots below its name, with a bar at their mean.

    Args:
        rows: (name, values); values may be empty.
        name: label of the axis.
        log: whether the axis is logarithmic.

    Returns:
        SVG; values that are not finite are omitted.
    """
    pitch, left = 50, 20  # names are placed above the dots: narrow screens cannot fit both side by side
    height = pitch * len(rows) + TOP + 30
    axis = Axis.around(name, [v for _, values in rows for v in values], log)
    place = lambda value: left + axis.fraction(value) * (WIDTH - RIGHT - left)
    bottom = TOP + pitch * len(rows)
    parts = []
    for mark in axis.ticks():
        at = place(mark)
        parts.append(f'<line class="grid" x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{bottom}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{mark:.4g}</text>')
    for number, (label, values) in enumerate(rows):
        y, kept = TOP + pitch * (number + 0.7), [v for v in values if math.isfinite(v)]
        parts.append(f'<text x="0" y="{y - 13:.1f}">{html.escape(label)}</text>')
        if len(kept) > 1:
            at = place(math.fsum(kept) / len(kept))
            ends = f'x1="{at:.1f}" x2="{at:.1f}" y1="{y - 9:.1f}" y2="{y + 9:.1f}"'
            parts.append(f'<line class="bar" {ends} stroke="{colour(number)}"/>')
        for value in kept:
            title = f"<title>{html.escape(label)}: {value:.4g}</title>"
            dot = f'cx="{place(value):.1f}" cy="{y:.1f}" r="5" fill="{colour(number)}" fill-opacity="0.75"'
            parts.append(f"<circle {dot}>{title}</circle>")
    return _svg(parts, name, height)


def lines(curves: Sequence[tuple[str, int, Sequence[tuple[float, float]]]], x_name: str, y_name: str) -> str:
    """Line plot with all curves in one panel.

    Args:
        curves: (name, index of the colour, points).
        x_name: label of the x axis.
        y_name: label of the y axis.

    Returns:
        SVG; values that are not finite are omitted.
    """
    kept = [(name, number, [p for p in points if math.isfinite(p[1])]) for name, number, points in curves]
    x = Axis.around(x_name, [p[0] for _, _, points in kept for p in points])
    y = Axis.around(y_name, [p[1] for _, _, points in kept for p in points])
    parts = _frame(x, y)
    for name, number, points in kept:
        line = " ".join(f"{_x(x, px):.1f},{_y(y, py):.1f}" for px, py in points)
        title = f"<title>{html.escape(name)}</title>"
        parts.append(f'<polyline class="curve" stroke="{colour(number)}" points="{line}">{title}</polyline>')
    return _svg(parts, f"{y_name} against {x_name}")
