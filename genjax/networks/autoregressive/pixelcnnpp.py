"""PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517): two streams of gated residual blocks over several scales.

u(i, j) sees the rows above i, v(i, j) also the pixels left of j in row i. With a block r(y, a) as in `streams`, of
convolutions of 2 x 3 in u and 2 x 2 in v, down the scales

    u <- r(u, -),  v <- r(v, u),     and up again     u <- r(u, u'),  v <- r(v, [u, v']),

u' and v' being what the same scale made on the way down, the last first. Convolutions of stride 2 lead down, transposed
ones of 2 x 2 and stride 2 up, which are 1 x 1 convolutions and depth to space. Place (I, J) of a coarser v reads places
up to (2I, 2J) and is read by (2I, 2J) and later ones only, so nothing need be shifted between scales. Odd sizes are
rounded up, and cut on the way back.

The weights are plain: no weight normalisation, and no initialisation by data; C_2 starts small.
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
from genjax.networks.autoregressive.streams import Pixels, Rows, Scale, Stream, at, blank, walk, whole
from genjax.networks.layers.incremental import Walker, stepwise
from genjax.networks.layers.linen import Conv, Dense


@record
class Walked:
    """What the network remembers: its image with the padding, both streams by scale, and the places walked."""

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


class PixelCNNPP(nn.Module):
    """PixelCNN++ from integers to an output at each pixel.

    The channels of a pixel do not see each other: give images of several channels to an emission that joins them, or
    as more columns.

    Attributes:
        width: channels of each stream.
        blocks: of each stream at each scale, on the way down and as many up (one more but at the coarsest).
        scales: 1 for no down-sampling.
        dropout: rate, before the last convolution of each block.
        levels: values of an input.
    """

    width: int = 64
    blocks: int = 2
    scales: int = 3
    dropout: float = 0.0
    levels: int = 256

    def __call__(
        self,
        x: raster.Pixels,
        t: None = None,
        cond: Float[Array, "b k"] | None = None,
        *,
        out: int | tuple[int, ...],
        train: bool = False,
    ) -> Float[Array, "b h w *o"]:
        """Maps images of integers, one place late, to float32 outputs [b, h, w, *o].

        Args:
            x: integers 0 ... levels - 1, or real numbers between them, to differentiate by; the first pixel of each
                image is the start, whatever it is.
            t: None; there is no time.
            cond: conditioning vector, or None.
            out: o, or (h, w, *o).
            train: whether dropout is on.

        Returns:
            The output at each pixel.

        Raises:
            UserError: x is no image, or `out` has another shape than it.
        """
        raster.check_image("PixelCNN++", x.shape[1:], out)
        h, w = x.shape[1:3]
        image = jnp.pad(raster.on_time(x, self.levels), ((0, 0), (2, 0), (1, 1), (0, 0)))

        def run(parts: _Parts) -> Array:
            u = whole(parts.u, parts.rows(image[:, : h + 1]), [repeat(None)] * self.scales, cond, train)
            v = parts.above(image[:, 1 : h + 1]) + parts.left(image[:, 1:, :w])
            return parts.finish(whole(parts.v, v, u, cond, train)[0][-1])

        return self.build(run, (out,) if isinstance(out, int) else out[2:])

    @nn.compact
    def build(self, run: Callable[[_Parts], Any], out: tuple[int, ...]) -> Any:
        """Gives the parts, with their parameters, to a function that puts them together."""
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
    def walker(
        self,
        params: PyTree,
        grid: tuple[int, ...],
        cond: Float[Array, "b c"] | None = None,
        *,
        out: int | tuple[int, ...],
        channels: int = 1,
        **options: Any,
    ) -> Walker:
        """The network pixel by pixel; see `walker.Walker`. It cannot forget; other options change nothing."""
        each = (out,) if isinstance(out, int) else out[2:]

        def step(memory: Walked, x: Array, move: Array) -> tuple[Array, PyTree]:
            seen = raster.features(x, self.levels)
            image = raster.reveal(memory.image, memory.place, move, seen, grid[1], (2, 1))
            here = Walked(image, memory.u, memory.v, memory.place)
            run = lambda parts: _step(parts, here, move, grid[1], cond)
            both: Any = self.apply(params, run, each, method="build")
            return both

        return stepwise(step, lambda num: self._begin(num, grid, channels))

    @nn.nowrap
    def _begin(self, num: int, grid: tuple[int, ...], channels: int) -> Walked:
        """What is remembered of nothing."""
        h, w = grid
        columns = [-(-w // 2**k) for k in range(self.scales)]
        u, v = (blank(num, self.width, self.blocks, columns, rows) for rows in (True, False))
        image = jnp.zeros((num, h + 2, w + 2, channels + 1))
        return Walked(image, u, v, jnp.zeros(num, jnp.int32))


def _step(parts: _Parts, memory: Walked, move: Array, width: int, cond: Array | None) -> tuple[Array, Walked]:
    """The output [b, *o] at the next pixel, and what is remembered then; its image is that up to there already."""
    row, column = memory.place // width, memory.place % width
    begins = move & (column == 0)

    def next_row(u: tuple[Scale, ...]) -> tuple[Scale, ...]:
        y = parts.rows(raster.window(memory.image, raster.span(row, 2), raster.span(0 * row, width + 2)))
        return walk(parts.u, y, [repeat(None)] * len(u), cond, u, Rows(begins, row))[1]

    u = jax.lax.cond(jnp.any(begins), next_row, lambda u: u, memory.u)
    aside = [[at(y, column // 2**k) for y in scale.made] for k, scale in enumerate(u)]
    image = raster.window(memory.image, raster.span(row + 1, 2), raster.span(column, 3))
    y = parts.above(image[:, :1]) + parts.left(image[:, :, :1])
    y, v = walk(parts.v, y, aside, cond, memory.v, Pixels(move, row, column))
    return parts.finish(y)[:, 0, 0], Walked(memory.image, u, v, memory.place + move)
