"""How samples of a kind of data are drawn and written: a record for each kind.

A kind of one's own satisfies `Draws` and `evaluation.kinds.Evaluates`, see there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray
from PIL import Image

from genjax.core.errors import UserError
from genjax.data import Data
from genjax.data.source import innermost
from genjax.data.text.decode_text import decode
from genjax.evaluation.distances import load_split
from genjax.reports.figures import tiles
from genjax.reports.pictures import grid, lines, scatter, waves
from genjax.reports.planes import plane_path
from genjax.reports.sounds import write_wav
from genjax.training.loop import Run
from genjax.training.step import TrainState


@runtime_checkable
class Draws(Protocol):
    """How samples of a kind of data are drawn and written."""

    @property
    def shown(self) -> int:
        """Number of samples in one picture of a page."""
        ...

    def draw(self, data: Data, samples: np.ndarray, row: bool = False) -> Image.Image:
        """Pictures samples.

        Args:
            data: the data.
            samples: [n, *shape] in the data's own units.
            row: one row of a few of them, where the kind has rows.

        Returns:
            An RGB picture.
        """
        ...

    def write(self, stem: Path, data: Data, samples: np.ndarray) -> str:
        """Writes files beside the npz and the picture, such as sounds.

        Args:
            stem: path of the files without suffix.
            data: the data.
            samples: [n, *shape] in the data's own units.

        Returns:
            A message with the paths; "" if nothing was written.
        """
        ...


@runtime_checkable
class DrawsPaths(Protocol):
    """A kind with pictures of sampling paths; for the others, each state is drawn."""

    def draw_path(
        self, run: Run, state: TrainState, times: Float[ndarray, " k"], states: Shaped[ndarray, "k n ..."]
    ) -> Image.Image:
        """As `sampling_paths.show_path`."""
        ...


@dataclass(frozen=True)
class Images:
    """A grid with one column for each class; a strip of states for each path. See `Draws`."""

    shown: int = 50

    def draw(self, data: Data, samples: np.ndarray, row: bool = False) -> Image.Image:
        """See `Draws.draw`; a row has one image of each class, and at least ten."""
        columns = max(data.classes, 10) if row else data.classes
        return grid(samples[: columns if row else None], levels=data.levels or 256, columns=columns)

    def write(self, stem: Path, data: Data, samples: np.ndarray) -> str:
        """Nothing."""
        return ""

    def draw_path(
        self, run: Run, state: TrainState, times: Float[ndarray, " k"], states: Shaped[ndarray, "k n ..."]
    ) -> Image.Image:
        """See `DrawsPaths.draw_path`."""
        strips = states.swapaxes(0, 1).reshape(-1, *states.shape[2:])
        image = grid(strips, levels=run.experiment.data.levels or 256, columns=len(times))
        return tiles([("t = " + ", ".join(f"{t:.3g}" for t in times), image)])


@dataclass(frozen=True)
class Points:
    """Scatter plots over test data. See `Draws`."""

    shown: int = 2000

    def draw(self, data: Data, samples: np.ndarray, row: bool = False) -> Image.Image:
        """See `Draws.draw`."""
        samples = samples[:1000] if row else samples
        return scatter(samples, reference=load_split(data, "test")["x"][:2000])

    def write(self, stem: Path, data: Data, samples: np.ndarray) -> str:
        """Nothing."""
        return ""

    def draw_path(
        self, run: Run, state: TrainState, times: Float[ndarray, " k"], states: Shaped[ndarray, "k n ..."]
    ) -> Image.Image:
        """See `DrawsPaths.draw_path`; points in the plane with the model's velocities and density."""
        if run.experiment.data.shape == (2,):
            return plane_path(run, state, times, states)
        return tiles([(f"t = {t:.3g}", scatter(frame)) for t, frame in zip(times, states, strict=True)])


@dataclass(frozen=True)
class Texts:
    """Lines of text, in a picture and in a text file. See `Draws`."""

    shown: int = 2000

    def draw(self, data: Data, samples: np.ndarray, row: bool = False) -> Image.Image:
        """See `Draws.draw`."""
        return lines(decode(data, samples[:1000] if row else samples))

    def write(self, stem: Path, data: Data, samples: np.ndarray) -> str:
        """Writes STEM.txt; the message also contains the texts if each has one line."""
        texts, path = decode(data, samples), stem.with_name(f"{stem.name}.txt")
        short = not any("\n" in text for text in texts)
        path.write_text(("\n" if short else "\n---\n").join(texts) + "\n")
        return "\n".join([*texts, f"wrote {path}"] if short else [f"wrote {path}"])


@dataclass(frozen=True)
class Sounds:
    """Waveforms beside their spectrograms, and WAV files. See `Draws`."""

    shown: int = 10

    def draw(self, data: Data, samples: np.ndarray, row: bool = False) -> Image.Image:
        """See `Draws.draw`."""
        return waves(samples, rate=data.rate, limit=self.shown)

    def write(self, stem: Path, data: Data, samples: np.ndarray) -> str:
        """Writes STEM_wav/000.wav, 001.wav, ...; replaces the WAV files there."""
        folder, rate = stem.with_name(f"{stem.name}_wav"), data.rate
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.wav"):
            old.unlink()
        for number, sound in enumerate(samples):
            write_wav(folder / f"{number:03}.wav", sound, rate)
        return f"wrote {folder}/*.wav: {len(samples)} sounds of {rate} samples a second"


KINDS: Mapping[str, Draws] = {"image": Images(), "points": Points(), "text": Texts(), "audio": Sounds()}


def drawing_of(data: Data) -> Draws:
    """The record of the data's kind: its own, or that of `KINDS`.

    Raises:
        UserError: the kind is neither.
    """
    kind = innermost(data.source).kind
    if isinstance(kind, Draws):
        return kind
    if data.kind in KINDS:
        return KINDS[data.kind]
    raise UserError(f"the record of the kind '{data.kind}' lacks shown, draw or write")
