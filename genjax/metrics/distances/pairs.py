"""Pairwise distances between rows of two sets, in blocks: O(chunk^2) memory beside the rows.

|x - y|^2 = |x|^2 - 2 <x, y> + |y|^2 computes a block by one matrix product, in 2048 dimensions several times as fast as
differences, but accurate only to a few roundings of |x|^2 + |y|^2. It therefore only selects candidates; comparisons
within that error use the difference itself, so that equal rows are at distance exactly zero and balls are closed.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float64, Int, Shaped
from numpy import ndarray

from genjax.core.errors import UserError


def squared_distances(x: Float64[ndarray, "m d"], y: Float64[ndarray, "n d"]) -> Float64[ndarray, "m n"]:
    """|x_i - y_j|^2 by the expanded square, clipped at zero."""
    centre = y.mean(axis=0, keepdims=True)  # less cancellation
    a, b = x - centre, y - centre
    return np.maximum((a * a).sum(axis=1)[:, None] - 2.0 * (a @ b.T) + (b * b).sum(axis=1)[None], 0.0)


def blocks(count: int, chunk: int) -> Iterator[slice]:
    """Slices of at most `chunk` rows that partition `count` rows."""
    return (slice(start, min(start + chunk, count)) for start in range(0, count, chunk))


def check_finite(x: Shaped[ndarray, "n ..."], name: str) -> None:
    """Raises on NaN or infinity; in blocks, to avoid a mask of the whole array.

    Args:
        x: rows, any real dtype.
        name: of the metric, prefix of the error message.

    Raises:
        UserError: a row holds NaN or infinity.
    """
    broken = sum(
        int((~np.isfinite(x[rows])).any(axis=tuple(range(1, x.ndim))).sum()) for rows in blocks(len(x), 4096)
    )
    if broken:
        raise UserError(f"{name}: {broken} of {len(x)} examples hold values that are NaN or infinite")


def check_pair(
    x: Shaped[ndarray, "m ..."],
    y: Shaped[ndarray, "n ..."],
    name: str,
    min_rows: tuple[int, int] = (1, 1),
) -> None:
    """Raises unless two sets can be compared.

    Args:
        x: rows [m, ...], any real dtype.
        y: rows [n, ...], any real dtype.
        name: of the metric, prefix of the error message.
        min_rows: minimum number of rows of x and of y.

    Raises:
        UserError: shapes of rows differ, too few rows, or NaN or infinity.
    """
    if x.shape[1:] != y.shape[1:]:
        raise UserError(f"{name} needs two sets of equal example shape, got {x.shape} and {y.shape}")
    if len(x) < min_rows[0] or len(y) < min_rows[1]:
        raise UserError(
            f"{name} needs at least {min_rows[0]} and {min_rows[1]} examples, got {len(x)} and {len(y)}"
        )
    check_finite(x, name)
    check_finite(y, name)


def inside(
    x: Shaped[ndarray, "m d"],
    y: Shaped[ndarray, "n d"],
    radii: Float64[ndarray, "m 1"] | Float64[ndarray, "1 n"],
    centre: Float64[ndarray, "1 d"],
) -> Bool[ndarray, "m n"]:
    """Whether |x_i - y_j| <= radius, for balls around the x or around the y; exact at the boundary.

    Args:
        x: rows [m, d], any real dtype.
        y: rows [n, d], any real dtype.
        radii: of each row of x [m, 1], or of each row of y [1, n].
        centre: any point [1, d]; the nearer to the rows, the fewer pairs need the exact comparison.

    Returns:
        Bool [m, n].
    """
    a, b = x.astype(np.float64) - centre, y.astype(np.float64) - centre
    scale = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None]
    gap = scale - 2.0 * (a @ b.T) - radii**2
    found = gap <= 0.0
    rounding = np.finfo(np.float64).eps * (x.shape[1] + 8)  # of the scale
    rows, columns = np.nonzero(np.abs(gap) <= rounding * (scale + radii**2))
    limits = np.broadcast_to(radii, gap.shape)[rows, columns]
    for part in blocks(len(rows), len(x) + len(y)):
        apart = x[rows[part]].astype(np.float64) - y[columns[part]].astype(np.float64)
        found[rows[part], columns[part]] = np.linalg.norm(apart, axis=1) <= limits[part]
    return found


def nearest(
    queries: Shaped[ndarray, "m d"],
    points: Shaped[ndarray, "n d"],
    k: int,
    itself: Int[ndarray, " m"] | None = None,
    chunk: int = 2048,
) -> tuple[Float64[ndarray, "m k"], Int[ndarray, "m k"]]:
    """The k nearest points of each query, nearest first.

    Candidates come from |q|^2 - 2 <q, p> + |p|^2 by matrix products, in blocks of chunk x chunk; their distances are
    then recomputed from differences, so that a copy is at distance exactly zero.

    Args:
        queries: [m, d], any real dtype.
        points: [n, d], any real dtype.
        k: 1 <= k <= number of points (minus one with `itself`).
        itself: index [m] of each query among the points, excluded from its neighbours.
        chunk: rows per block.

    Returns:
        Distances float64 and indices, both [m, k].
    """
    centre = points.mean(axis=0, dtype=np.float64)  # less cancellation in the expanded square
    distances, indices = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
    for rows in blocks(len(queries), chunk):
        own = None if itself is None else itself[rows]
        raw = queries[rows].astype(np.float64)
        found = _candidates(raw - centre, points, centre, k, own, chunk)
        exact = np.stack(
            [np.linalg.norm(points[column].astype(np.float64) - raw, axis=1) for column in found.T], 1
        )
        order = np.argsort(exact, axis=1, kind="stable")
        distances[rows] = np.take_along_axis(exact, order, 1)
        indices[rows] = np.take_along_axis(found, order, 1)
    return distances, indices


def _candidates(
    queries: Float64[ndarray, "m d"],
    points: Shaped[ndarray, "n d"],
    centre: Float64[ndarray, " d"],
    k: int,
    itself: Int[ndarray, " m"] | None,
    chunk: int,
) -> Int[ndarray, "m k"]:
    """Indices of the k nearest points of centred queries, unsorted: a running top k over blocks of points."""
    best, index = np.empty((len(queries), 0)), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(points), chunk):
        block = points[start : start + chunk].astype(np.float64) - centre
        scores = (block * block).sum(axis=1)[None] - 2.0 * (
            queries @ block.T
        )  # |q|^2 does not change the order
        if itself is not None:
            here = (itself >= start) & (itself < start + len(block))
            scores[here, itself[here] - start] = np.inf
        numbers = np.broadcast_to(np.arange(start, start + len(block)), scores.shape)
        best, index = np.concatenate([best, scores], 1), np.concatenate([index, numbers], 1)
        if best.shape[1] > k:
            keep = np.argpartition(best, k - 1, axis=1)[:, :k]
            best, index = np.take_along_axis(best, keep, 1), np.take_along_axis(index, keep, 1)
    return index
