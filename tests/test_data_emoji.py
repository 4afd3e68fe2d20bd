"""Emoji from synthetic files: selection, pixels, and one-line errors."""

import json

import numpy as np
import pytest

from genjax.core.errors import UserError
from genjax.data import Emoji, EmojiStyles, LineArt, Source
from genjax.data.sources.emoji import composite_on_white, downsample

pytestmark = pytest.mark.xdist_group("data")

GROUPS = ["Objects"] * 7 + ["Flags", "extras-openmoji", "Objects"]
TONES = [False] * 9 + [True]


def pictures(seed: int, num: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, 64, 64, 4), np.uint8)


def captions(order=range(10)) -> list[dict]:
    """Emoji 0 ... 9: the fourth and fifth are the test split, the last three are excluded."""
    return [
        {
            "key": f"k{i}",
            "group": GROUPS[i],
            "skin_tone": TONES[i],
            "split": "test" if i in (3, 4) else "train",
        }
        for i in order
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("emoji")
    np.savez(root / "twemoji_64x64.npz", images=pictures(0))
    (root / "twemoji_captions.json").write_text(json.dumps(captions()))
    backwards = [9, 8, 7, 6, 5, 4, 3, 1, 0]  # without 2
    np.savez(root / "noto_emoji_64x64.npz", images=pictures(1, 9))
    (root / "noto_emoji_captions.json").write_text(json.dumps(captions(backwards)))
    np.savez(root / "openmoji_64x64.npz", color=pictures(2), line_alpha=pictures(3)[..., 0])
    (root / "openmoji_captions.json").write_text(json.dumps(captions()))
    (root / "bare_captions.json").write_text(json.dumps(captions()))
    np.savez(root / "few_64x64.npz", images=pictures(0, 3))
    (root / "few_captions.json").write_text(json.dumps(captions()))
    np.savez(root / "grey_64x64.npz", images=pictures(0)[..., 0])
    (root / "grey_captions.json").write_text(json.dumps(captions()))
    (root / "cut_captions.json").write_text('[{"key": "k0"')
    (root / "other_captions.json").write_text('{"key": "k0"}')
    (root / "broken_64x64.npz").write_bytes((root / "twemoji_64x64.npz").read_bytes()[:-60])
    (root / "broken_captions.json").write_text(json.dumps(captions()))
    return str(root)


def rows(examples) -> np.ndarray:
    return examples[np.arange(len(examples))]["x"]


def test_images_are_composited_on_white_and_blocks_averaged():
    pixel = lambda *values: np.asarray(values, np.uint8).reshape(1, 1, 1, 4)
    assert composite_on_white(pixel(10, 20, 30, 255)).tolist() == [[[[10, 20, 30]]]]
    assert composite_on_white(pixel(10, 20, 30, 0)).tolist() == [[[[255, 255, 255]]]]
    assert composite_on_white(pixel(0, 100, 255, 51)).tolist() == [[[[204, 224, 255]]]]  # a fifth opaque
    block = np.asarray([[1, 2], [4, 8]], np.uint8).reshape(1, 2, 2, 1)
    assert downsample(block, 1).tolist() == [[[[4]]]]


def test_a_style_excludes_flags_and_skin_tones(root):
    images = composite_on_white(pictures(0))
    source = Emoji(root)
    assert isinstance(source, Source)
    np.testing.assert_array_equal(rows(source.load("train")), images[[0, 1, 2, 5, 6]])
    np.testing.assert_array_equal(rows(source.load("test")), images[[3, 4]])
    toned = Emoji(root, skin_tones=True, size=32)
    np.testing.assert_array_equal(rows(toned.load("train")), downsample(images[[0, 1, 2, 5, 6, 9]], 32))
    assert toned.shape == rows(toned.load("test")).shape[1:]


def test_two_styles_are_joined_by_key(root):
    left, right = composite_on_white(pictures(0)), composite_on_white(pictures(1, 9))
    paired = rows(EmojiStyles(root, paired=True).load("train"))
    np.testing.assert_array_equal(paired, np.concatenate([left[[0, 1, 5, 6]], right[[8, 7, 4, 3]]], axis=2))
    apart = rows(EmojiStyles(root).load("train"))
    np.testing.assert_array_equal(apart, np.concatenate([left[[0, 5]], right[[7, 3]]], axis=2))
    for source in (EmojiStyles(root), EmojiStyles(root, paired=True)):
        test = np.concatenate([left[[3, 4]], right[[6, 5]]], axis=2)
        np.testing.assert_array_equal(rows(source.load("test")), test)


def test_line_art_is_black_on_white_with_its_colour_image(root):
    pairs = rows(LineArt(root).load("test"))
    lines = np.repeat(255 - pictures(3)[[3, 4], ..., :1], 3, axis=-1)
    np.testing.assert_array_equal(
        pairs, np.concatenate([lines, composite_on_white(pictures(2)[[3, 4]])], axis=2)
    )


MISTAKES = {
    "no folder": (
        lambda root: Emoji("nowhere"),
        "no file 'nowhere/twemoji_captions.json': set its folder with config",
    ),
    "no pictures": (lambda root: Emoji(root, "bare"), "no file '.*bare_64x64.npz'"),
    "cut list": (lambda root: Emoji(root, "cut"), "cut_captions.json' is not a list of captions"),
    "no list": (lambda root: Emoji(root, "other"), "other_captions.json' is not a list of captions"),
    "cut pictures": (lambda root: Emoji(root, "broken"), "is not an .npz file, or is damaged"),
    "grey": (lambda root: Emoji(root, "grey"), r"uint8 images \[64, 64, 4\]"),
    "too few": (lambda root: Emoji(root, "few"), "has 3 images"),
    "size": (lambda root: LineArt(root, size=48), "size=48 must divide"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_errors_are_one_line(root, name):
    make, message = MISTAKES[name]
    with pytest.raises(UserError, match=message) as error:
        make(root).load("train")
    assert "\n" not in str(error.value)
