"""Decoding of text samples."""

import numpy as np

from genjax.data import Data, Vocabulary
from genjax.data.source import Codec, HasVocabulary, PromptCodec, capability


def vocabulary_of(data: Data) -> Codec:
    """The vocabulary of the source; bytes if it has none."""
    found = capability(data.source, HasVocabulary)
    return found.vocabulary if found else Vocabulary()


def decode(data: Data, samples: np.ndarray) -> list[str]:
    """Token samples [n, length] as strings, without special tokens at their ends."""
    vocabulary = vocabulary_of(data)
    trim = vocabulary.trim if isinstance(vocabulary, PromptCodec) else lambda row: row
    return [vocabulary.decode(trim(row)) for row in samples]
