"""A stream of gated residual blocks over several scales, for whole images or incrementally; PixelCNN++ has two.

    r(y, a) = y + g_1 sigmoid(g_2),     g = C_2 * phi(C_1 * phi(y) + A phi(a)) + B c,     phi(y) = elu([y, -y]),

with dropout before C_2 (Salimans et al. 2017, arXiv:1701.05517, section 2.3-2.5 and their code), convolutions of two
rows, their own and the one above. See `pixelcnnpp` for the order of the scales.

For incremental evaluation a convolution of u keeps the row of its inputs above, one of v the current row too. A row of
u is computed when the one above is complete; a coarse row or pixel when the first of its places is reached.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from genjax.core.types import Array, record
from genjax.networks.autoregressive import raster
from genjax.networks.layers import ops
from genjax.networks.layers.incremental import hold
from genjax.networks.layers.linen import Conv, Dense

Context = Callable[[Array], Array]
SideInputs = Sequence[Iterable[Array | None]]  # by scale and block: a

_small = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")


@record
class Scale:
    """Memory of one stream at one scale.

    Attributes:
        inputs: inputs of its convolutions; in u the row above [b, 1, w, c], in v that and the current one, indexed by
            row mod 2, after a column of zeros [b, 2, w + 1, c].
        made: outputs in the current row, [b, 1, w, c]: in u of all blocks, in v of the last.
    """

    inputs: tuple[Float[Array, "b _ _ _"], ...]
    made: tuple[Float[Array, "b 1 w c"], ...]


def concat_elu(y: Float[Array, "*n c"]) -> Float[Array, "*n two_c"]:
    """elu([y, -y])."""
    return jax.nn.elu(jnp.concatenate([y, -y], axis=-1))


class Block(nn.Module):
    """r(y, a), see the module's docstring.

    Attributes:
        width: channels.
        extent: kernel size of the convolutions.
        dropout: rate.
    """

    width: int
    extent: tuple[int, int]
    dropout: float

    @nn.compact
    def __call__(self, y: Array, a: Array | None, cond: Array | None, context: Context, train: bool) -> Array:
        """Applies the block.

        Args:
            y: features [b, h, w, c].
            a: side input of the same size, or None.
            cond: conditioning vector, or None.
            context: pads the input of a convolution with its context.
            train: whether dropout is on.

        Returns:
            r(y, a).
        """
        conv = lambda features, **options: Conv(features, self.extent, padding="VALID", **options)
        h = conv(self.width, name="conv_1")(context(concat_elu(y)))
        if a is not None:
            h = h + Dense(self.width, use_bias=False, name="aside")(concat_elu(a))
        h = nn.Dropout(self.dropout, deterministic=not train)(concat_elu(h))
        g = conv(2 * self.width, kernel_init=_small, name="conv_2")(context(h))
        if cond is not None:
            g = g + Dense(2 * self.width, use_bias=False, name="cond")(cond)[:, None, None]
        signal, gates = jnp.split(g, 2, axis=-1)
        return y + signal * jax.nn.sigmoid(gates)


class Stream(nn.Module):
    """The blocks of one stream, and the resampling between its scales.

    Attributes:
        width: channels.
        blocks: number of blocks per scale on the way down; on the way up one more, except at the coarsest.
        scales: number of scales; 1 for no downsampling.
        extent: kernel size of the convolutions, (2, 3) for rows, (2, 2) for pixels.
        dropout: rate.
    """

    width: int
    blocks: int
    scales: int
    extent: tuple[int, int]
    dropout: float

    def setup(self) -> None:
        """Makes the submodules, by scale."""
        block = lambda: Block(self.width, self.extent, self.dropout)
        last = self.scales - 1
        self.down = [[block() for _ in range(self.blocks)] for _ in range(self.scales)]
        self.up = [[block() for _ in range(self.blocks + (k < last))] for k in range(self.scales)]
        self.shrink = [Conv(self.width, self.extent, strides=2, padding="VALID") for _ in range(last)]
        self.widen = [Dense(4 * self.width) for _ in range(last)]

    def upsample(self, k: int, y: Array) -> Array:
        """Upsamples from scale k + 1 to scale k."""
        return ops.depth_to_space(self.widen[k](y), 2)

    def scale(
        self,
        k: int,
        y: Array,
        aside: Iterable[Array | None],
        cond: Array | None,
        context: Context,
        deeper: Context,
        train: bool,
    ) -> list[Array]:
        """Applies the blocks of scale k.

        Args:
            k: index of the scale, 0 is the finest.
            y: features of this scale.
            aside: side input of each block, or None.
            cond: conditioning vector, or None.
            context: pads the input of a convolution with its context.
            deeper: the coarser scales, from the input of `shrink` to the upsampled result.
            train: whether dropout is on.

        Returns:
            The output of each block.
        """
        others, skips, made = iter(aside), [y], []
        for block in self.down[k]:
            y = block(y, next(others), cond, context, train)
            skips.append(y)
            made.append(y)
        y = deeper(context(y)) if k + 1 < self.scales else skips.pop()
        for block in self.up[k]:
            parts = [a for a in (next(others), skips.pop()) if a is not None]
            y = block(y, jnp.concatenate(parts, axis=-1), cond, context, train)
            made.append(y)
        return made


def apply_whole(
    stream: Stream,
    y: Array,
    aside: SideInputs,
    cond: Array | None,
    train: bool,
    k: int = 0,
) -> list[list[Array]]:
    """Applies a stream to whole images.

    Args:
        stream: the bound module.
        y: features [b, h, w, c] at scale k.
        aside: side inputs by scale, from k on, and block.
        cond: conditioning vector, or None.
        train: whether dropout is on.
        k: first scale.

    Returns:
        Outputs of all blocks, by scale from k on.
    """
    sides = (1, stream.extent[1] - 2)
    context = lambda y: jnp.pad(y, ((0, 0), (1, 0), sides, (0, 0)))
    below: list[list[Array]] = []

    def deeper(seen: Array) -> Array:
        below.extend(apply_whole(stream, stream.shrink[k](seen), aside[1:], cond, train, k + 1))
        return stream.upsample(k, below[0][-1])[:, : y.shape[1], : y.shape[2]]

    made = stream.scale(k, y, aside[0], cond, context, deeper, train)
    return [made, *below]


def blank(num: int, width: int, blocks: int, columns: list[int], rows: bool) -> tuple[Scale, ...]:
    """The initial memory of a stream.

    Args:
        num: number of examples.
        width: channels.
        blocks: as `Stream.blocks`.
        columns: number of columns at each scale.
        rows: whether the stream advances by rows (u) or by pixels (v).

    Returns:
        Zeros for each scale.
    """
    scales = []
    for k, w in enumerate(columns):
        finer = k + 1 < len(columns)
        down, up = blocks, blocks + finer
        sizes = [2 * width] * (2 * down) + [width] * finer + [2 * width] * (2 * up)
        inputs = tuple(jnp.zeros((num, 1, w, c) if rows else (num, 2, w + 1, c)) for c in sizes)
        made = tuple(jnp.zeros((num, 1, w, width)) for _ in range(down + up if rows else 1))
        scales.append(Scale(inputs, made))
    return tuple(scales)


def at(row: Float[Array, "b 1 w c"], column: Int[Array, " b"]) -> Float[Array, "b 1 1 c"]:
    """Entry of a row at the column of each example."""
    return jnp.take_along_axis(row, column[:, None, None, None], axis=2)


class Rows(NamedTuple):
    """Position of u: the active examples, and the row of each."""

    active: Bool[Array, " b"]
    row: Int[Array, " b"]

    def context(self, past: Array, y: Array) -> tuple[Array, Array]:
        """(y with its context for a convolution, the new memory)."""
        seen = jnp.pad(jnp.concatenate([past, y], axis=1), ((0, 0), (0, 0), (1, 1), (0, 0)))
        return seen, hold(self.active, y, past)

    def keep(self, old: Array, new: Array) -> Array:
        """Stores an output."""
        return hold(self.active, new, old)

    def coarser(self) -> "Rows":
        """The position at the next coarser scale."""
        return Rows(self.active & (self.row % 2 == 0), self.row // 2)

    def above(self, kept: Array) -> Array:
        """The output of the next coarser scale that covers this place."""
        return kept

    def within(self, grown: Array, width: int) -> Array:
        """This place's part of the upsampled output."""
        return jnp.take_along_axis(grown, (self.row % 2)[:, None, None, None], axis=1)[:, :, :width]


class Pixels(NamedTuple):
    """Position of v; as `Rows`, one pixel at a time."""

    active: Bool[Array, " b"]
    row: Int[Array, " b"]
    column: Int[Array, " b"]

    def context(self, past: Array, y: Array) -> tuple[Array, Array]:
        """See `Rows`."""
        past = raster.write(past, self.row % 2, self.column + 1, self.active, y[:, 0, 0])
        rows = (raster.span(self.row, 2) + 1) % 2  # the one above first
        return raster.window(past, rows, raster.span(self.column, 2)), past

    def keep(self, old: Array, new: Array) -> Array:
        """See `Rows`."""
        return raster.write(old, jnp.zeros_like(self.row), self.column, self.active, new[:, 0, 0])

    def coarser(self) -> "Pixels":
        """See `Rows`."""
        first = (self.row % 2 == 0) & (self.column % 2 == 0)
        return Pixels(self.active & first, self.row // 2, self.column // 2)

    def above(self, kept: Array) -> Array:
        """See `Rows`."""
        return at(kept, self.column // 2)

    def within(self, grown: Array, width: int) -> Array:
        """See `Rows`."""
        return raster.window(grown, raster.span(self.row % 2), raster.span(self.column % 2))


def apply_step(
    stream: Stream,
    y: Array,
    aside: SideInputs,
    cond: Array | None,
    memory: tuple[Scale, ...],
    here: Rows | Pixels,
    k: int = 0,
) -> tuple[Array, tuple[Scale, ...]]:
    """Applies a stream at one row or pixel.

    Args:
        stream: the bound module.
        y: features of the row or pixel at scale k.
        aside: side inputs by scale, from k on, and block.
        cond: conditioning vector, or None.
        memory: of scales k, k + 1, ...
        here: the position at scale k.
        k: first scale.

    Returns:
        (the output of scale k there, the new memory).
    """
    inputs, after, below = iter(memory[0].inputs), [], list(memory[1:])

    def context(y: Array) -> Array:
        seen, past = here.context(next(inputs), y)
        after.append(past)
        return seen

    def deeper(seen: Array) -> Array:
        where = here.coarser()

        def further(kept: tuple[Scale, ...]) -> tuple[Scale, ...]:
            return apply_step(stream, stream.shrink[k](seen), aside[1:], cond, kept, where, k + 1)[1]

        below[:] = jax.lax.cond(jnp.any(where.active), further, lambda kept: kept, memory[1:])
        return here.within(stream.upsample(k, here.above(below[0].made[-1])), y.shape[2])

    made = stream.scale(k, y, aside[0], cond, context, deeper, False)
    kept = zip(memory[0].made, made[-len(memory[0].made) :], strict=True)
    return made[-1], (Scale(tuple(after), tuple(here.keep(old, new) for old, new in kept)), *below)
