"""Images read pixel by pixel, in the order of rows: what networks that walk them share.

Inputs of an autoregressive network come one place late. Shifted back they are the image itself, all of it but its last
pixel, which no output may see; so a network can be written as its paper has it, with zeros outside the image and a
channel of ones inside, and is causal if its output at (i, j) sees pixels before (i, j) only.
"""

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Shaped

from genjax.core.errors import UserError
from genjax.core.types import Array

Index = Int[Array, " b"]
Pixels = Int[Array, "b h w c"] | Float[Array, "b h w c"]


def check_image(name: str, shape: tuple[int, ...], out: int | tuple[int, ...]) -> None:
    """Refuses what is no image, and an output on another grid.

    Args:
        name: of the network.
        shape: of an example.
        out: features, or (h, w, *features).

    Raises:
        UserError: see above.
    """
    if len(shape) != 3:
        raise UserError(f"a {name} is for images, not for examples of shape {shape}")
    if isinstance(out, tuple) and out[:2] != shape[:2]:
        raise UserError(f"this network keeps the shape {shape[:2]}, so out={out} should begin with it")


def features(x: Int[Array, "b *n c"] | Float[Array, "b *n c"], levels: int) -> Float[Array, "b *n d"]:
    """Integers 0 ... levels - 1 as -1 ... 1, float32, and one channel more, of ones."""
    scaled = 2.0 * x.astype(jnp.float32) / (levels - 1) - 1.0
    return jnp.concatenate([scaled, jnp.ones_like(scaled[..., :1])], axis=-1)


def on_time(late: Pixels, levels: int) -> Float[Array, "b h w d"]:
    """The `features` of an image that comes one place late; zeros in the place of its last pixel."""
    b, h, w, c = late.shape
    flat = features(late.reshape(b, h * w, c)[:, 1:], levels)
    return jnp.pad(flat, ((0, 0), (0, 1), (0, 0))).reshape(b, h, w, c + 1)


def window(canvas: Shaped[Array, "b h w c"], i: Int[Array, "b k"], j: Int[Array, "b l"]) -> Array:
    """canvas[b, i[b, k], j[b, l]] for each example b, [b, k, l, c]."""
    return canvas[jnp.arange(len(canvas))[:, None, None], i[:, :, None], j[:, None, :]]


def span(first: Index, size: int = 1) -> Int[Array, "b k"]:
    """first, first + 1, ..., `size` of them."""
    return first[:, None] + jnp.arange(size)[None]


def write(
    canvas: Shaped[Array, "b h w c"],
    row: Index,
    column: Index,
    move: Bool[Array, " b"],
    value: Shaped[Array, "b c"],
) -> Array:
    """The canvas with the value of each example that moves at its (row, column)."""
    row = jnp.where(move, row, canvas.shape[1])
    return canvas.at[jnp.arange(len(canvas)), row, column].set(value, mode="drop")


def reveal(
    image: Float[Array, "b h w c"],
    place: Index,
    move: Bool[Array, " b"],
    x: Float[Array, "b c"],
    width: int,
    margin: tuple[int, int],
) -> Array:
    """Writes the pixel before each place, which is what comes there, where there is one.

    Args:
        image: with margins.
        place: of each example.
        move: examples that take it.
        x: the pixel's `features`.
        width: columns without margins.
        margin: (rows, columns) before the first pixel.

    Returns:
        The image.
    """
    row, column = (place - 1) // width + margin[0], (place - 1) % width + margin[1]
    return write(image, row, column, move & (place > 0), x)
