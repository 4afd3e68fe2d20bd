"""What samples of text are judged by: held-out texts of the data, in the words that people read."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float64, Integer, Real

from genjax.data import Data, Smiles, Vocabulary
from genjax.data.decode_text import decode
from genjax.data.examples import Some
from genjax.data.text.documents import Endings
from genjax.metrics.text.molecules import molecule_report
from genjax.metrics.text.text import Settings, text_report


def scored_bytes(
    data: Data, x: Integer[np.ndarray | jax.Array, "n length"], scored: Real[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """UTF-8 bytes of what a likelihood is of; the end of a document is one byte, a line's end.

    Args:
        data: of text.
        x: tokens.
        scored: how many of each row are predicted: of documents the first, of windows the last.
    """
    vocabulary, counts = getattr(data.source, "vocabulary", Vocabulary()), np.asarray(scored, np.int64)
    if isinstance(vocabulary, Vocabulary) and not vocabulary.symbols:
        return counts.astype(np.float64)  # tokens are bytes
    documents = isinstance(vocabulary, Endings)
    rows = [
        row[:count] if documents else row[len(row) - count :] for row, count in zip(x, counts, strict=True)
    ]
    ends = [documents and bool((row == 0).any()) for row in rows]
    return np.array(
        [len(vocabulary.decode(row).encode()) + end for row, end in zip(rows, ends, strict=True)], float
    )


def text_numbers(
    data: Data, samples: Integer[np.ndarray, "n length"], seed: int, settings: Settings = Settings()
) -> dict[str, Any]:
    """Judges samples of text beside as many texts of the test split.

    Args:
        data: of text.
        samples: tokens.
        seed: see `text_report`.
        settings: see `text_report`.

    Returns:
        "text" (see `text_report`; empty of fewer than two samples), and "molecules" of SMILES (see `molecule_report`).
    """
    texts, held = decode(data, samples), data.load("test")
    some = Some(held, 2 * min(len(texts), settings.most))
    real = decode(data, some[np.arange(len(some))]["x"])
    found: dict[str, Any] = {"text": {}}
    if min(len(texts), len(real) // 2) > 1:
        found["text"] = text_report(texts, real, seed=seed, settings=settings)
    if isinstance(data.source, Smiles):
        found["molecules"] = molecule_report(
            texts, data.source.documents("train"), data.source.documents("test")
        )
    return found
