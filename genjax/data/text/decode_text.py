"""Decoding of text samples."""

import numpy as np

from genjax.data import Data, Vocabulary
from genjax.data.source import Codec, HasVocabulary, capability


def vocabulary_of(data: Data) -> Codec:
    """The vocabulary of the source; bytes if it has none."""
    found = capability(data.source, HasVocabulary)
    return found.vocabulary if found else Vocabulary()


def decode(data: Data, samples: np.ndarray) -> list[str]:
    """Token samples [n, length] as strings."""
    vocabulary = vocabulary_of(data)
    return [vocabulary.decode(row) for row in samples]
