"""Sample files: arrays and a picture for every kind of data, and what `kinds` writes beside them."""

from pathlib import Path

import jax
import numpy as np
from PIL import Image

from genjax.core.errors import UserError
from genjax.data import Data
from genjax.reports.kinds import drawing_of


def write_arrays(out: Path, image: Image.Image, **arrays: np.ndarray) -> None:
    """Writes arrays to an npz and a picture beside it; process 0 alone writes.

    Args:
        out: path of the npz; the picture has the suffix .png.
        image: the picture.
        **arrays: contents of the npz by name.

    Raises:
        UserError: a file cannot be written, or an array has a NaN or infinity.
    """
    if jax.process_index():
        return
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise UserError(f"{out} is not written: {name} has values that are NaN or infinite")
    try:
        np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
        image.save(out.with_suffix(".png"))
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None


def export(stem: Path, data: Data, samples: np.ndarray) -> str:
    """Writes sounds as WAV files, texts as a text file, other kinds as they say; process 0 alone writes.

    Args:
        stem: path of the files without suffix.
        data: source of the kind, sampling rate and decoding.
        samples: [n, *shape] in data units.

    Returns:
        A message with the texts or the paths; "" if nothing was written.

    Raises:
        UserError: a file cannot be written.
    """
    if jax.process_index():
        return ""
    try:
        return drawing_of(data).write(stem, data, samples)
    except OSError as error:
        raise UserError(f"cannot write {stem}: {error.strerror}") from None
