"""Walking: the outputs of a causal network place by place, from what it remembers, instead of all at once.

A network is causal if its output at a place depends on its inputs at that place and earlier ones only, in the order in
which the places of the grid are flattened. A network that can be walked has the method

    walker(params, grid, cond, *, out, ...) -> Walker,

and `naive` makes a walker of any causal network by running it on all it has seen, again for each place.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Shaped

from genjax.core.types import Array, PyTree, record

Inputs = Int[Array, "b k c"]


class Walker(NamedTuple):
    """A causal network with its parameters and condition, ready to be walked.

    Attributes:
        begin: (rows) -> what is remembered before the first place. A pytree with `place` [rows] int32; the leading axis
            of each array is the rows', or divides into them (see `reorder`).
        walk: (memory, x [b, k, c], count [b], last) -> (outputs, memory): takes the first `count[b]` of k inputs of row
            b, which belong to the places after those that it has walked. `last` (static) gives the outputs at the last
            of them, [b, 1, *out], else at all, [b, k, *out]. Outputs where a row does not walk mean nothing.
        rewind: (memory, drop [b]) -> memory without the last `drop[b]` places of each row; None if it cannot forget.
    """

    begin: Callable[[int], Any]
    walk: Callable[[Any, Inputs, Int[Array, " b"], bool], tuple[Float[Array, "b m *out"], Any]]
    rewind: Callable[[Any, Int[Array, " b"]], Any] | None = None


def pick_last(y: Shaped[Array, "b k ..."], count: Int[Array, " b"]) -> Shaped[Array, "b 1 ..."]:
    """The entry at place count - 1 of each row."""
    index = jnp.maximum(count - 1, 0).reshape(-1, *(1,) * (y.ndim - 1))
    return jnp.take_along_axis(y, index, axis=1)


@record
class Seen:
    """All inputs so far: [b, n, c], of which row b has `place[b]`."""

    x: Int[Array, "b n c"]
    place: Int[Array, " b"]


def naive(apply: Callable[[Array], Array], places: int, channels: int) -> Walker:
    """Walks a causal network by running it on everything for each call: what others are measured by.

    Args:
        apply: [b, places, channels] -> [b, places, *out], causal; inputs that are not there yet are 0.
        places: of the whole sequence.
        channels: inputs at each place.

    Returns:
        The walker.
    """

    def begin(num: int) -> Seen:
        return Seen(jnp.zeros((num, places, channels), jnp.int32), jnp.zeros(num, jnp.int32))

    def walk(memory: Seen, x: Inputs, count: Array, last: bool) -> tuple[Array, Seen]:
        ahead = jnp.arange(x.shape[1])[None]
        at = memory.place[:, None] + ahead
        index = jnp.where(ahead < count[:, None], at, places)
        seen = memory.x.at[jnp.arange(len(x))[:, None], index].set(x, mode="drop")
        y = apply(seen)
        chosen = at.reshape(*at.shape, *(1,) * (y.ndim - 2))
        y = jnp.take_along_axis(y, chosen, axis=1, mode="clip")
        return pick_last(y, count) if last else y, Seen(seen, memory.place + count)

    return Walker(begin, walk, lambda memory, drop: Seen(memory.x, memory.place - drop))


def reorder(memory: PyTree, rows: Int[Array, " b"]) -> PyTree:
    """A memory whose row i is row `rows[i]` of this one."""
    b = len(rows)
    return jax.tree.map(lambda a: a.reshape(b, -1, *a.shape[1:])[rows].reshape(a.shape), memory)


def hold(move: Bool[Array, " b"], new: Shaped[Array, "b ..."], old: Shaped[Array, "b ..."]) -> Array:
    """The new rows where they move, the old ones where they wait."""
    return jnp.where(move.reshape(-1, *(1,) * (new.ndim - 1)), new, old)


def stepwise(
    step: Callable[[PyTree, Array, Array], tuple[Array, PyTree]], begin: Callable[[int], PyTree]
) -> Walker:
    """A walker from one step: many places are walked one after the other.

    Args:
        step: (memory, x [b, c], move [b]) -> (output [b, *out], memory); rows that do not move remember nothing new.
        begin: as `Walker.begin`.

    Returns:
        The walker.
    """

    def walk(memory: PyTree, x: Inputs, count: Array, last: bool) -> tuple[Array, PyTree]:
        if x.shape[1] == 1:
            y, memory = step(memory, x[:, 0], count > 0)
            return y[:, None], memory

        def one(memory: PyTree, now: tuple[Array, Array]) -> tuple[PyTree, Array]:
            i, inputs = now
            y, memory = step(memory, inputs, i < count)
            return memory, y

        memory, y = jax.lax.scan(one, memory, (jnp.arange(x.shape[1]), jnp.moveaxis(x, 1, 0)))
        y = jnp.moveaxis(y, 0, 1)
        return pick_last(y, count) if last else y, memory

    return Walker(begin, walk)
