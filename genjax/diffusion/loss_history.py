"""Importance sampling of training times from a history of losses (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 18).

    loss = (1 / T) sum_t L_t = E_{t ~ p} [ L_t / (T p_t) ],        p_t proportional to sqrt(E[L_t^2]),

the p of least variance. E[L_t^2] is estimated by the mean of the last 10 squared losses at t; until every t has 10,
p is uniform. p is mixed with the uniform distribution at weight 1 / 1000, so that every p_t stays positive.
"""

import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.types import Array, Key, PyTree, record
from genjax.diffusion.times import stratified

LENGTH = 10
FLOOR = 1e-3

Index = Int[Array, " b"]


@record
class History:
    """The last losses at each of T times.

    Attributes:
        squares: float32 [T, 10], the last squared losses.
        counts: float32 [T], number of losses recorded; a float, so that replicas can be averaged.
    """

    squares: PyTree
    counts: PyTree


def empty(steps: int) -> History:
    """An empty history of T = `steps` times."""
    return History(jnp.zeros((steps, LENGTH)), jnp.zeros(steps))


def probabilities(history: History) -> Float[Array, " T"]:
    """p_t, summing to 1."""
    size = jnp.sqrt(jnp.mean(history.squares, axis=1))
    size = jnp.where(jnp.all(history.counts >= LENGTH) & (jnp.sum(size) > 0), size, jnp.ones_like(size))
    return (1.0 - FLOOR) * size / jnp.sum(size) + FLOOR / len(size)


def draw(p: Float[Array, " T"], key: Key, num: int) -> tuple[Index, Float[Array, " b"]]:
    """Samples times by stratified inversion of p.

    Args:
        p: probabilities of the T times.
        key: typed PRNG key.
        num: number of times.

    Returns:
        (0-based indices [b], int32; importance weights 1 / (T p_t) [b]).
    """
    found = jnp.searchsorted(jnp.cumsum(p), stratified(key, num), side="right")
    index = jnp.minimum(found, len(p) - 1).astype(jnp.int32)
    return index, 1.0 / (len(p) * p[index])


def update(history: History, index: Index, loss: Float[Array, " b"]) -> History:
    """Records the losses of a batch; losses at the same time are recorded in batch order.

    Args:
        history: the previous history.
        index: 0-based indices of the times [b].
        loss: unweighted losses at these times [b].

    Returns:
        The new history; no gradient flows from it.
    """
    order = jnp.argsort(index, stable=True)
    t, square = index[order], loss[order].astype(jnp.float32) ** 2
    first = jnp.searchsorted(t, t, side="left")
    last = jnp.searchsorted(t, t, side="right")
    place = jnp.arange(len(t))
    slot = (history.counts[t].astype(jnp.int32) + place - first) % LENGTH
    slot = jnp.where(place >= last - LENGTH, slot, LENGTH)  # out of bounds: dropped, older than the last 10
    return History(
        history.squares.at[t, slot].set(square, mode="drop"),
        history.counts.at[index].add(1.0),
    )
