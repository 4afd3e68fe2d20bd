"""Gated PixelCNN (van den Oord et al. 2016, arXiv:1606.05328), two stacks of masked convolutions without a blind spot.

The vertical stack v sees whole rows; the horizontal stack h sees its row from the left, and v of the rows above:

    a = V * v,     v <- gate(a + U c),     b = H * h + L shift(a) + W c,     h <- h + R gate(b),
    gate(z) = tanh(z_1) sigmoid(z_2)  (eq. 2),     shift: one row down,

V of rows i - k + 1 ... i and columns j - k // 2 ... j + k // 2, H of columns j - k + 1 ... j. Inputs are shifted by
one place in raster order (a start symbol first, each row's last pixel at the start of the next row), so that
seeing the own place is causal. The gated features of all layers feed the output.

For incremental evaluation a layer keeps its last rows of v, the row of L a above, and the last h of its own row. The
vertical stack is computed once per row, when the row above is complete: a pixel costs 1 / (height width) of an image.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from genjax.core.types import Array, PyTree, record
from genjax.networks.autoregressive.causal import CausalNetwork
from genjax.networks.autoregressive.raster import check_image
from genjax.networks.layers.incremental import IncrementalDecoder, hold, stepwise
from genjax.networks.layers.linen import Conv, Dense


@record
class Rows:
    """Memory of one layer.

    Attributes:
        v: last inputs of the vertical stack, the k rows above the current one.
        link: L a of the row above.
        h: last inputs of the horizontal stack, the k pixels to the left.
    """

    v: Float[Array, "b k w c"]
    link: Float[Array, "b w d"]
    h: Float[Array, "b m c"]


@record
class DecodeState:
    """Memory of the network: its layers, the current row of inputs, and the number of pixels processed."""

    layers: tuple[Rows, ...]
    row: Int[Array, "b w ch"]
    place: Int[Array, " b"]


def gate(z: Float[Array, "*n two_c"]) -> Float[Array, "*n c"]:
    """tanh of the first half times the sigmoid of the second (eq. 2)."""
    signal, gates = jnp.split(z, 2, axis=-1)
    return jnp.tanh(signal) * jax.nn.sigmoid(gates)


def _down(x: Array) -> Array:
    """Shifts rows down by one; the first is zero."""
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


class _Layer(nn.Module):
    """One layer of both stacks; the last one's v is unused, so it gets no condition."""

    width: int
    kernel: int
    last: bool

    def setup(self) -> None:
        wide, side = 2 * self.width, self.kernel // 2
        rows = ((self.kernel - 1, 0), (side, side))
        self.v = Conv(wide, (self.kernel, 2 * side + 1), padding=rows)
        self.h = Conv(wide, (1, self.kernel), padding=((0, 0), (self.kernel - 1, 0)))
        self.link = Dense(wide)
        self.cond_h = Dense(wide, use_bias=False)
        if not self.last:
            self.cond_v = Dense(wide, use_bias=False)
            self.residual = Dense(self.width)

    def vertical(self, v: Array, cond: Array | None) -> tuple[Array, Array]:
        """(next v, L a) of all rows."""
        a = self.v(v)
        if self.last:
            return v, self.link(a)
        return gate(a if cond is None else a + self.cond_v(cond)[:, None, None]), self.link(a)

    def horizontal(self, h: Array, link: Array, cond: Array | None) -> tuple[Array, Array]:
        """(residual R z, gated features z) of all pixels, given L a of the rows above."""
        b = self.h(h) + link
        z = gate(b if cond is None else b + self.cond_h(cond)[:, None, None])
        return jnp.zeros_like(z) if self.last else self.residual(z), z


class _Parts(NamedTuple):
    features: Callable[[Array], Array]
    layers: list[_Layer]
    finish: Callable[[list[Array]], Array]


class PixelCNN(CausalNetwork):
    """Gated PixelCNN from integers to an output at each pixel.

    The channels of a pixel do not see each other: use an output distribution over all channels, or
    flatten the channels into columns.

    Attributes:
        width: channels of each stack.
        depth: layers.
        kernel: k, extent of the convolutions.
        hidden: features before the output.
        levels: number of values of an input; the integer `levels` is the start symbol.
    """

    width: int = 64
    depth: int = 6
    kernel: int = 3
    hidden: int = 128
    levels: int = 256

    def whole(self, x: Array, cond: Array | None, out: int | tuple[int, ...], train: bool) -> Array:
        """Outputs [b, h, w, *o] of images of integers 0 ... levels, shifted by one place."""
        check_image("PixelCNN", x.shape[1:], out)

        def run(parts: _Parts) -> Array:
            v = h = parts.features(x)
            z = []
            for layer in parts.layers:
                v, link = layer.vertical(v, cond)
                added, features = layer.horizontal(h, _down(link), cond)
                h = h + added
                z.append(features)
            return parts.finish(z)

        return self.build(run, (out,) if isinstance(out, int) else out[2:])

    @nn.compact
    def build(self, run: Callable[[_Parts], Any], out: tuple[int, ...]) -> Any:
        """Makes the submodules and calls `run` with them."""
        read = Dense(self.width, name="in")
        layers = [
            _Layer(self.width, self.kernel, index + 1 == self.depth, name=f"layer_{index}")
            for index in range(self.depth)
        ]
        skips = [Dense(self.hidden, name=f"skip_{index}") for index in range(self.depth)]
        hide, project = Dense(self.hidden, name="hide"), Dense(math.prod(out), name="out")

        def features(x: Array) -> Array:
            start = x >= self.levels
            scaled = jnp.where(start, 0.0, 2.0 * x / (self.levels - 1.0) - 1.0)
            return read(jnp.concatenate([scaled, start[..., :1].astype(scaled.dtype)], axis=-1))

        def finish(z: list[Array]) -> Array:
            total = sum(skip(part) for skip, part in zip(skips, z, strict=True)) / len(z) ** 0.5
            y = project(jax.nn.relu(hide(jax.nn.relu(total))))
            return y.reshape(*y.shape[:-1], *out)

        return run(_Parts(features, layers, finish))

    @nn.nowrap
    def decoder(
        self, params: PyTree, grid: tuple[int, ...], cond: Array | None, out: tuple[int, ...], channels: int
    ) -> IncrementalDecoder:
        """A decoder over pixels, in the order of rows."""
        _, columns = grid

        def init(num: int) -> DecodeState:
            def layer() -> Rows:
                v = jnp.zeros((num, self.kernel, columns, self.width))
                link = jnp.zeros((num, columns, 2 * self.width))
                return Rows(v, link, jnp.zeros((num, self.kernel, self.width)))

            row = jnp.zeros((num, columns, channels), jnp.int32)
            return DecodeState(tuple(layer() for _ in range(self.depth)), row, jnp.zeros(num, jnp.int32))

        def step(memory: DecodeState, x: Array, active: Array) -> tuple[Array, PyTree]:
            def run(parts: _Parts) -> tuple[Array, DecodeState]:
                return _step(parts, memory, x, active, cond)

            both: Any = self.apply(params, run, out, method="build")
            return both

        return stepwise(step, init)


def _step(
    parts: _Parts, memory: DecodeState, x: Int[Array, "b c"], active: Bool[Array, " b"], cond: Array | None
) -> tuple[Array, DecodeState]:
    """(the output [b, *o] at the next pixel, the new memory)."""
    rows, columns = jnp.arange(len(x)), memory.row.shape[1]
    column = memory.place % columns
    new_row = active & (column == 0)

    def next_row(memory: DecodeState) -> DecodeState:
        """Appends the last row to the vertical stack, for examples that start a new row."""
        v, layers = parts.features(memory.row[:, None]), []
        for layer, kept in zip(parts.layers, memory.layers, strict=True):
            stack = jnp.concatenate([kept.v[:, 1:], v], axis=1)
            after, link = layer.vertical(stack, cond)
            v = after[:, -1:]
            above = new_row & (memory.place > 0)
            layers.append(
                Rows(
                    hold(above, stack, kept.v),
                    hold(above, link[:, -1], kept.link),
                    hold(new_row, jnp.zeros_like(kept.h), kept.h),
                )
            )
        return DecodeState(tuple(layers), memory.row, memory.place)

    memory = jax.lax.cond(jnp.any(new_row), next_row, lambda memory: memory, memory)
    h, z, layers = parts.features(x[:, None, None]), [], []
    for layer, kept in zip(parts.layers, memory.layers, strict=True):
        line = jnp.concatenate([kept.h[:, 1:], h[:, 0]], axis=1)
        link = jnp.take_along_axis(kept.link, column[:, None, None], axis=1)
        padded = jnp.pad(link[:, None], ((0, 0), (0, 0), (line.shape[1] - 1, 0), (0, 0)))
        added, features = layer.horizontal(line[:, None], padded, cond)
        h = h + added[:, :, -1:]
        z.append(features[:, :, -1:])
        layers.append(Rows(kept.v, kept.link, hold(active, line, kept.h)))
    row = memory.row.at[rows, jnp.where(active, column, columns)].set(x, mode="drop")
    return parts.finish(z)[:, 0, 0], DecodeState(tuple(layers), row, memory.place + active)
