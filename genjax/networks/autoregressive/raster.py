"""Helpers for autoregressive networks over images in raster order.

Inputs of an autoregressive network are shifted by one place. Shifted back they are the image without its last
pixel, which no output may see; so a network can be written as in its paper, with zeros outside the image and a
channel of ones inside, and is causal if its output at (i, j) sees pixels before (i, j) only.
"""

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Shaped

from genjax.core.errors import UserError
from genjax.core.types import Array

Index = Int[Array, " b"]
Pixels = Int[Array, "b h w c"] | Float[Array, "b h w c"]


def check_image(name: str, shape: tuple[int, ...], out: int | tuple[int, ...]) -> None:
    """Checks the shapes of an example and of the output.

    Args:
        name: name of the network, for the message.
        shape: shape of an example.
        out: features, or (h, w, *features).

    Raises:
        UserError: unless `shape` is (h, w, c), and `out` an integer or (h, w, *features).
    """
    if len(shape) != 3:
        raise UserError(f"a {name} is for images, not for examples of shape {shape}")
    if isinstance(out, tuple) and out[:2] != shape[:2]:
        raise UserError(f"this network keeps the shape {shape[:2]}, so out={out} should begin with it")


def features(x: Int[Array, "b *n c"] | Float[Array, "b *n c"], levels: int) -> Float[Array, "b *n d"]:
    """Scales integers 0 ... levels - 1 to -1 ... 1, float32, and appends a channel of ones."""
    scaled = 2.0 * x.astype(jnp.float32) / (levels - 1) - 1.0
    return jnp.concatenate([scaled, jnp.ones_like(scaled[..., :1])], axis=-1)


def shift_back(shifted: Pixels, levels: int) -> Float[Array, "b h w d"]:
    """The `features` of a shifted image, shifted back; zeros at its last pixel."""
    b, h, w, c = shifted.shape
    flat = features(shifted.reshape(b, h * w, c)[:, 1:], levels)
    return jnp.pad(flat, ((0, 0), (0, 1), (0, 0))).reshape(b, h, w, c + 1)


def window(array: Shaped[Array, "b h w c"], i: Int[Array, "b k"], j: Int[Array, "b l"]) -> Array:
    """Gathers rows and columns of each example.

    Args:
        array: any array.
        i: rows.
        j: columns.

    Returns:
        array[b, i[b, k], j[b, l]], [b, k, l, c].
    """
    return array[jnp.arange(len(array))[:, None, None], i[:, :, None], j[:, None, :]]


def span(first: Index, size: int = 1) -> Int[Array, "b k"]:
    """first, first + 1, ..., `size` of them."""
    return first[:, None] + jnp.arange(size)[None]


def write(
    array: Shaped[Array, "b h w c"],
    row: Index,
    column: Index,
    active: Bool[Array, " b"],
    value: Shaped[Array, "b c"],
) -> Array:
    """Writes one entry per active example.

    Args:
        array: any array.
        row: row of each example.
        column: column of each example.
        active: examples to write.
        value: value of each example.

    Returns:
        The updated array.
    """
    row = jnp.where(active, row, array.shape[1])
    return array.at[jnp.arange(len(array)), row, column].set(value, mode="drop")


def reveal(
    image: Float[Array, "b h w c"],
    place: Index,
    active: Bool[Array, " b"],
    x: Float[Array, "b c"],
    width: int,
    margin: tuple[int, int],
) -> Array:
    """Writes the input at each place, which is the pixel before it, unless the place is 0.

    Args:
        image: padded image.
        place: place of each example.
        active: examples to write.
        x: `features` of the pixel.
        width: number of columns without margins.
        margin: (rows, columns) before the first pixel.

    Returns:
        The image.
    """
    row, column = (place - 1) // width + margin[0], (place - 1) % width + margin[1]
    return write(image, row, column, active & (place > 0), x)
