"""Sample files: arrays and a picture for every kind of data; WAV files for audio; text files for text."""

from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from genjax.core.errors import UserError
from genjax.data import Data
from genjax.data.text.decode_text import decode
from genjax.reports.sounds import write_wav


def write_arrays(out: Path, image: Image.Image, **arrays: np.ndarray) -> None:
    """Writes arrays to an npz and a picture beside it; process 0 alone writes.

    Args:
        out: path of the npz; the picture has the suffix .png.
        image: the picture.
        **arrays: contents of the npz by name.

    Raises:
        UserError: a file cannot be written.
    """
    if jax.process_index():
        return
    try:
        np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
        image.save(out.with_suffix(".png"))
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None


def _sounds(stem: Path, data: Data, samples: np.ndarray) -> str:
    """Writes STEM_wav/000.wav, 001.wav, ...; replaces the WAV files there."""
    folder, rate = stem.with_name(f"{stem.name}_wav"), data.rate
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.wav"):
        old.unlink()
    for number, sound in enumerate(samples):
        write_wav(folder / f"{number:03}.wav", sound, rate)
    return f"wrote {folder}/*.wav: {len(samples)} sounds of {rate} samples a second"


def _texts(stem: Path, data: Data, samples: np.ndarray) -> str:
    """Writes STEM.txt; the message also contains the texts if each has one line."""
    texts, path = decode(data, samples), stem.with_name(f"{stem.name}.txt")
    short = not any("\n" in text for text in texts)
    path.write_text(("\n" if short else "\n---\n").join(texts) + "\n")
    return "\n".join([*texts, f"wrote {path}"] if short else [f"wrote {path}"])


KINDS: Mapping[str, Callable[[Path, Data, np.ndarray], str]] = {"audio": _sounds, "text": _texts}


def export(stem: Path, data: Data, samples: np.ndarray) -> str:
    """Writes audio samples as WAV files and text samples as a text file; process 0 alone writes.

    Args:
        stem: path of the files without suffix.
        data: source of the kind, sampling rate and decoding.
        samples: [n, *shape] in data units.

    Returns:
        A message with the texts or the paths; "" if nothing was written.

    Raises:
        UserError: a file cannot be written.
    """
    if jax.process_index() or data.kind not in KINDS:
        return ""
    try:
        return KINDS[data.kind](stem, data, samples)
    except OSError as error:
        raise UserError(f"cannot write {stem}: {error.strerror}") from None
