"""Several documents in one row of tokens, none of which sees another.

A row has `segment` [n]: 1, 2, ... for its documents, in order, and 0 where nothing follows; `mask` is true inside them.
A model gives the i-th document of a row the probability that it would have alone: attention stays inside a segment,
positions begin again in each, and the loss counts what the mask does (see `objectives.autoregressive`).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Integer

from genjax.core.errors import UserError
from genjax.data.examples import Table


def first_fit(sizes: Sequence[int], length: int) -> Int[np.ndarray, " n"]:
    """Packs documents in their order, each into the first row that has room for it.

    Args:
        sizes: tokens of each document, 1 ... length.
        length: tokens of a row.

    Returns:
        The row of each document; first fit uses at most 1.7 times the rows that are needed (Johnson et al. 1974).

    Raises:
        UserError: a document is empty or longer than a row.
    """
    if sizes and not 1 <= min(sizes) <= max(sizes) <= length:
        raise UserError(f"documents of {min(sizes)} to {max(sizes)} tokens do not fit rows of {length}")
    least = min(sizes, default=1)
    rows, room = np.zeros(0, np.int64), np.zeros(0, np.int64)  # those with room for the least document
    chosen, count = np.zeros(len(sizes), np.int64), 0
    for number, size in enumerate(sizes):
        fits = room >= size
        place = int(fits.argmax()) if fits.any() else len(room)
        if place == len(room):
            rows, room, count = np.append(rows, count), np.append(room, length), count + 1
        chosen[number] = rows[place]
        room[place] -= size
        if room[place] < least:
            rows, room = np.delete(rows, place), np.delete(room, place)
    return chosen


def pack(documents: Sequence[Integer[np.ndarray, " _"]], length: int) -> Table:
    """Rows of as many documents as `first_fit` puts there, a function of its arguments alone.

    Args:
        documents: tokens of each, their end included.
        length: tokens of a row.

    Returns:
        "x" int32, "segment" int32 and "mask" bool, each [rows, length]; zeros where nothing is.

    Raises:
        UserError: as `first_fit`.
    """
    return lay(documents, first_fit([len(document) for document in documents], length), length)


def lay(documents: Sequence[Integer[np.ndarray, " _"]], rows: Int[np.ndarray, " n"], length: int) -> Table:
    """Puts each document into its row, after those that are there already; see `pack`."""
    count = int(rows.max(initial=-1)) + 1
    x, segment = np.zeros((count, length), np.int32), np.zeros((count, length), np.int32)
    filled, number = np.zeros(count, np.int64), np.zeros(count, np.int32)
    for document, row in zip(documents, rows, strict=True):
        place = slice(filled[row], filled[row] + len(document))
        number[row] += 1
        x[row, place], segment[row, place] = document, number[row]
        filled[row] += len(document)
    return Table({"x": x, "segment": segment, "mask": segment > 0})
