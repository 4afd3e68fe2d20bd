"""The pictures of a comparison: samples, nearest neighbours, latents, paths, each of the first run of a row."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from genjax.core.errors import UserError
from genjax.core.objective import HasDecoder, HasPath
from genjax.evaluation.comparison import Entry, title
from genjax.evaluation.evaluate import whole
from genjax.metrics.distances.memorization import nearest_training
from genjax.reports import page
from genjax.reports.latents import View, explore
from genjax.reports.pictures import grid
from genjax.reports.sampling_paths import draw_path, show, show_path

SHOWN, NEIGHBOURS, PATHS, FRAMES = 50, 10, 6, 9
Rows = Sequence[Sequence[Entry]]


def cards(rows: Rows, draw: Callable[[Entry], Image.Image | None]) -> str:
    """A picture of the first run of each row; empty if there is none of any."""
    drawn = [(row, draw(row[0])) for row in rows]
    found = [page.figure(title(row), picture) for row, picture in drawn if picture is not None]
    return page.cards(found) if found else ""


def first_views(rows: Rows) -> list[Sequence[Entry]]:
    """The first row of each trained model, where settings of sampling do not matter."""
    return list({row[0].workdir: row for row in reversed(rows)}.values())[::-1]


def samples(rows: Rows) -> str:
    """Grids side by side."""

    def draw(entry: Entry) -> Image.Image:
        shown = entry.samples[:SHOWN] if entry.run.experiment.data.kind == "image" else entry.samples[:2000]
        return show(entry.run.experiment.data, shown)

    return page.section("Samples", "The first of each, unchosen; classes in columns.", cards(rows, draw))


def neighbours(rows: Rows) -> str:
    """Samples and what they may be copies of."""

    def draw(entry: Entry) -> Image.Image:
        data, drawn = entry.run.experiment.data, entry.samples[:NEIGHBOURS]
        train = whole(data, "train")["x"]
        near = train[nearest_training(drawn, train).index[:, 0]]
        return grid(np.concatenate([drawn, near]), levels=data.levels or 256, columns=NEIGHBOURS)

    words = "Samples, and below each the nearest training example."
    return page.section("Nearest neighbours", words, cards(rows, draw))


def latents(rows: Rows) -> str:
    """Interpolations and traversals of what decodes real latents."""

    def drawing(task: str, num: int) -> Callable[[Entry], Image.Image | None]:
        def draw(entry: Entry) -> Image.Image | None:
            if not isinstance(entry.run.experiment.objective, HasDecoder):
                return None
            try:
                return explore(View(entry.run, entry.state, num=num, points=FRAMES), task)[1]
            except UserError:  # latents that are codes
                return None

        return draw

    parts = ""
    for name, words, task, num in (
        ("Between latents", "A row for each pair of images, from one to the other.", "interpolate", PATHS),
        (
            "One latent at a time",
            "A row for each latent, moved from -3 to 3, up to 16 of them.",
            "traverse",
            1,
        ),
    ):
        if shown := cards(first_views(rows), drawing(task, num)):
            parts += page.section(name, words, shown)
    return parts


def paths(rows: Rows) -> str:
    """Denoising, step by step."""

    def draw(entry: Entry) -> Image.Image | None:
        if not isinstance(entry.run.experiment.objective, HasPath):
            return None
        return show_path(entry.run, entry.state, *draw_path(entry.run, entry.state, PATHS, FRAMES, 0))

    shown = cards(rows, draw)
    return page.section("Paths", "States on the way from noise to samples.", shown) if shown else ""
