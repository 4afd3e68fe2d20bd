"""One reader of picture files: the array holds what a person sees.

Orientation tags are applied, 16 and 12 bits per channel are scaled to 8, palettes are resolved, and transparent pixels
are composed with a background. What has no one meaning is refused: animations, greys of 32 bits.
"""

import contextlib
import warnings
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from genjax.core.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm", ".pnm")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
FULL = 255
BITS_PER_SAMPLE = 258  # tag of TIFF
GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
Colour = tuple[int, int, int]


@contextlib.contextmanager
def open_picture(file: str) -> Iterator[Image.Image]:
    """Opens a picture file; whatever the library raises in the context becomes a UserError with the file's name.

    Raises:
        UserError: the file cannot be read, is damaged, has more than 179 million pixels, or is an animation.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and odd metadata, which are read all the same
            with Image.open(file) as image:
                if image.format != "MPO" and _animated(image):  # further frames of MPO are previews
                    raise UserError(
                        f"the picture '{file}' has several frames: save each as a file of its own"
                    )
                yield image
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"cannot read the picture '{file}': {_first_line(error)}") from error


def _animated(image: Image.Image) -> bool:
    """Whether there is a second frame."""
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _white(image: Image.Image) -> int:
    """The value of white in an opened file, 0 for pictures of 8 bits per channel.

    Raises:
        UserError: it is unknown.
    """
    if image.mode in GREY_16:
        depth = image.tag_v2.get(BITS_PER_SAMPLE, (16,))[0] if isinstance(image, TiffImageFile) else 16
        return 2**depth - 1
    if image.mode == "I" and image.format == "PPM":
        return 2**16 - 1  # the library scales to it
    if image.mode in ("I", "F"):
        raise UserError(f"greys of mode {image.mode} (32 bits) have no known white: save 8 or 16 bits")
    return 0


def _eight_bits(image: Image.Image, white: int) -> Image.Image:
    """Greys with another value of white, as 8 bits."""
    values = np.asarray(image).astype(np.float64)
    grey = Image.fromarray(np.clip(np.rint(values * (FULL / white)), 0, FULL).astype(np.uint8))
    key = image.info.get("transparency")
    if isinstance(key, int):  # one of the greys is transparent
        grey.putalpha(Image.fromarray(np.where(values == key, 0, FULL).astype(np.uint8)))
    return grey


def _with_alpha(image: Image.Image) -> Image.Image:
    """The picture as "RGBA" if some pixel may be transparent, else as "RGB"."""
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    transparent = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    return image.convert("RGBA" if transparent else "RGB")


def visible(image: Image.Image, channels: int, background: Colour) -> Image.Image:
    """What a person sees of a picture, as 8 bits per channel.

    Args:
        image: an opened picture of any mode.
        channels: 1 grey, 3 RGB, 4 RGB and alpha.
        background: RGB of 0 ... 255 below transparent pixels; with 4 channels, of pixels that are wholly transparent.

    Returns:
        A picture of mode "L", "RGB" or "RGBA".

    Raises:
        UserError: greys whose white is unknown.
    """
    white, upright = _white(image), ImageOps.exif_transpose(image)
    seen = _with_alpha(_eight_bits(upright, white) if white else upright)
    if seen.mode == "RGBA":
        values = np.asarray(seen)
        alpha, below = (
            values[..., 3:].astype(np.float64) / FULL,
            np.asarray(background, np.float64)[None, None],
        )
        if channels == 4:
            colour = np.where(alpha > 0, values[..., :3], below.astype(np.uint8))
            seen = Image.fromarray(np.concatenate([colour, values[..., 3:]], axis=-1).astype(np.uint8))
        else:
            colour = values[..., :3] * alpha + below * (1.0 - alpha)
            seen = Image.fromarray(np.rint(colour).astype(np.uint8))
    return seen.convert(MODES[channels])


def read_picture(
    file: str, size: int, channels: int, background: Colour
) -> UInt8[np.ndarray, "{size} {size} {channels}"]:
    """Reads a picture, cropped to a centred square and resized by Lanczos resampling.

    Args:
        file: its path.
        size: height and width of the result in pixels.
        channels: 1 grey, 3 RGB, 4 RGB and alpha.
        background: see `visible`.

    Returns:
        Values 0 ... 255, [size, size, channels].

    Raises:
        UserError: see `open_picture` and `visible`; the message names the file.
    """
    with open_picture(file) as image:
        try:
            seen = visible(image, channels, background)
        except UserError as error:
            raise UserError(f"cannot read the picture '{file}': {error}") from None
        square = ImageOps.fit(seen, (size, size), Image.Resampling.LANCZOS)
    return np.asarray(square).reshape(size, size, channels)
