"""PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517): two streams of gated residual blocks over several scales.

u(i, j) sees the rows above i, v(i, j) also the pixels left of j in row i. With phi(y) = elu([y, -y]) a block is

    r(y, a) = y + g_1 sigmoid(g_2),     g = C_2 * phi(C_1 * phi(y) + A phi(a)) + B c,

with dropout before C_2 and convolutions of 2 x 3 in u, 2 x 2 in v, which see their own row and the one above. Down the
scales u <- r(u, -), v <- r(v, u); up again u <- r(u, u'), v <- r(v, [u, v']), u' and v' being what the same scale made
on the way down, the last first. Convolutions of stride 2 lead down, transposed ones of 2 x 2 and stride 2 up, which are
1 x 1 convolutions and depth to space. Coarse place (I, J) reads places up to (2I, 2J) and is read by (2I, 2J) and
later ones only, so nothing need be shifted between scales. Odd sizes are rounded up, and cut on the way back.

The weights are plain: no weight normalisation, and no initialisation by data; C_2 starts small.

Walked pixel by pixel, each convolution remembers the row of its inputs above, in v the current one too. Of u a row is
computed when the one above is complete; a coarse row or pixel when the first of its places is reached.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from genjax.networks import ops, raster
from genjax.networks.layers import Conv, Dense
from genjax.networks.walker import Walker, hold, stepwise
from genjax.types import Array, PyTree, record

Look = Callable[[Array], Array]

_small = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")


@record
class Scale:
    """What one stream remembers at one scale.

    Attributes:
        inputs: of its convolutions; of u the row above [b, 1, w, c], of v it and the current one, in the order of
            row mod 2, after a column of zeros [b, 2, w + 1, c].
        made: outputs in the current row, [b, 1, w, c]: in u of all blocks, in v of the last.
    """

    inputs: tuple[Float[Array, "b _ _ _"], ...]
    made: tuple[Float[Array, "b 1 w c"], ...]


@record
class Walked:
    """What the network remembers: its image with the padding, both streams by scale, and the places walked."""

    image: Float[Array, "b h w c"]
    u: tuple[Scale, ...]
    v: tuple[Scale, ...]
    place: Int[Array, " b"]


def concat_elu(y: Float[Array, "*n c"]) -> Float[Array, "*n two_c"]:
    """elu([y, -y])."""
    return jax.nn.elu(jnp.concatenate([y, -y], axis=-1))


class _Block(nn.Module):
    """r(y, a); `look` puts around the input of a convolution what it sees there."""

    width: int
    extent: tuple[int, int]
    dropout: float

    @nn.compact
    def __call__(self, y: Array, a: Array | None, cond: Array | None, look: Look, train: bool) -> Array:
        conv = lambda features, **options: Conv(features, self.extent, padding="VALID", **options)
        h = conv(self.width, name="conv_1")(look(concat_elu(y)))
        if a is not None:
            h = h + Dense(self.width, use_bias=False, name="aside")(concat_elu(a))
        h = nn.Dropout(self.dropout, deterministic=not train)(concat_elu(h))
        g = conv(2 * self.width, kernel_init=_small, name="conv_2")(look(h))
        if cond is not None:
            g = g + Dense(2 * self.width, use_bias=False, name="cond")(cond)[:, None, None]
        signal, opening = jnp.split(g, 2, axis=-1)
        return y + signal * jax.nn.sigmoid(opening)


class _Stream(nn.Module):
    """The blocks of one stream, and the ways between its scales."""

    width: int
    blocks: int
    scales: int
    extent: tuple[int, int]
    dropout: float

    def setup(self) -> None:
        block = lambda: _Block(self.width, self.extent, self.dropout)
        last = self.scales - 1
        self.down = [[block() for _ in range(self.blocks)] for _ in range(self.scales)]
        self.up = [[block() for _ in range(self.blocks + (k < last))] for k in range(self.scales)]
        self.shrink = [Conv(self.width, self.extent, strides=2, padding="VALID") for _ in range(last)]
        self.widen = [Dense(4 * self.width) for _ in range(last)]

    def grow(self, k: int, y: Array) -> Array:
        """From scale k + 1 to scale k."""
        return ops.depth_to_space(self.widen[k](y), 2)

    def scale(
        self, k: int, y: Array, aside: Iterable[Array | None], cond: Array | None, look: Look, deeper: Look, train: bool
    ) -> list[Array]:
        """What each block of scale k makes; `deeper` leads from what `shrink` sees through the coarser scales."""
        others, skips, made = iter(aside), [y], []
        for block in self.down[k]:
            y = block(y, next(others), cond, look, train)
            skips.append(y)
            made.append(y)
        y = deeper(look(y)) if k + 1 < self.scales else skips.pop()
        for block in self.up[k]:
            parts = [a for a in (next(others), skips.pop()) if a is not None]
            y = block(y, jnp.concatenate(parts, axis=-1), cond, look, train)
            made.append(y)
        return made


def _whole(
    stream: _Stream, y: Array, aside: Sequence[Iterable[Array | None]], cond: Array | None, train: bool, k: int = 0
) -> list[list[Array]]:
    """What all blocks make of whole images, by scale from k on."""
    sides = (1, stream.extent[1] - 2)
    look = lambda y: jnp.pad(y, ((0, 0), (1, 0), sides, (0, 0)))
    below: list[list[Array]] = []

    def deeper(seen: Array) -> Array:
        below.extend(_whole(stream, stream.shrink[k](seen), aside[1:], cond, train, k + 1))
        return stream.grow(k, below[0][-1])[:, : y.shape[1], : y.shape[2]]

    made = stream.scale(k, y, aside[0], cond, look, deeper, train)
    return [made, *below]


class _Rows(NamedTuple):
    """Where u walks: the examples that move, and the row of each."""

    move: Bool[Array, " b"]
    row: Int[Array, " b"]

    def look(self, past: Array, y: Array) -> tuple[Array, Array]:
        """(what a convolution sees around y, what it remembers then)."""
        seen = jnp.pad(jnp.concatenate([past, y], axis=1), ((0, 0), (0, 0), (1, 1), (0, 0)))
        return seen, hold(self.move, y, past)

    def keep(self, old: Array, new: Array) -> Array:
        """What is kept of an output."""
        return hold(self.move, new, old)

    def coarser(self) -> "_Rows":
        """Where it walks one scale down."""
        return _Rows(self.move & (self.row % 2 == 0), self.row // 2)

    def above(self, kept: Array) -> Array:
        """The output of the next scale that covers this place."""
        return kept

    def within(self, grown: Array, width: int) -> Array:
        """This place's part of it, grown."""
        return raster.window(grown, [self.row % 2], [jnp.full_like(self.row, j) for j in range(width)])


class _Pixels(NamedTuple):
    """Where v walks; as `_Rows`, one pixel at a time."""

    move: Bool[Array, " b"]
    row: Int[Array, " b"]
    column: Int[Array, " b"]

    def look(self, past: Array, y: Array) -> tuple[Array, Array]:
        """See `_Rows`."""
        past = raster.write(past, self.row % 2, self.column + 1, self.move, y[:, 0, 0])
        return raster.window(past, [(self.row + 1) % 2, self.row % 2], raster.span(self.column, 2)), past

    def keep(self, old: Array, new: Array) -> Array:
        """See `_Rows`."""
        return raster.write(old, jnp.zeros_like(self.row), self.column, self.move, new[:, 0, 0])

    def coarser(self) -> "_Pixels":
        """See `_Rows`."""
        first = (self.row % 2 == 0) & (self.column % 2 == 0)
        return _Pixels(self.move & first, self.row // 2, self.column // 2)

    def above(self, kept: Array) -> Array:
        """See `_Rows`."""
        return raster.window(kept, [jnp.zeros_like(self.row)], [self.column // 2])

    def within(self, grown: Array, width: int) -> Array:
        """See `_Rows`."""
        return raster.window(grown, [self.row % 2], [self.column % 2])


def _walk(
    stream: _Stream,
    y: Array,
    aside: Sequence[Iterable[Array | None]],
    cond: Array | None,
    memory: tuple[Scale, ...],
    at: _Rows | _Pixels,
    k: int = 0,
) -> tuple[Array, tuple[Scale, ...]]:
    """The output of scale k where the stream walks, and what is remembered then of it and the coarser ones."""
    inputs, after, below = iter(memory[0].inputs), [], list(memory[1:])

    def look(y: Array) -> Array:
        seen, past = at.look(next(inputs), y)
        after.append(past)
        return seen

    def deeper(seen: Array) -> Array:
        where = at.coarser()

        def walk(kept: tuple[Scale, ...]) -> tuple[Scale, ...]:
            return _walk(stream, stream.shrink[k](seen), aside[1:], cond, kept, where, k + 1)[1]

        below[:] = jax.lax.cond(jnp.any(where.move), walk, lambda kept: kept, memory[1:])
        return at.within(stream.grow(k, at.above(below[0].made[-1])), y.shape[2])

    made = stream.scale(k, y, aside[0], cond, look, deeper, False)
    kept = zip(memory[0].made, made[-len(memory[0].made) :], strict=True)
    return made[-1], (Scale(tuple(after), tuple(at.keep(old, new) for old, new in kept)), *below)


class _Parts(NamedTuple):
    u: _Stream
    v: _Stream
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
        x: Int[Array, "b h w c"],
        t: None = None,
        cond: Float[Array, "b k"] | None = None,
        *,
        out: int | tuple[int, ...],
        train: bool = False,
    ) -> Float[Array, "b h w *o"]:
        """Maps images of integers, one place late, to float32 outputs [b, h, w, *o].

        Args:
            x: integers 0 ... levels - 1; the first of each image is the start, whatever it is.
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
            u = _whole(parts.u, parts.rows(image[:, : h + 1]), [repeat(None)] * self.scales, cond, train)
            v = parts.above(image[:, 1 : h + 1]) + parts.left(image[:, 1:, :w])
            return parts.finish(_whole(parts.v, v, u, cond, train)[0][-1])

        return self.build(run, (out,) if isinstance(out, int) else out[2:])

    @nn.compact
    def build(self, run: Callable[[_Parts], Any], out: tuple[int, ...]) -> Any:
        """Gives the parts, with their parameters, to a function that puts them together."""
        stream = lambda name, *extent: _Stream(
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
            here = _take(memory, x, move, grid[1], self.levels)
            both: Any = self.apply(params, lambda parts: _step(parts, here, move, grid[1], cond), each, method="build")
            return both

        return stepwise(step, lambda num: self._begin(num, grid, channels))

    @nn.nowrap
    def _begin(self, num: int, grid: tuple[int, ...], channels: int) -> Walked:
        """What is remembered of nothing."""
        h, w = grid

        def scales(high: int, side: int, every: bool) -> tuple[Scale, ...]:
            stream, columns = [], w
            for k in range(self.scales):
                finer = k + 1 < self.scales
                row = lambda rows, side, c, columns=columns: jnp.zeros((num, rows, columns + side, c))
                sizes = [2 * self.width] * (2 * self.blocks)
                sizes += [self.width] * finer + [2 * self.width] * (2 * (self.blocks + finer))
                made = 2 * self.blocks + finer if every else 1
                inputs = tuple(row(high, side, c) for c in sizes)
                stream.append(Scale(inputs, tuple(row(1, 0, self.width) for _ in range(made))))
                columns = -(-columns // 2)
            return tuple(stream)

        image = jnp.zeros((num, h + 2, w + 2, channels + 1))
        return Walked(image, scales(1, 0, True), scales(2, 1, False), jnp.zeros(num, jnp.int32))


def _take(memory: Walked, x: Int[Array, "b c"], move: Array, width: int, levels: int) -> Walked:
    """Writes the pixel before this place into the image, where there is one."""
    row, column = (memory.place - 1) // width, (memory.place - 1) % width
    there = move & (memory.place > 0)
    image = raster.write(memory.image, row + 2, column + 1, there, raster.features(x, levels))
    return Walked(image, memory.u, memory.v, memory.place)


def _step(parts: _Parts, memory: Walked, move: Array, width: int, cond: Array | None) -> tuple[Array, Walked]:
    """The output [b, *o] at the next pixel, and what is remembered then; its image is that up to there already."""
    row, column = memory.place // width, memory.place % width
    begins, columns = move & (column == 0), [jnp.full_like(column, j) for j in range(width + 2)]

    def next_row(u: tuple[Scale, ...]) -> tuple[Scale, ...]:
        y = parts.rows(raster.window(memory.image, raster.span(row, 2), columns))
        return _walk(parts.u, y, [repeat(None)] * len(u), cond, u, _Rows(begins, row))[1]

    u = jax.lax.cond(jnp.any(begins), next_row, lambda u: u, memory.u)
    aside = [
        [raster.window(y, [jnp.zeros_like(row)], [column // 2**k]) for y in scale.made]
        for k, scale in enumerate(u)
    ]
    image = raster.window(memory.image, raster.span(row + 1, 2), raster.span(column, 3))
    y = parts.above(image[:, :1]) + parts.left(image[:, :, :1])
    y, v = _walk(parts.v, y, aside, cond, memory.v, _Pixels(move, row, column))
    return parts.finish(y)[:, 0, 0], Walked(memory.image, u, v, memory.place + move)
