"""Importance-sampled times by the history of each time's loss (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 18).

    loss = (1 / T) sum_t L_t = E_{t ~ p} [ L_t / (T p_t) ],        p_t proportional to sqrt(E[L_t^2]),

the p of least variance. E[L_t^2] is the mean of the last 10 squares seen at t; until every t has 10, p is
uniform. A share of 1 / 1000 stays uniform for good, so that no time is forgotten.
"""

import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.types import Array, Key, PyTree, record
from genjax.diffusion.times import spread

LENGTH = 10
FLOOR = 1e-3

Index = Int[Array, " b"]


@record
class History:
    """What each of T times has seen.

    Attributes:
        squares: float32 [T, 10], the last squared losses.
        counts: float32 [T], how many there have been; a float, so that replicas can be averaged.
    """

    squares: PyTree
    counts: PyTree


def forgotten(steps: int) -> History:
    """The history of nothing, for T = `steps`."""
    return History(jnp.zeros((steps, LENGTH)), jnp.zeros(steps))


def probabilities(history: History) -> Float[Array, " T"]:
    """p_t, summing to 1."""
    size = jnp.sqrt(jnp.mean(history.squares, axis=1))
    size = jnp.where(jnp.all(history.counts >= LENGTH) & (jnp.sum(size) > 0), size, jnp.ones_like(size))
    return (1.0 - FLOOR) * size / jnp.sum(size) + FLOOR / len(size)


def draw(p: Float[Array, " T"], key: Key, num: int) -> tuple[Index, Float[Array, " b"]]:
    """Times and their weights.

    Args:
        p: probabilities of the T times.
        key: typed PRNG key.
        num: how many.

    Returns:
        (0-based indices [b], evenly spread; weights 1 / (T p_t) [b]).
    """
    found = jnp.searchsorted(jnp.cumsum(p), spread(key, num), side="right")
    index = jnp.minimum(found, len(p) - 1).astype(jnp.int32)
    return index, 1.0 / (len(p) * p[index])


def remember(history: History, index: Index, loss: Float[Array, " b"]) -> History:
    """The history after a batch; of the losses at one time the later in the batch are the newer.

    Args:
        history: so far.
        index: of the times, 0-based.
        loss: at these times, unweighted.

    Returns:
        The new history; no gradient flows from it.
    """
    order = jnp.argsort(index, stable=True)
    t, square = index[order], loss[order].astype(jnp.float32) ** 2
    first = jnp.searchsorted(t, t, side="left")
    last = jnp.searchsorted(t, t, side="right")
    place = jnp.arange(len(t))
    slot = (history.counts[t].astype(jnp.int32) + place - first) % LENGTH
    slot = jnp.where(place >= last - LENGTH, slot, LENGTH)  # out of bounds: older than what is kept
    return History(
        history.squares.at[t, slot].set(square, mode="drop"),
        history.counts.at[index].add(1.0),
    )
