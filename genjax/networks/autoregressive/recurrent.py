"""Recurrent networks over tokens: a state of fixed size summarises the past.

    h_i^0 = E[x_i] + C c,     (h_i^l, s_i^l) = cell(s_{i-1}^l, h_i^{l-1}),     logits_i = W h_i^L + b,

with LSTM (Hochreiter & Schmidhuber 1997) or GRU cells (Cho et al. 2014, arXiv:1406.1078), places in the order in which
the grid is flattened. One `lax.scan` over places holds all layers.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.types import Array, PyTree, record
from genjax.networks.autoregressive.causal import CausalNetwork, flatten
from genjax.networks.layers.incremental import IncrementalDecoder, hold, pick_last
from genjax.networks.layers.linen import Dense

CELLS: dict[str, Any] = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}


@record
class States:
    """Memory: a state for each layer, and the number of places processed."""

    cells: PyTree
    place: Int[Array, " b"]


class _Layers(nn.Module):
    """All layers at one place; inactive rows keep their states."""

    width: int
    depth: int
    cell: str

    @nn.compact
    def __call__(self, states: tuple, now: tuple[Array, Array]) -> tuple[tuple, Array]:
        h, active = now
        after = []
        for number, state in enumerate(states):
            new, h = CELLS[self.cell](self.width, name=f"cell_{number}")(state, h)
            after.append(jax.tree.map(lambda a, b: hold(active, a, b), new, state))
        return tuple(after), h


class Recurrent(CausalNetwork):
    """Recurrent network from tokens to logits, causal by construction.

    Attributes:
        width: features of each state.
        depth: number of layers.
        cell: kind of the cell.
        extra: number of input tokens that are never predicted, numbered from `out` on: the start symbol.
    """

    width: int = 256
    depth: int = 2
    cell: Literal["lstm", "gru"] = "lstm"
    extra: int = 1

    def whole(self, x: Array, cond: Array | None, out: int | tuple[int, ...], train: bool) -> Array:
        """Float32 logits [b, *n, out] after tokens [b, *n] in 0 ... out + extra - 1."""
        flat, number = flatten(x, out)
        count = jnp.full(len(x), flat.shape[1])
        logits, _ = self.read(flat, cond, count, self.blank(len(x)), number, False)
        return logits.reshape(*x.shape, number)

    @nn.compact
    def read(
        self,
        x: Int[Array, "b k"],
        cond: Float[Array, "b c"] | None,
        count: Int[Array, " b"],
        states: States,
        number: int,
        last: bool,
    ) -> tuple[Float[Array, "b m o"], States]:
        """Logits after each token, and the states after the first `count` tokens.

        Args:
            x: tokens.
            cond: conditioning vector, or None.
            count: number of tokens of each row, 0 ... k.
            states: memory before.
            number: number of tokens to choose from.
            last: return the logits after the last token of each row only.

        Returns:
            (logits, the new memory).
        """
        init = nn.initializers.normal(1.0)
        h = self.param("tokens", init, (number + self.extra, self.width), jnp.float32)[x]
        if cond is not None:
            h = h + Dense(self.width, use_bias=False, name="embed")(cond)[:, None]
        scan = nn.scan(
            _Layers,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
        )
        active = jnp.arange(x.shape[1])[None] < count[:, None]
        cells, h = scan(self.width, self.depth, self.cell, name="layers")(states.cells, (h, active))
        h = pick_last(h, count) if last else h
        return Dense(number, name="out")(h), States(cells, states.place + count)

    @nn.nowrap
    def blank(self, num: int) -> States:
        """The initial memory, for `num` rows."""
        zeros = lambda: jnp.zeros((num, self.width))
        cells = tuple((zeros(), zeros()) if self.cell == "lstm" else zeros() for _ in range(self.depth))
        return States(cells, jnp.zeros(num, jnp.int32))

    @nn.nowrap
    def decoder(
        self, params: PyTree, grid: tuple[int, ...], cond: Array | None, out: tuple[int, ...], channels: int
    ) -> IncrementalDecoder:
        """Inputs [b, k, 1], outputs [b, k, 1, number]; the grid is ignored."""
        number = out[-1]

        def extend(states: States, x: Array, count: Array, last: bool) -> tuple[Array, States]:
            both: Any = self.apply(params, x[..., 0], cond, count, states, number, last, method="read")
            return both[0][:, :, None], both[1]

        return IncrementalDecoder(self.blank, extend)
