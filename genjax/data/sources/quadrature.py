"""Quadrature for the toy densities: along a curve, of Gaussian mixtures, and of p log p over the plane."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Points = Float[np.ndarray, "b 2"]
Values = Float[np.ndarray, " b"]


def quadrature(end: float, panel: float) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Composite Gauss-Legendre rule on [0, end], with 16 nodes on each panel of length at most `panel`.

    Returns:
        (nodes, weights), the weights summing to `end`.
    """
    nodes, weights = np.polynomial.legendre.leggauss(16)
    count = int(np.ceil(end / panel))
    width = end / count
    starts = width * np.arange(count)[:, None]
    return (starts + width * (nodes[None] + 1) / 2).ravel(), np.tile(width * weights / 2, count)


def mixture_log_density(
    x: Points, centres: Float[np.ndarray, "k 2"], weights: Float[np.ndarray, " k"], std: float
) -> Values:
    """log sum_k w_k N(x; c_k, std^2 I) in float64, computed in chunks of bounded memory.

    Args:
        x: points.
        centres: c_k.
        weights: w_k, summing to 1.
        std: standard deviation of each component.

    Returns:
        Log-densities in nats.
    """
    size = max(1, 2**21 // len(centres))
    out = np.empty(len(x))
    for start in range(0, len(x), size):
        chunk = x[start : start + size].astype(np.float64)
        exponent = (chunk @ centres.T - np.sum(centres**2, axis=1) / 2) / std**2
        largest = exponent.max(axis=1)
        total = np.exp(exponent - largest[:, None]) @ weights
        out[start : start + size] = np.log(total) + largest - np.sum(chunk**2, axis=1) / (2 * std**2)
    return out - np.log(2 * np.pi * std**2)


def grid_entropy(
    log_density: Callable[[Points], Values], centres: Float[np.ndarray, "k 2"], std: float
) -> float:
    """Entropy of a Gaussian mixture by the trapezoid rule, on the grid points within 9 std of a centre.

    The integrand is analytic and decays like a Gaussian, so the rule converges faster than any power of its spacing,
    std / 2; the mass beyond 9 std is below 1e-15.

    Args:
        log_density: of the mixture, in nats.
        centres: of its components.
        std: standard deviation of each component.

    Returns:
        The entropy in nats.
    """
    spacing = std / 2
    reach = np.arange(-18, 19)
    window = reach[:, None] + 1j * reach[None]  # points as complex numbers: `unique` sorts them fast
    near = np.unique(np.round(centres[:, 0] / spacing) + 1j * np.round(centres[:, 1] / spacing))
    cells = np.unique(near[:, None] + window.reshape(1, -1))
    points = np.stack([cells.real, cells.imag], axis=-1) * spacing
    log_p = log_density(points)
    return float(-np.sum(np.exp(log_p) * log_p) * spacing**2)
