"""Pictures: what a person sees in a file is what the model gets, whatever the file's mode, depth and format."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from genjax.core.errors import UserError
from genjax.data.pictures import SUFFIXES, read_picture

RNG = np.random.default_rng(0)
GREY = RNG.permutation(256).reshape(16, 16).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
ALPHA = RNG.choice([0, 0, 100, 255], (16, 16)).astype(np.uint8)
WHITE = (255, 255, 255)
EXIF_ORIENTATION = 0x0112


def png(rows: np.ndarray, depth: int, kind: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file from its specification: `rows` are big-endian samples [h, w, c] of 8 or 16 bits."""
    chunk = lambda name, data: (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    )
    h, w = rows.shape[:2]
    raw = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", w, h, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff_12_bits(values: np.ndarray) -> bytes:
    """A TIFF file of greys with 12 bits, two in three bytes."""
    pairs = values.reshape(-1, 2).astype(int)
    packed = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1
    )
    data = packed.astype(np.uint8).tobytes()
    h, w = values.shape
    tags = [(256, w), (257, h), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, h), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    start = 8 + len(data)
    return b"II*\0" + struct.pack("<I", start) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def saved(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def palette(image: np.ndarray, colours: np.ndarray) -> Image.Image:
    made = Image.fromarray(image, "L").convert("P")
    made.putpalette(colours.astype(np.uint8).tobytes())
    return made


def pgm(values: np.ndarray, white: int) -> bytes:
    kind = ">u2" if white > 255 else "u1"
    return f"P5 {values.shape[1]} {values.shape[0]} {white}\n".encode() + values.astype(kind).tobytes()


grey, full = Image.fromarray(GREY), np.full_like(GREY, 255)
wide = GREY.astype(np.uint16) * 257
rgb = Image.fromarray(np.stack([GREY] * 3, axis=-1))
FORMS_OF_GREY = {
    **{
        f"{form} {image.mode}": saved(image, form)
        for image in (grey, rgb)
        for form in ("PNG", "BMP", "TIFF", "PPM")
    },
    "GIF": saved(grey, "GIF"),
    "WEBP": saved(rgb, "WEBP", lossless=True),
    "PNG LA": saved(Image.fromarray(np.stack([GREY, full], axis=-1), "LA"), "PNG"),
    "PNG RGBA": saved(rgb.convert("RGBA"), "PNG"),
    "TIFF RGBa": saved(rgb.convert("RGBA"), "TIFF"),
    "PNG palette": saved(palette(255 - GREY, np.repeat(255 - np.arange(256), 3)), "PNG"),
    "PNG 16 bits": saved(Image.fromarray(wide), "PNG"),
    "PNG 16 bits RGB": png(np.stack([wide] * 3, axis=-1), 16, 2),
    "PNG 16 bits grey, alpha": png(np.stack([wide, np.full_like(wide, 65_535)], axis=-1), 16, 4),
    "TIFF 16 bits": saved(Image.fromarray(wide), "TIFF"),
    "PGM": pgm(GREY, 255),
    "PGM 16 bits": pgm(wide, 65_535),
}
NEAR_GREY = {  # white is the same, steps are not
    "PGM 12 bits": pgm(np.rint(GREY * (4095 / 255)), 4095),
    "TIFF 12 bits": tiff_12_bits(np.rint(GREY * (4095 / 255))),
    "PGM 10 bits": pgm(np.rint(GREY * (1023 / 255)), 1023),
    "PNG 16 bits, any low byte": saved(
        Image.fromarray(np.minimum(wide.astype(int) + 60, 65_535).astype(np.uint16)), "PNG"
    ),
}
colour = Image.fromarray(COLOUR)
few = palette(GREY, COLOUR.reshape(256, 3))
FORMS_OF_COLOUR = {
    **{form: saved(colour, form) for form in ("PNG", "BMP", "TIFF", "PPM")},
    "WEBP": saved(colour, "WEBP", lossless=True),
    "PNG 16 bits": png(COLOUR.astype(np.uint16) * 257, 16, 2),
    "PNG RGBA": saved(colour.convert("RGBA"), "PNG"),
}


@pytest.fixture
def read(tmp_path):
    def read(data: bytes, channels: int = 3, background=WHITE, size: int = 16) -> np.ndarray:
        (tmp_path / "picture.png").write_bytes(data)
        return read_picture(str(tmp_path / "picture.png"), size, channels, background)

    return read


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("form", FORMS_OF_GREY)
def test_a_grey_picture_has_one_array(read, form, channels):
    expected = np.concatenate([np.stack([GREY] * 3, axis=-1), full[..., None]], axis=-1)
    expected = expected[..., :channels] if channels != 1 else GREY[..., None]
    np.testing.assert_array_equal(read(FORMS_OF_GREY[form], channels), expected)


@pytest.mark.parametrize("form", NEAR_GREY)
def test_other_depths_agree_to_one_level(read, form):
    found = read(NEAR_GREY[form], 1)[..., 0].astype(int)
    assert np.abs(found - GREY).max() <= 1
    assert found.max() == 255


@pytest.mark.parametrize("form", FORMS_OF_COLOUR)
def test_a_colour_picture_has_one_array(read, form):
    np.testing.assert_array_equal(read(FORMS_OF_COLOUR[form]), COLOUR)


def test_palettes_are_resolved(read):
    np.testing.assert_array_equal(read(saved(few, "PNG")), COLOUR.reshape(256, 3)[GREY])
    np.testing.assert_array_equal(read(saved(few, "GIF")), COLOUR.reshape(256, 3)[GREY])


def test_black_and_white_is_0_and_255(read):
    bits = Image.fromarray(GREY > 127)
    for form in ("PNG", "TIFF", "BMP", "PPM"):
        np.testing.assert_array_equal(read(saved(bits, form), 1)[..., 0], np.where(GREY > 127, 255, 0))


def test_lab_is_converted(read):
    """Neutral greys of CIELAB are neutral, and lighter ones are lighter."""
    lab = np.zeros((16, 16, 3), np.uint8)
    lab[..., 0] = np.arange(0, 256, 16)[:, None]
    found = read(saved(Image.fromarray(lab, "LAB"), "TIFF"))[:, 0].astype(int)
    assert np.abs(found - found[:, :1]).max() <= 2
    assert (np.diff(found[:, 0]) > 0).all()


def test_cmyk_is_pillows_conversion(read):
    ink = Image.fromarray(RNG.integers(0, 256, (16, 16, 4), dtype=np.uint8), "CMYK")
    np.testing.assert_array_equal(read(saved(ink, "TIFF")), np.asarray(ink.convert("RGB")))


@pytest.mark.parametrize("background", [WHITE, (10, 200, 30)], ids=str)
def test_transparent_pixels_show_the_background(read, background):
    """The composition formula, for every form of transparency; hidden colours do not matter."""
    pixels = np.concatenate([COLOUR, ALPHA[..., None]], axis=-1)
    part = ALPHA[..., None].astype(np.float64) / 255
    expected = np.rint(COLOUR * part + np.array(background) * (1 - part))
    other = np.where(ALPHA[..., None] == 0, 255 - pixels, pixels)
    other[..., 3] = ALPHA
    for image in (pixels, other):
        for form in ("PNG", "TIFF"):
            np.testing.assert_array_equal(
                read(saved(Image.fromarray(image), form), background=background), expected
            )
    lossless = saved(Image.fromarray(pixels), "WEBP", lossless=True, exact=True)
    np.testing.assert_array_equal(read(lossless, background=background), expected)
    np.testing.assert_array_equal(
        read(saved(Image.fromarray(pixels), "PNG"), 4), read(saved(Image.fromarray(other), "PNG"), 4)
    )
    np.testing.assert_array_equal(read(saved(Image.fromarray(pixels), "PNG"), 4)[..., 3], ALPHA)


def test_keys_of_transparency_show_the_background(read):
    """One grey, one RGB colour, or palette entries, are transparent: with 8 and with 16 bits."""
    below = np.array([10, 200, 30])
    rows = lambda found, key: np.where(key[..., None], below, found)
    g = GREY[..., None]
    for data, shown, key in (
        (png(g, 8, 0, (b"tRNS", struct.pack(">H", 7))), np.repeat(g, 3, -1), GREY == 7),
        (png(wide[..., None], 16, 0, (b"tRNS", struct.pack(">H", 7 * 257))), np.repeat(g, 3, -1), GREY == 7),
        (
            png(COLOUR, 8, 2, (b"tRNS", struct.pack(">HHH", *COLOUR[3, 4].tolist()))),
            COLOUR,
            (COLOUR[3, 4] == COLOUR).all(-1),
        ),
        (saved(few, "PNG", transparency=5), COLOUR.reshape(256, 3)[GREY], GREY == 5),
        (saved(few, "GIF", transparency=5), COLOUR.reshape(256, 3)[GREY], GREY == 5),
    ):
        np.testing.assert_array_equal(read(data, background=(10, 200, 30)), rows(shown, key))


def test_resizing_mixes_no_hidden_colour(read):
    """A black disc on transparent red, scaled down: no red, with or without alpha."""
    disc = np.zeros((16, 16, 4), np.uint8)
    disc[..., 0], disc[4:12, 4:12] = 255, (0, 0, 0, 255)
    data = saved(Image.fromarray(disc), "PNG")
    small = read(data, size=5)
    assert (small[..., 0] == small[..., 1]).all()
    small = read(data, 4, background=(0, 0, 0), size=5)
    assert small[..., 0].max() == 0


@pytest.mark.parametrize("number", range(1, 9))
def test_orientation_tags_are_applied(read, number):
    """EXIF 2.32, tag 0x0112: rows and columns of the stored picture, from which side."""
    stored = {1: COLOUR, 2: COLOUR[:, ::-1], 3: COLOUR[::-1, ::-1], 4: COLOUR[::-1]}
    turned = COLOUR.swapaxes(0, 1)
    stored |= {5: turned, 6: turned[::-1], 7: turned[::-1, ::-1], 8: turned[:, ::-1]}
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = number
    for form, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        data = saved(Image.fromarray(np.ascontiguousarray(stored[number])), form, exif=exif, **options)
        np.testing.assert_array_equal(read(data), COLOUR)


frames = {"save_all": True, "append_images": [Image.fromarray(255 - COLOUR)]}
REFUSED = {
    "GIF, animated": (saved(colour, "GIF", **frames), "several frames"),
    "PNG, animated": (saved(colour, "PNG", **frames), "several frames"),
    "WEBP, animated": (saved(colour, "WEBP", **frames), "several frames"),
    "TIFF of two pages": (saved(colour, "TIFF", **frames), "several frames"),
    "floating point": (saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "no known white"),
    "32 bits": (saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "no known white"),
    "200 million pixels": (png(np.zeros((1, 1, 1)), 8, 0)[:16] + struct.pack(">II", 20_000, 10_000), ""),
    "empty": (b"", ""),
    "text": (b"not a picture", ""),
    "cut": (FORMS_OF_COLOUR["PNG"][:-40], ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_one_meaning_is_refused_in_one_line(read, name):
    data, words = REFUSED[name]
    with pytest.raises(UserError, match=r"picture\.png.*" + words) as error:
        read(data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mode", ["jpeg", "mpo"])
def test_photographs_are_read(read, mode):
    smooth = np.linspace(0, 255, 16 * 16 * 3).reshape(16, 16, 3).astype(np.uint8)
    options = (
        {}
        if mode == "jpeg"
        else {"save_all": True, "append_images": [Image.fromarray(smooth[::2, ::2].copy())]}
    )
    assert np.abs(read(saved(Image.fromarray(smooth), mode, **options)).astype(int) - smooth).max() < 40


@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "GIF", "JPEG"])
def test_damaged_files_are_read_or_refused_in_one_line(read, name, request):
    """Bytes changed, cut out, repeated: an array, or one line with the file's name. `--fuzz=N` files of each format."""
    data = bytearray(saved(colour, name))
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for _ in range(request.config.getoption("--fuzz")):
        now = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            place, length = int(rng.integers(len(now))), int(rng.integers(1, 9))
            kind = rng.integers(4)
            if kind == 0:
                now[place : place + length] = rng.bytes(length)
            elif kind == 1:
                del now[place : place + length]
            elif kind == 2:
                now[place:place] = rng.bytes(length)
            else:
                del now[place:]
            now = now or bytearray(b"x")
        try:
            found = read(bytes(now)).shape == (16, 16, 3)
        except UserError as error:
            found = "picture.png" in str(error) and "\n" not in str(error)
        assert found


def test_every_suffix_is_one_that_the_library_reads():
    Image.init()
    assert set(SUFFIXES) <= set(Image.registered_extensions())
    assert len(set(itertools.chain(SUFFIXES))) == len(SUFFIXES)
