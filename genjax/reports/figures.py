"""Figures: captioned tiles of pictures, densities and velocity fields in the plane, curves, histograms.

They show how samples evolve along a sampling path and how they depend on a setting.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Real
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy import ndarray
from PIL import Image, ImageDraw

from genjax.core.errors import UserError
from genjax.reports.pictures import font, new_figure, rasterize

CAPTION = 18  # pixels
MESH = 16  # approximate number of lines of a warped grid in each direction

Points = Float[ndarray, "_ 2"]


def tiles(pictures: Sequence[tuple[str, Image.Image]], columns: int = 1) -> Image.Image:
    """Lays pictures out row by row, each under its caption.

    Args:
        pictures: (caption, picture); the largest width and height set the tile size.
        columns: tiles in a row.

    Returns:
        An RGB picture.

    Raises:
        UserError: `pictures` is empty.
    """
    if not pictures:
        raise UserError("there are no pictures to lay out")
    width = max(picture.width for _, picture in pictures) + 6
    height = max(picture.height for _, picture in pictures) + CAPTION + 6
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    canvas = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (caption, picture) in enumerate(pictures):
        x, y = number % columns * width + 3, number // columns * height
        draw.text((x, y + 2), caption, fill="black", font=font(CAPTION - 6))
        canvas.paste(picture, (x, y + CAPTION))
    return canvas


def field(
    points: Points,
    window: tuple[float, float],
    reference: Points | None = None,
    arrows: tuple[Points, Points] | None = None,
    mesh: Float[ndarray, "_ _ 2"] | None = None,
) -> Image.Image:
    """Scatter plot in a square window of the plane, over a velocity field or a warped grid.

    Args:
        points: samples [n, 2].
        window: (low, high) of both axes.
        reference: data points [m, 2], in grey.
        arrows: (positions, velocities), both [a, 2]; scaled to the longest arrow.
        mesh: positions of warped grid points by row and column; joined by lines along both.

    Returns:
        A picture of 300 x 300 pixels.
    """
    figure, axes = _square(window)
    if reference is not None:
        axes.scatter(*reference.T, s=2, color="#c8c8c8", linewidths=0)
    if arrows is not None and arrows[1].any():
        axes.quiver(*arrows[0].T, *arrows[1].T, color="#a05010", alpha=0.7, width=0.004)
    axes.scatter(*points.T, s=3, color="#1f5fa8", linewidths=0)
    if mesh is not None:
        lines = [line for lines in (mesh, mesh.swapaxes(0, 1)) for line in lines[:: len(lines) // MESH]]
        axes.add_collection(LineCollection(lines, colors="#a05010", linewidths=0.4))
    return rasterize(figure)


def density(log_density: Real[ndarray, "n n"], window: tuple[float, float]) -> Image.Image:
    """Heat map of a density over a square window of the plane.

    Args:
        log_density: in nats; row i is the i-th value of the second coordinate.
        window: (low, high) of both axes.

    Returns:
        A picture of 300 x 300 pixels; its title is the integral over the window.
    """
    figure, axes = _square(window)
    values = np.exp(np.minimum(log_density.astype(np.float64), 50.0))  # clip: an untrained model may overflow
    axes.imshow(values, origin="lower", extent=(*window, *window), cmap="viridis", interpolation="bilinear")
    cell = ((window[1] - window[0]) / (len(values) - 1)) ** 2
    axes.set_title(f"density, integral {values.sum() * cell:.3f}", fontsize=7)
    return rasterize(figure)


def series(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_name: str, y_name: str
) -> Image.Image:
    """Curves in one panel with a legend; the x axis is logarithmic if all x are positive.

    Args:
        lines: name -> (x, y).
        x_name: label of the x axis.
        y_name: label of the y axis.

    Returns:
        A picture of 600 x 400 pixels.
    """
    figure = new_figure(6.0, 4.0)
    axes = figure.add_subplot()
    for name, (x, y) in lines.items():
        axes.plot(x, y, marker="o", markersize=3, linewidth=1, label=name)
    if all(value > 0 for x, _ in lines.values() for value in x):
        axes.set_xscale("log")
    axes.set_xlabel(x_name)
    axes.set_ylabel(y_name)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return rasterize(figure)


def histogram(shares: Float[ndarray, " v"], name: str) -> Image.Image:
    """Bar chart of the frequency of each value.

    Args:
        shares: relative frequencies; they sum to 1.
        name: label of the values.

    Returns:
        A picture of 600 x 300 pixels; its title gives the number of values used and their perplexity.
    """
    figure = new_figure(6.0, 3.0)
    axes = figure.add_subplot()
    axes.bar(np.arange(len(shares)), shares, width=1.0, color="#1f5fa8")
    axes.axhline(1.0 / len(shares), color="#a05010", linewidth=0.8)
    used = shares[shares > 0].astype(np.float64)
    perplexity = np.exp(-np.sum(used * np.log(used)))
    axes.set_title(f"{len(used)} of {len(shares)} used, perplexity {perplexity:.1f}", fontsize=8)
    axes.set_xlabel(name)
    axes.set_ylabel("share")
    return rasterize(figure)


def _square(window: tuple[float, float]) -> tuple:
    figure = new_figure(3.0, 3.0)
    axes: Axes = figure.add_subplot()
    axes.set_xlim(*window)
    axes.set_ylim(*window)
    axes.set_aspect("equal")
    axes.tick_params(labelsize=6)
    return figure, axes
