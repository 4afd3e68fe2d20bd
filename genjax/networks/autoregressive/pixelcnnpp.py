"""PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517): two streams of gated residual blocks over several scales.

u(i, j) sees the rows above i, v(i, j) also the pixels left of j in row i. With a block r(y, a) as in `streams`, of
convolutions of 2 x 3 in u and 2 x 2 in v, down the scales

    u <- r(u, -),  v <- r(v, u),     and up again     u <- r(u, u'),  v <- r(v, [u, v']),

u' and v' being the outputs of the same scale on the way down, in reverse order. Convolutions of stride 2 lead down;
transposed ones of 2 x 2 and stride 2 lead up: 1 x 1 convolutions and depth to space. Place (I, J) of a coarser v reads
places up to (2I, 2J) and is read by (2I, 2J) and later ones only, so no shift between scales is needed. Odd sizes are
rounded up, and cropped on the way up.

No weight normalisation and no data-dependent initialisation; C_2 is initialised small.
"""

import math
from collections.abc import Callable
from itertools import repeat
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.types import Array, PyTree, record
from genjax.networks.autoregressive import raster
from genjax.networks.autoregressive.causal import CausalNetwork
from genjax.networks.autoregressive.streams import (
    Pixels,
    Rows,
    Scale,
    Stream,
    apply_step,
    apply_whole,
    at,
    blank,
)
from genjax.networks.layers.incremental import IncrementalDecoder, stepwise
from genjax.networks.layers.linen import Conv, Dense


@record
class DecodeState:
    """Memory of the network: the padded image, both streams by scale, and the number of pixels processed."""

    image: Float[Array, "b h w c"]
    u: tuple[Scale, ...]
    v: tuple[Scale, ...]
    place: Int[Array, " b"]


class _Parts(NamedTuple):
    u: Stream
    v: Stream
    rows: Conv
    above: Conv
    left: Conv
    finish: Callable[[Array], Array]


class PixelCNNPP(CausalNetwork):
    """PixelCNN++ from integers to an output at each pixel.

    The channels of a pixel do not see each other: use an output distribution over all channels, or
    flatten the channels into columns.

    Attributes:
        width: channels of each stream.
        blocks: number of blocks of each stream per scale, on the way down and up (one more up, except at the coarsest).
        scales: number of scales; 1 for no downsampling.
        dropout: rate, before the last convolution of each block.
        levels: number of values of an input.
    """

    width: int = 64
    blocks: int = 2
    scales: int = 3
    dropout: float = 0.0
    levels: int = 256

    def whole(self, x: Array, cond: Array | None, out: int | tuple[int, ...], train: bool) -> Array:
        """Outputs [b, h, w, *o] of images of integers 0 ... levels - 1, shifted by one place.

        Real numbers in between are allowed, for gradients. The first pixel is the start: its value is ignored.
        """
        raster.check_image("PixelCNN++", x.shape[1:], out)
        h, w = x.shape[1:3]
        image = jnp.pad(raster.shift_back(x, self.levels), ((0, 0), (2, 0), (1, 1), (0, 0)))

        def run(parts: _Parts) -> Array:
            u = apply_whole(parts.u, parts.rows(image[:, : h + 1]), [repeat(None)] * self.scales, cond, train)
            v = parts.above(image[:, 1 : h + 1]) + parts.left(image[:, 1:, :w])
            return parts.finish(apply_whole(parts.v, v, u, cond, train)[0][-1])

        return self.build(run, (out,) if isinstance(out, int) else out[2:])

    @nn.compact
    def build(self, run: Callable[[_Parts], Any], out: tuple[int, ...]) -> Any:
        """Makes the submodules and calls `run` with them."""
        stream = lambda name, *extent: Stream(
            self.width, self.blocks, self.scales, extent, self.dropout, name=name
        )
        first = lambda name, *extent: Conv(self.width, extent, padding="VALID", name=name)
        project = Dense(math.prod(out), name="out")

        def finish(v: Array) -> Array:
            y = project(jax.nn.elu(v))
            return y.reshape(*y.shape[:-1], *out)

        entries = first("rows", 2, 3), first("above", 1, 3), first("left", 2, 1)
        return run(_Parts(stream("u", 2, 3), stream("v", 2, 2), *entries, finish))

    @nn.nowrap
    def decoder(
        self, params: PyTree, grid: tuple[int, ...], cond: Array | None, out: tuple[int, ...], channels: int
    ) -> IncrementalDecoder:
        """A decoder over pixels, in the order of rows."""

        def step(memory: DecodeState, x: Array, active: Array) -> tuple[Array, PyTree]:
            seen = raster.features(x, self.levels)
            image = raster.reveal(memory.image, memory.place, active, seen, grid[1], (2, 1))
            here = DecodeState(image, memory.u, memory.v, memory.place)
            run = lambda parts: _step(parts, here, active, grid[1], cond)
            both: Any = self.apply(params, run, out, method="build")
            return both

        return stepwise(step, lambda num: self._init(num, grid, channels))

    @nn.nowrap
    def _init(self, num: int, grid: tuple[int, ...], channels: int) -> DecodeState:
        """The initial memory."""
        h, w = grid
        columns = [-(-w // 2**k) for k in range(self.scales)]
        u, v = (blank(num, self.width, self.blocks, columns, rows) for rows in (True, False))
        image = jnp.zeros((num, h + 2, w + 2, channels + 1))
        return DecodeState(image, u, v, jnp.zeros(num, jnp.int32))


def _step(
    parts: _Parts, memory: DecodeState, active: Array, width: int, cond: Array | None
) -> tuple[Array, DecodeState]:
    """(the output [b, *o] at the next pixel, the new memory); memory.image already has the last pixel."""
    row, column = memory.place // width, memory.place % width
    new_row = active & (column == 0)

    def next_row(u: tuple[Scale, ...]) -> tuple[Scale, ...]:
        y = parts.rows(raster.window(memory.image, raster.span(row, 2), raster.span(0 * row, width + 2)))
        return apply_step(parts.u, y, [repeat(None)] * len(u), cond, u, Rows(new_row, row))[1]

    u = jax.lax.cond(jnp.any(new_row), next_row, lambda u: u, memory.u)
    aside = [[at(y, column // 2**k) for y in scale.made] for k, scale in enumerate(u)]
    image = raster.window(memory.image, raster.span(row + 1, 2), raster.span(column, 3))
    y = parts.above(image[:, :1]) + parts.left(image[:, :, :1])
    y, v = apply_step(parts.v, y, aside, cond, memory.v, Pixels(active, row, column))
    return parts.finish(y)[:, 0, 0], DecodeState(memory.image, u, v, memory.place + active)
