"""PixelRNN with row LSTMs (van den Oord et al. 2016, arXiv:1601.06759, section 3.1): LSTMs run from row to row.

All pixels of row i at once, from the states h, c of the row above, * along the row:

    [o, f, i, g] = K_ss * h_{i-1} + K_is * y_i + B cond,     c_i = sigmoid(f) c_{i-1} + sigmoid(i) tanh(g),
    h_i = sigmoid(o) tanh(c_i)  (eq. 3),                     y <- y + R h  (figure 5),

K_ss sees as many places left as right; K_is, masked, its own place and those to the left. So the receptive field of a
state is a triangle that widens upwards. A masked convolution (mask A) makes the first y of the pixels before its own.
Masked taps are not computed: there is one kernel for the rows above and one for the pixels to the left.

For incremental evaluation a layer keeps the states of the row above and of its own row, and its last inputs there.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from genjax.core.types import Array, PyTree, record
from genjax.networks.autoregressive import raster
from genjax.networks.autoregressive.causal import CausalNetwork
from genjax.networks.layers import ops
from genjax.networks.layers.incremental import IncrementalDecoder, hold, stepwise
from genjax.networks.layers.linen import Conv, Dense, lecun


@record
class Row:
    """Memory of one layer.

    Attributes:
        h: states of the row above and the current one, indexed by row mod 2, zero-padded at both ends.
        c: cells, indexed likewise, without padding.
        y: last inputs, the pixels to the left.
    """

    h: Float[Array, "b 2 _ s"]
    c: Float[Array, "b 2 w s"]
    y: Float[Array, "b m d"]


@record
class DecodeState:
    """Memory of the network: the padded image, its layers, and the number of pixels processed."""

    image: Float[Array, "b h w c"]
    layers: tuple[Row, ...]
    place: Int[Array, " b"]


class _RowLSTM(nn.Module):
    """One layer; `states` and `inputs` are the numbers of taps of K_ss and K_is."""

    width: int
    states: int
    inputs: int

    def setup(self) -> None:
        gates = 4 * self.width
        self.is_ = Conv(gates, (1, self.inputs), padding="VALID")
        self.ss = self.param("ss", lecun, (self.states, self.width, gates), jnp.float32)
        self.cond = Dense(gates, use_bias=False)
        self.residual = Dense(2 * self.width)

    def read(self, y: Array, cond: Array | None) -> Array:
        """K_is * y + B cond, for y padded on the left."""
        gates = self.is_(y)
        return gates if cond is None else gates + self.cond(cond)[:, None, None]

    def cell(self, gates: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """(h, c) of some places of a row [b, n, s], given the row above: h around them and c at them."""
        gates = gates + ops.conv(h, self.ss, padding=((0, 0),))
        o, f, i, g = jnp.split(gates, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    def __call__(self, y: Array, cond: Array | None) -> Array:
        """The residual R h for the whole image y [b, h, w, d]."""
        gates = self.read(jnp.pad(y, ((0, 0), (0, 0), (self.inputs - 1, 0), (0, 0))), cond)
        side = self.states // 2

        def row(above: tuple[Array, Array], gates: Array) -> tuple[tuple[Array, Array], Array]:
            h, c = above
            h, c = self.cell(gates, jnp.pad(h, ((0, 0), (side, side), (0, 0))), c)
            return (h, c), h

        blank = jnp.zeros((len(y), y.shape[2], self.width))
        _, h = jax.lax.scan(row, (blank, blank), jnp.moveaxis(gates, 1, 0))
        return self.residual(jnp.moveaxis(h, 0, 1))


class _Parts(NamedTuple):
    above: Conv
    left: Conv
    layers: list[_RowLSTM]
    finish: Callable[[Array], Array]


class PixelRNN(CausalNetwork):
    """Row LSTMs from integers to an output at each pixel.

    The channels of a pixel do not see each other: use an output distribution over all channels, or
    flatten the channels into columns.

    Attributes:
        width: features of each state; the layers' inputs have twice as many.
        depth: layers.
        kernel: taps of K_ss, odd; the masked K_is has (kernel + 1) / 2.
        reach: number of rows up and of columns to each side that the first convolution sees.
        hidden: features of the two layers before the output.
        levels: number of values of an input.
    """

    width: int = 32
    depth: int = 3
    kernel: int = 3
    reach: int = 3
    hidden: int = 64
    levels: int = 256

    def whole(self, x: Array, cond: Array | None, out: int | tuple[int, ...], train: bool) -> Array:
        """Outputs [b, h, w, *o] of images of integers 0 ... levels - 1, shifted by one place.

        Real numbers in between are allowed, for gradients. The first pixel is the start: its value is ignored.
        """
        raster.check_image("PixelRNN", x.shape[1:], out)
        image = jnp.pad(raster.shift_back(x, self.levels), self._margin)
        h, w = x.shape[1:3]

        def run(parts: _Parts) -> Array:
            left = image[:, self.reach :, : w + self.reach - 1]
            y = parts.above(image[:, : h + self.reach - 1]) + parts.left(left)
            for layer in parts.layers:
                y = y + layer(y, cond)
            return parts.finish(y)

        return self.build(run, (out,) if isinstance(out, int) else out[2:])

    @property
    def _margin(self) -> tuple[tuple[int, int], ...]:
        """Padding of an image [b, h, w, c]."""
        return ((0, 0), (self.reach, 0), (self.reach, self.reach), (0, 0))

    @nn.compact
    def build(self, run: Callable[[_Parts], Any], out: tuple[int, ...]) -> Any:
        """Makes the submodules and calls `run` with them."""
        first = lambda name, *extent: Conv(2 * self.width, extent, padding="VALID", name=name)
        layers = [
            _RowLSTM(self.width, self.kernel, self.kernel // 2 + 1, name=f"layer_{index}")
            for index in range(self.depth)
        ]
        hide = [Dense(self.hidden, name=f"hide_{index}") for index in range(2)]
        project = Dense(math.prod(out), name="out")

        def finish(y: Array) -> Array:
            for layer in hide:
                y = layer(jax.nn.relu(y))
            y = project(jax.nn.relu(y))
            return y.reshape(*y.shape[:-1], *out)

        above, left = first("above", self.reach, 2 * self.reach + 1), first("left", 1, self.reach)
        return run(_Parts(above, left, layers, finish))

    @nn.nowrap
    def decoder(
        self, params: PyTree, grid: tuple[int, ...], cond: Array | None, out: tuple[int, ...], channels: int
    ) -> IncrementalDecoder:
        """A decoder over pixels, in the order of rows."""
        rows, columns = grid

        def init(num: int) -> DecodeState:
            def layer() -> Row:
                h = jnp.zeros((num, 2, columns + self.kernel - 1, self.width))
                y = jnp.zeros((num, self.kernel // 2, 2 * self.width))
                return Row(h, jnp.zeros((num, 2, columns, self.width)), y)

            image = jnp.pad(jnp.zeros((num, rows, columns, channels + 1)), self._margin)
            return DecodeState(image, tuple(layer() for _ in range(self.depth)), jnp.zeros(num, jnp.int32))

        def step(memory: DecodeState, x: Array, active: Array) -> tuple[Array, PyTree]:
            seen, margin = raster.features(x, self.levels), (self.reach, self.reach)
            image = raster.reveal(memory.image, memory.place, active, seen, columns, margin)
            here = DecodeState(image, memory.layers, memory.place)
            run = lambda parts: _step(parts, here, active, columns, self.reach, cond)
            both: Any = self.apply(params, run, out, method="build")
            return both

        return stepwise(step, init)


def _step(
    parts: _Parts, memory: DecodeState, active: Bool[Array, " b"], width: int, reach: int, cond: Array | None
) -> tuple[Array, DecodeState]:
    """(the output [b, *o] at the next pixel, the new memory); memory.image already has the last pixel."""
    row, column = memory.place // width, memory.place % width
    seen = raster.window(memory.image, raster.span(row, reach + 1), raster.span(column, 2 * reach + 1))
    y, after = parts.above(seen[:, :-1]) + parts.left(seen[:, -1:, :reach]), []
    for layer, kept in zip(parts.layers, memory.layers, strict=True):
        left = hold(column == 0, jnp.zeros_like(kept.y), kept.y)
        line = jnp.concatenate([left, y[:, 0]], axis=1)
        up, side = raster.span((row + 1) % 2), layer.states // 2
        h = raster.window(kept.h, up, raster.span(column, layer.states))[:, 0]
        h, c = layer.cell(
            layer.read(line[:, None], cond)[:, 0], h, raster.window(kept.c, up, raster.span(column))[:, 0]
        )
        y = y + layer.residual(h)[:, None]
        after.append(
            Row(
                raster.write(kept.h, row % 2, column + side, active, h[:, 0]),
                raster.write(kept.c, row % 2, column, active, c[:, 0]),
                hold(active, line[:, 1:], kept.y),
            )
        )
    return parts.finish(y)[:, 0, 0], DecodeState(memory.image, tuple(after), memory.place + active)
