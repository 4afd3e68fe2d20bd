"""Pictures of samples: images, points in the plane, text, waveforms; and curves of metrics.

Every function takes arrays on the host or a device and returns an RGB `PIL.Image`. Figures are drawn by
matplotlib's Agg canvas without pyplot: no display and no global state is needed.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from genjax.core.errors import UserError, nearest
from genjax.core.types import Array
from genjax.reports.sounds import decibels
from genjax.training.writers import metric_rows

SEPARATOR = 128  # grey level of the lines between images
_DPI = 100
MONITORED = tuple(
    f"monitor/{name}" for name in ("frechet_ratio", "recall", "near_duplicates", "modes_covered")
)
_BLUE, _GREY = "#1f5fa8", "#b8b8b8"


def _bytes(images: np.ndarray, span: tuple[float, float], levels: int) -> np.ndarray:
    """Rounds to grey or colour levels 0 ... 255 (uint8); NaN becomes black."""
    if np.issubdtype(images.dtype, np.integer):
        unit = images / (levels - 1)
    else:
        unit = np.nan_to_num((images.astype(np.float64) - span[0]) / (span[1] - span[0]), nan=0.0)
    return np.rint(np.clip(unit, 0.0, 1.0) * 255).astype(np.uint8)


def grid(
    images: Array | np.ndarray,
    span: tuple[float, float] = (-1.0, 1.0),
    levels: int = 256,
    columns: int = 0,
    scale: int = 0,
) -> Image.Image:
    """Lays images out row by row with lines of one pixel between them.

    Args:
        images: [n, h, w] or [n, h, w, c] with 1 or 3 channels; floating point in data units, or integers
            0 ... levels - 1 (uint8 with 256 levels is shown unchanged).
        span: values of black and white; for floating point.
        levels: number of levels; for integers.
        columns: images in a row; 0 for an approximately square grid.
        scale: each pixel becomes scale x scale pixels; 0 enlarges small images to about 64 pixels.

    Returns:
        An RGB picture of width columns (scale w + 1) - 1.

    Raises:
        UserError: `images` is empty or has another shape.
    """
    values = np.asarray(images)
    if values.ndim == 3:
        values = values[..., None]
    if values.ndim != 4 or values.shape[-1] not in (1, 3) or values.size == 0:
        raise UserError(
            f"images are [n, h, w] or [n, h, w, c] with c = 1 or 3, n > 0; got {np.shape(images)}"
        )
    n, h, w, _ = values.shape
    scale = scale or max(1, round(64 / max(h, w)))
    columns = min(columns or math.ceil(math.sqrt(n)), n)
    rows = math.ceil(n / columns)
    h, w = h * scale, w * scale
    canvas = np.full((rows * (h + 1) - 1, columns * (w + 1) - 1, 3), SEPARATOR, np.uint8)
    for i, image in enumerate(_bytes(values, span, levels).repeat(scale, axis=1).repeat(scale, axis=2)):
        y, x = i // columns * (h + 1), i % columns * (w + 1)
        canvas[y : y + h, x : x + w] = image
    return Image.fromarray(canvas)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of width x height inches with an Agg canvas."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def rasterize(figure: Figure) -> Image.Image:
    """Renders a figure to an RGB picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _points(points: Array | np.ndarray) -> np.ndarray:
    values = np.asarray(points, np.float64)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.size == 0:
        raise UserError(f"points are [n, d] with n > 0; got {np.shape(points)}")
    return values


def scatter(samples: Array | np.ndarray, reference: Array | np.ndarray | None = None) -> Image.Image:
    """Scatter plot of samples over grey reference points; histograms for d = 1.

    Args:
        samples: [n, d]; the first two coordinates are shown, or a histogram for d = 1.
        reference: [m, d] data points; the window is fitted to them, so that outliers among the samples do not set it.

    Returns:
        A picture of 400 x 400 pixels; its title counts the samples outside the window.

    Raises:
        UserError: the shape is not [n, d] with n > 0.
    """
    clouds = [(_points(samples), _BLUE)]
    if reference is not None:
        clouds.insert(0, (_points(reference), _GREY))
    plane = [(cloud[:, :2], colour) for cloud, colour in clouds]
    known = plane[0][0][np.isfinite(plane[0][0]).all(axis=1)]
    known = known if len(known) else np.zeros((1, plane[0][0].shape[1]))
    middle, reach = (known.max(0) + known.min(0)) / 2, max(float(np.ptp(known, axis=0).max()) * 0.55, 1e-6)
    figure = new_figure(4.0, 4.0)
    axes = figure.add_subplot()
    axes.set_xlim(middle[0] - reach, middle[0] + reach)
    for cloud, colour in plane:
        inside = cloud[(np.abs(cloud - middle[None]) <= reach).all(axis=1)]
        if cloud.shape[1] == 1 and len(inside):
            axes.hist(inside[:, 0], bins=64, density=True, color=colour, alpha=0.6)
        elif cloud.shape[1] == 2:
            axes.scatter(inside[:, 0], inside[:, 1], s=3, color=colour, linewidths=0)
    if len(middle) == 2:
        axes.set_ylim(middle[1] - reach, middle[1] + reach)
        axes.set_aspect("equal")
    if len(plane[-1][0]) > len(inside):
        axes.set_title(
            f"{len(plane[-1][0]) - len(inside)} of {len(plane[-1][0])} samples are outside", fontsize=8
        )
    return rasterize(figure)


def font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's fixed-width font with a height of `size` pixels."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSansMono.ttf"), size)


def lines(texts: Sequence[str], width: int = 100, size: int = 14) -> Image.Image:
    """Renders texts below one another in a fixed-width font, wrapped, with a rule between them.

    Args:
        texts: decoded samples; newlines break lines.
        width: characters per line.
        size: font height in pixels.

    Returns:
        A picture, black on white.

    Raises:
        UserError: `texts` is empty.
    """
    if not texts:
        raise UserError("there is no text to show")
    letters = font(size)
    shown: list[str] = []
    for i, text in enumerate(texts):
        shown += ["─" * width] if i else []
        for line in text.expandtabs(4).split("\n"):
            printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
            shown += [printable[j : j + width] for j in range(0, max(len(printable), 1), width)]
    step = round(size * 1.35)
    letter = letters.getlength("m")
    picture = Image.new("RGB", (math.ceil(letter * width) + 2 * size, step * len(shown) + size), "white")
    draw = ImageDraw.Draw(picture)
    for i, line in enumerate(shown):
        draw.text((size, size // 2 + i * step), line, fill="black", font=letters)
    return picture


def waves(samples: Array | np.ndarray, limit: int = 8, rate: int = 0) -> Image.Image:
    """Plots waveforms below one another, each beside its spectrogram if the rate is known.

    Args:
        samples: [n, t] or [n, t, 1].
        limit: most waveforms shown.
        rate: sampling rate in Hz; 0 if unknown.

    Returns:
        A picture 800 pixels wide, 100 for each waveform high.

    Raises:
        UserError: the shape is not that of waveforms, or n = 0.
    """
    values = np.asarray(samples, np.float64)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.size == 0:
        raise UserError(f"waveforms are [n, t] or [n, t, 1] with n > 0; got {np.shape(samples)}")
    values = values[:limit]
    figure = new_figure(8.0, float(len(values)))
    panels = iter(_panels(figure, len(values), 2 if rate else 1))
    for wave in values:
        axes, end = next(panels), max(len(wave) - 1, 1) / (rate or 1)
        axes.plot(np.linspace(0, end, len(wave)), wave, color=_BLUE, linewidth=0.5)
        axes.set_xlim(0, end)
        axes.tick_params(labelsize=6)
        if rate:
            axes, window = next(panels), (0, end, 0, rate / 2000)
            axes.imshow(decibels(wave, rate), origin="lower", aspect="auto", extent=window, cmap="Greys")
            axes.set_ylabel("kHz", fontsize=6)
            axes.tick_params(labelsize=6)
    return rasterize(figure)


def _panels(figure: Figure, rows: int, columns: int) -> list[Axes]:
    return [axes for row in figure.subplots(rows, columns, squeeze=False) for axes in row]


def curves(path: str | Path, names: Sequence[str] = ()) -> Image.Image:
    """Plots the metrics of a run against the step, one panel each.

    Args:
        path: a `metrics.jsonl` as `genjax.training.writers.Writer` writes it.
        names: metrics to plot; if empty, those named ".../loss" and the main ones of the monitor, or all if there
            are none.

    Returns:
        A picture, two panels wide.

    Raises:
        UserError: the file is missing or empty, or a name is not in it.
    """
    if not Path(path).is_file():
        raise UserError(f"no metrics at {path}")
    rows = list(metric_rows(Path(path)))
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name in row.keys() - {"step", "time"}:
            series.setdefault(name, []).append((row["step"], float(row[name])))
    losses = [name for name in series if name.split("/")[-1] == "loss" or name in MONITORED]
    chosen = list(names) or sorted(losses or series)
    for name in chosen:
        if name not in series:
            raise UserError(f"no metric '{name}' in {path}: {nearest(name, series)}")
    if not chosen:
        raise UserError(f"no metrics in {path}")
    height = math.ceil(len(chosen) / 2)
    figure = new_figure(8.0, 2.5 * height)
    panels = _panels(figure, height, 2)
    for axes, name in zip(panels, chosen, strict=False):
        axes.plot(
            *np.asarray(series[name]).T,
            color=_BLUE,
            linewidth=0.8,
            marker="." if len(series[name]) < 20 else "",
        )
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=6)
    for axes in panels[len(chosen) :]:
        axes.set_axis_off()
    return rasterize(figure)
