"""Samples of text as strings."""

import numpy as np

from genjax.data import Data, Vocabulary


def decode(data: Data, samples: np.ndarray) -> list[str]:
    """Samples of text as text."""
    vocabulary = getattr(data.source, "vocabulary", Vocabulary())
    return [vocabulary.decode(row) for row in samples]
