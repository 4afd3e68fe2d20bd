"""Incremental evaluation: the outputs of a causal network place by place, from cached state.

A network is causal if its output at a place depends on its inputs at that place and earlier ones only, in the order in
which the places of the grid are flattened. A network that supports incremental evaluation is `Incremental`, and `naive`
makes an `IncrementalDecoder` of any causal network by running it on all inputs again for each place.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Shaped

from genjax.core.types import Array, PyTree, record

Inputs = Int[Array, "b k c"]


@runtime_checkable
class Incremental(Protocol):
    """A causal network that evaluates its outputs place by place."""

    def incremental(
        self,
        params: PyTree,
        grid: tuple[int, ...],
        cond: Float[Array, "b c"] | None = None,
        *,
        out: int | tuple[int, ...],
        **options: Any,
    ) -> "IncrementalDecoder":
        """The decoder of parameters for places of shape `grid`; options as `TokenTransformer.incremental` has them."""
        ...


@runtime_checkable
class Packs(Protocol):
    """A network whose parameters can be converted once for all incremental decoders."""

    def ready(self, params: PyTree, number: int, weights: Any = "float32") -> PyTree:
        """The parameters in the layout and storage dtype of decoding; `number` is the width of an output."""
        ...


class IncrementalDecoder(NamedTuple):
    """A causal network with its parameters and condition, for incremental evaluation.

    Attributes:
        init: (rows) -> memory before the first place. A pytree with `place` [rows] int32; the leading axis of each
            array is a multiple of the rows (see `reorder`).
        extend: (memory, x [b, k, c], count [b], last) -> (outputs, memory): processes the first `count[b]` of k inputs
            of row b, at the places after those already processed. `last` (static) gives the outputs at the last
            of them, [b, 1, *out], else at all, [b, k, *out]. Outputs beyond `count[b]` are undefined.
        rewind: (memory, drop [b]) -> memory without the last `drop[b]` places of each row; None if unsupported.
    """

    init: Callable[[int], Any]
    extend: Callable[[Any, Inputs, Int[Array, " b"], bool], tuple[Float[Array, "b m *out"], Any]]
    rewind: Callable[[Any, Int[Array, " b"]], Any] | None = None


def pick_last(y: Shaped[Array, "b k ..."], count: Int[Array, " b"]) -> Shaped[Array, "b 1 ..."]:
    """The entry at index count - 1 of each row."""
    index = jnp.maximum(count - 1, 0).reshape(-1, *(1,) * (y.ndim - 1))
    return jnp.take_along_axis(y, index, axis=1)


@record
class Seen:
    """All inputs so far: x [b, n, c], of which the first `place[b]` of row b are set."""

    x: Int[Array, "b n c"]
    place: Int[Array, " b"]


def naive(apply: Callable[[Array], Array], places: int, channels: int) -> IncrementalDecoder:
    """Evaluates a causal network by running it on the whole sequence in each call: the reference for tests.

    Args:
        apply: [b, places, channels] -> [b, places, *out], causal; later inputs are 0.
        places: length of the whole sequence.
        channels: number of inputs at each place.

    Returns:
        The decoder.
    """

    def init(num: int) -> Seen:
        return Seen(jnp.zeros((num, places, channels), jnp.int32), jnp.zeros(num, jnp.int32))

    def extend(memory: Seen, x: Inputs, count: Array, last: bool) -> tuple[Array, Seen]:
        ahead = jnp.arange(x.shape[1])[None]
        at = memory.place[:, None] + ahead
        index = jnp.where(ahead < count[:, None], at, places)
        seen = memory.x.at[jnp.arange(len(x))[:, None], index].set(x, mode="drop")
        y = apply(seen)
        chosen = at.reshape(*at.shape, *(1,) * (y.ndim - 2))
        y = jnp.take_along_axis(y, chosen, axis=1, mode="clip")
        return pick_last(y, count) if last else y, Seen(seen, memory.place + count)

    return IncrementalDecoder(init, extend, lambda memory, drop: Seen(memory.x, memory.place - drop))


def reorder(memory: PyTree, rows: Int[Array, " b"]) -> PyTree:
    """Gathers rows: row i of the result is row `rows[i]` of `memory`."""
    b = len(rows)
    return jax.tree.map(lambda a: a.reshape(b, -1, *a.shape[1:])[rows].reshape(a.shape), memory)


def hold(active: Bool[Array, " b"], new: Shaped[Array, "b ..."], old: Shaped[Array, "b ..."]) -> Array:
    """Selects rows.

    Args:
        active: condition of each row.
        new: rows to take where `active`.
        old: rows to take elsewhere.

    Returns:
        [b, ...].
    """
    return jnp.where(active.reshape(-1, *(1,) * (new.ndim - 1)), new, old)


def stepwise(
    step: Callable[[PyTree, Array, Array], tuple[Array, PyTree]], init: Callable[[int], PyTree]
) -> IncrementalDecoder:
    """Makes a decoder of a single step, which is scanned over several places.

    Args:
        step: (memory, x [b, c], active [b]) -> (output [b, *out], memory); inactive rows keep their memory.
        init: as `IncrementalDecoder.init`.

    Returns:
        The decoder.
    """

    def extend(memory: PyTree, x: Inputs, count: Array, last: bool) -> tuple[Array, PyTree]:
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

    return IncrementalDecoder(init, extend)
