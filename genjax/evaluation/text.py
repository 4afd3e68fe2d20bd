"""Evaluation of text samples, decoded, against held-out texts."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float64, Integer, Real

from genjax.data import Data, Smiles, Vocabulary
from genjax.data.examples import Subset
from genjax.data.text.decode_text import decode, vocabulary_of
from genjax.data.text.documents import DocumentVocabulary
from genjax.metrics.text.molecules import molecule_report
from genjax.metrics.text.text import Settings, text_report


def scored_bytes(
    data: Data, x: Integer[np.ndarray | jax.Array, "n length"], scored: Real[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Number of UTF-8 bytes that a likelihood covers; the end of a document counts as one byte (a newline).

    Args:
        data: text data.
        x: tokens [n, length].
        scored: number of predicted tokens per row [n]: the first of a document, the last of a window.

    Returns:
        Bytes float64 [n].
    """
    vocabulary, counts = vocabulary_of(data), np.asarray(scored, np.int64)
    if isinstance(vocabulary, Vocabulary) and not vocabulary.symbols:
        return counts.astype(np.float64)  # tokens are bytes
    documents = isinstance(vocabulary, DocumentVocabulary)
    rows = [
        row[:count] if documents else row[len(row) - count :] for row, count in zip(x, counts, strict=True)
    ]
    ends = [documents and bool((row == 0).any()) for row in rows]
    return np.array(
        [len(vocabulary.decode(row).encode()) + end for row, end in zip(rows, ends, strict=True)], float
    )


def text_metrics(
    data: Data, samples: Integer[np.ndarray, "n length"], seed: int, settings: Settings = Settings()
) -> dict[str, Any]:
    """Evaluates text samples against as many texts of the test split.

    Args:
        data: text data.
        samples: tokens [n, length].
        seed: see `text_report`.
        settings: see `text_report`.

    Returns:
        "text" (see `text_report`; empty for fewer than two samples), and for SMILES "molecules" (`molecule_report`).
    """
    texts, held = decode(data, samples), data.load("test")
    some = Subset(held, 2 * min(len(texts), settings.max_texts))
    real = decode(data, some[np.arange(len(some))]["x"])
    found: dict[str, Any] = {"text": {}}
    if min(len(texts), len(real) // 2) > 1:
        found["text"] = text_report(texts, real, seed=seed, settings=settings)
    if isinstance(data.source, Smiles):
        found["molecules"] = molecule_report(
            texts, data.source.documents("train"), data.source.documents("test")
        )
    return found
