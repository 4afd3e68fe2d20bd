"""Decoding of text samples."""

import numpy as np

from genjax.data import Data, Vocabulary


def decode(data: Data, samples: np.ndarray) -> list[str]:
    """Token samples [n, length] as strings, by the vocabulary of the source (bytes if it has none)."""
    vocabulary = getattr(data.source, "vocabulary", Vocabulary())
    return [vocabulary.decode(row) for row in samples]
