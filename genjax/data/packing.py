"""Packing: several documents in one row of tokens, without attention between them.

A row has `segment` [n]: 1, 2, ... for its documents, in order, and 0 for padding; `mask` is true inside documents. A
document has the same probability in a packed row as alone: attention stays within a segment, positions restart in each,
and the loss averages over the mask (see `objectives.autoregressive`).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Integer

from genjax.core.errors import UserError
from genjax.data.examples import Table


def first_fit(sizes: Sequence[int], length: int) -> Int[np.ndarray, " n"]:
    """First-fit bin packing: places documents in order, each into the first row with enough space.

    Args:
        sizes: tokens of each document, 1 ... length.
        length: tokens of a row.

    Returns:
        The row of each document; first fit uses at most 1.7 times the minimal number of rows (Johnson et al. 1974).

    Raises:
        UserError: a document is empty or longer than a row.
    """
    if sizes and not 1 <= min(sizes) <= max(sizes) <= length:
        raise UserError(f"documents of {min(sizes)} to {max(sizes)} tokens do not fit rows of {length}")
    smallest = min(sizes, default=1)
    rows, free = np.zeros(0, np.int64), np.zeros(0, np.int64)  # rows with space for the smallest document
    chosen, count = np.zeros(len(sizes), np.int64), 0
    for number, size in enumerate(sizes):
        fits = free >= size
        place = int(fits.argmax()) if fits.any() else len(free)
        if place == len(free):
            rows, free, count = np.append(rows, count), np.append(free, length), count + 1
        chosen[number] = rows[place]
        free[place] -= size
        if free[place] < smallest:
            rows, free = np.delete(rows, place), np.delete(free, place)
    return chosen


def pack(documents: Sequence[Integer[np.ndarray, " _"]], length: int) -> Table:
    """Packs documents into rows by `first_fit`; deterministic.

    Args:
        documents: tokens of each, end token included.
        length: tokens of a row.

    Returns:
        "x" int32, "segment" int32 and "mask" bool, each [rows, length]; zeros are padding.

    Raises:
        UserError: as `first_fit`.
    """
    return fill_rows(documents, first_fit([len(document) for document in documents], length), length)


def fill_rows(
    documents: Sequence[Integer[np.ndarray, " _"]], rows: Int[np.ndarray, " n"], length: int
) -> Table:
    """Writes each document into its row, after the documents already in it.

    Args:
        documents: tokens of each, end token included.
        rows: the row of each document; no row may overflow.
        length: tokens of a row.

    Returns:
        As `pack`.
    """
    count = int(rows.max(initial=-1)) + 1
    x, segment = np.zeros((count, length), np.int32), np.zeros((count, length), np.int32)
    filled, number = np.zeros(count, np.int64), np.zeros(count, np.int32)
    for document, row in zip(documents, rows, strict=True):
        place = slice(filled[row], filled[row] + len(document))
        number[row] += 1
        x[row, place], segment[row, place] = document, number[row]
        filled[row] += len(document)
    return Table({"x": x, "segment": segment, "mask": segment > 0})
