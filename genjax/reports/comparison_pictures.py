"""Pictures of a comparison: samples, nearest neighbours, latents and sampling paths of the first run of each row."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from genjax.core.errors import UserError
from genjax.core.objective import HasDecoder, HasPath
from genjax.evaluation.comparison import Entry, title
from genjax.evaluation.distances import load_split
from genjax.metrics.distances.memorization import nearest_training
from genjax.reports import page
from genjax.reports.kinds import drawing_of
from genjax.reports.latents import View, explore
from genjax.reports.pictures import grid
from genjax.reports.sampling_paths import draw_path, show, show_path

NEIGHBOURS, PATHS, FRAMES = 10, 6, 9
Rows = Sequence[Sequence[Entry]]


def cards(rows: Rows, draw: Callable[[Entry], Image.Image | None]) -> str:
    """A card with a picture of the first run of each row; "" if no run has one."""
    drawn = [(row, draw(row[0])) for row in rows]
    found = [page.figure(title(row), picture) for row, picture in drawn if picture is not None]
    return page.cards(found) if found else ""


def first_views(rows: Rows) -> list[Sequence[Entry]]:
    """The first row of each trained model, for pictures that do not depend on sampling settings."""
    return list({row[0].workdir: row for row in reversed(rows)}.values())[::-1]


def samples(rows: Rows) -> str:
    """Grids of samples."""

    def draw(entry: Entry) -> Image.Image:
        data = entry.run.experiment.data
        return show(data, entry.samples[: drawing_of(data).shown])

    return page.section(
        "Samples", "The first samples of each run, not selected; columns are classes.", cards(rows, draw)
    )


def neighbours(rows: Rows) -> str:
    """Samples above their nearest training examples."""

    def draw(entry: Entry) -> Image.Image:
        data, drawn = entry.run.experiment.data, entry.samples[:NEIGHBOURS]
        train = load_split(data, "train")["x"]
        near = train[nearest_training(drawn, train).index[:, 0]]
        return grid(np.concatenate([drawn, near]), levels=data.levels or 256, columns=NEIGHBOURS)

    words = "Each sample above its nearest training example."
    return page.section("Nearest neighbours", words, cards(rows, draw))


def latents(rows: Rows) -> str:
    """Interpolations and traversals of models that decode continuous latents."""

    def drawing(task: str, num: int) -> Callable[[Entry], Image.Image | None]:
        def draw(entry: Entry) -> Image.Image | None:
            if not isinstance(entry.run.experiment.objective, HasDecoder):
                return None
            try:
                return explore(View(entry.run, entry.state, num=num, points=FRAMES), task)[1]
            except UserError:  # discrete latents
                return None

        return draw

    parts = ""
    for name, words, task, num in (
        ("Latent interpolation", "One row for each pair of images.", "interpolate", PATHS),
        (
            "Latent traversal",
            "One row for each latent, varied from -3 to 3; at most 16 rows.",
            "traverse",
            1,
        ),
    ):
        if shown := cards(first_views(rows), drawing(task, num)):
            parts += page.section(name, words, shown)
    return parts


def paths(rows: Rows) -> str:
    """Intermediate states of samplers."""

    def draw(entry: Entry) -> Image.Image | None:
        if not isinstance(entry.run.experiment.objective, HasPath):
            return None
        try:
            path = draw_path(entry.run, entry.state, PATHS, FRAMES, 0)
        except UserError:  # a model of latents that draws without a path
            return None
        return show_path(entry.run, entry.state, *path)

    shown = cards(rows, draw)
    return (
        page.section("Sampling paths", "Intermediate states from noise to samples.", shown) if shown else ""
    )
