"""Sources: loaded data equal the files', splits are declared and disjoint, errors are one line."""

import calendar
import dataclasses
import heapq
import io
import json
import json.decoder
import pathlib
import zipfile
import zlib

import numpy as np
import pytest
import tfds_files
from PIL import Image
from sklearn.datasets import load_digits

from genjax.core.errors import UserError
from genjax.data import TFDS, Digits, ImageFolder, Lines, Npz, Source, StdlibBytes, TextFile, Vocabulary
from genjax.data.source import split_rows

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (10, 4, 5, 1), dtype=np.uint8)
LABELS = (np.arange(10) % 3).astype(np.int64)
PLAY = "To be, or not to be: that is the question.\nWhether 'tis nobler ...\n" * 30


def rows(examples) -> dict[str, np.ndarray]:
    return examples[np.arange(len(examples))]


def multiset(x: np.ndarray) -> list[bytes]:
    return sorted(row.tobytes() for row in x)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with .npz files, images, text, and data sets in TFDS's format."""
    root = tmp_path_factory.mktemp("data")
    np.savez(
        root / "split.npz", x_train=PICTURES[:7], x_test=PICTURES[7:], y_train=LABELS[:7], y_test=LABELS[7:]
    )
    np.savez_compressed(
        root / "whole.npz", images=PICTURES[..., 0], wave=RNG.normal(size=(10, 6)), LABELS=LABELS
    )
    (root / "cut.npz").write_bytes((root / "split.npz").read_bytes()[:-60])
    broken = bytearray((root / "split.npz").read_bytes())
    broken[200] ^= 1
    (root / "broken.npz").write_bytes(bytes(broken))
    (root / "play.txt").write_text(PLAY + "é")
    for i, (picture, label) in enumerate(zip(PICTURES, LABELS, strict=True)):
        for folder in (
            root / "classes" / "abc"[label],
            root / "sets" / ("train" if i < 7 else "test") / "abc"[label],
        ):
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.tile(picture[:, :4, 0], (2, 2))).save(folder / f"{i}.png")
    (root / "empty").mkdir()
    (root / "bad" / "a").mkdir(parents=True)
    for name in ("1.png", "2.png"):
        (root / "bad" / "a" / name).write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    tfds_files.write(
        root, "tiny", image_features(), {"train": encoded(range(7)), "test": encoded(range(7, 10))}
    )
    tfds_files.write(root, "lonely", image_features(), {"train": encoded(range(10))})
    tfds_files.write(
        root,
        "play",
        text_features(),
        {"train": [{"text": PLAY}], "test": [{"text": "to be"}, {"text": "or"}]},
    )
    return root


def image_features():
    import tensorflow_datasets as tfds

    image, label = tfds.features.Image(shape=(4, 5, 1)), tfds.features.ClassLabel(num_classes=3)
    return tfds.features.FeaturesDict({"image": image, "label": label})


def text_features():
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict({"text": tfds.features.Text()})


def encoded(indices) -> list[dict]:
    """Examples as TFDS stores them: images are PNG."""
    examples = []
    for i in indices:
        png = io.BytesIO()
        Image.fromarray(PICTURES[i, :, :, 0]).save(png, "png")
        examples.append({"image": png.getvalue(), "label": int(LABELS[i])})
    return examples


def sources(root) -> dict[str, Source]:
    return {
        "digits": Digits(),
        "stdlib": StdlibBytes(length=32),
        "text": TextFile(str(root / "play.txt"), length=16, unit="char"),
        "lines": Lines(length=32),
        "packed lines": Lines(length=64, packed=True),
        "npz": Npz(str(root / "split.npz"), label="y"),
        "npz whole": Npz(str(root / "whole.npz"), x="images", label="LABELS"),
        "npz wave": Npz(str(root / "whole.npz"), x="wave", kind="audio"),
        "folder": ImageFolder(str(root / "classes"), size=4, channels=1),
        "folder split": ImageFolder(str(root / "sets"), size=4, channels=3),
        "tfds": TFDS("tiny", str(root)),
        "tfds lonely": TFDS("lonely", str(root)),
        "tfds text": TFDS("play", str(root), length=4, unit="char"),
    }


@pytest.mark.parametrize("name", sources(pathlib.Path()))
def test_examples_are_as_declared(root, name):
    source = sources(root)[name]
    assert {"train", "test"} <= set(source.splits)
    seen = set()
    for split in source.splits:
        examples = source.load(split)
        some = examples[np.arange(min(len(examples), 2000))]
        assert some["x"].shape[1:] == source.shape
        assert some["x"].dtype.name == source.dtype
        if source.levels:
            assert some["x"].min() >= 0
            assert some["x"].max() < source.levels
        assert ("label" in some) == (source.classes > 0)
        if source.classes:
            assert some["label"].dtype == np.int32
            seen |= set(some["label"])
        np.testing.assert_array_equal(
            source.load(split)[np.arange(len(some["x"]))[::-1]]["x"], some["x"][::-1]
        )
    assert seen == set(range(source.classes))
    with pytest.raises(UserError, match=r"no split 'tset': did you mean 'test'"):
        source.load("tset")


def test_digits_are_split_without_repetition_and_with_balanced_test_classes():
    pixels, label = load_digits(return_X_y=True)
    train, test = (rows(Digits().load(split)) for split in ("train", "test"))
    together = {name: np.concatenate([train[name], test[name]]) for name in train}
    expected = np.column_stack([pixels, label]).astype(np.uint8)
    got = np.column_stack([together["x"].reshape(-1, 64), together["label"]]).astype(np.uint8)
    assert multiset(got) == multiset(expected)
    np.testing.assert_array_equal(np.bincount(test["label"]), np.full(10, 36))


def test_split_rows_covers_every_row_once():
    for num, count in ((2, 1), (10, 1), (25, 5)):
        parts = [split_rows(num, count / num, split) for split in ("train", "test")]
        assert len(parts[1]) == count
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(num))


@pytest.mark.parametrize("name", ["npz", "npz whole", "tfds", "tfds lonely"])
def test_arrays_come_back_with_their_labels(root, name):
    source = sources(root)[name]
    splits = [rows(source.load(split)) for split in ("train", "test")]
    x, label = (np.concatenate([split[key] for split in splits]) for key in ("x", "label"))
    order = [multiset(PICTURES).index(image.tobytes()) for image in x]
    assert sorted(order) == list(range(10))
    truth = dict(zip((image.tobytes() for image in PICTURES), LABELS, strict=True))
    np.testing.assert_array_equal(label, [truth[image.tobytes()] for image in x])
    if name in ("npz", "tfds"):
        np.testing.assert_array_equal(x, PICTURES)


@pytest.mark.parametrize("name", ["folder", "folder split"])
def test_images_keep_pixels_and_class(root, name):
    """Images of 8 x 8 pixels, 2 x 2 tiles, are loaded exactly at full size, in grey or RGB."""
    source = sources(root)[name]
    source = type(source)(source.path, size=8, channels=source.channels)
    truth = {
        np.tile(image[:, :4, 0], (2, 2)).tobytes(): label
        for image, label in zip(PICTURES, LABELS, strict=True)
    }
    seen = []
    for split in source.splits:
        examples = rows(source.load(split))
        for image, label in zip(examples["x"], examples["label"], strict=True):
            assert all(np.array_equal(image[..., 0], image[..., c]) for c in range(source.channels))
            assert truth[image[..., 0].tobytes()] == label
            seen.append(image[..., 0].tobytes())
    assert sorted(seen) == sorted(truth)
    if name == "folder split":
        assert len(source.load("train")) == 7


def test_resizing_keeps_the_mean(root):
    source = ImageFolder(str(root / "sets"), size=2, channels=1)
    small = rows(source.load("train"))["x"].astype(float).mean()
    large = rows(type(source)(source.path, size=8, channels=1).load("train"))["x"].astype(float).mean()
    assert small == pytest.approx(large, rel=0.05)


def test_stdlib_text_equals_the_files(root):
    train, test = (StdlibBytes(length=64).load(split) for split in ("train", "test"))
    for module in (calendar, heapq, io, json.decoder, zipfile):
        top_level = "." not in module.__name__ and not hasattr(module, "__path__")
        text = pathlib.Path(module.__file__).read_bytes()
        found = text in train.stream.tobytes(), text in test.stream.tobytes()
        is_test = zlib.crc32(f"{module.__name__}.py".encode()) % 10 == 0
        assert found == (top_level and not is_test, top_level and is_test)


@pytest.mark.parametrize("unit", ["byte", "char"])
def test_text_file_is_encoded_and_decoded(root, unit):
    source = TextFile(str(root / "play.txt"), length=16, unit=unit)
    splits = [source.load(split).stream for split in source.splits]
    assert source.vocabulary.decode(np.concatenate(splits)) == PLAY + "é\n"
    total = sum(map(len, splits))
    assert [len(split) / total for split in splits] == pytest.approx([0.9, 0.05, 0.05], abs=1 / total)
    assert source.levels == (256 if unit == "byte" else len(set(PLAY + "é\n")))


def test_evaluation_windows_score_each_token_once(root):
    test = TextFile(str(root / "play.txt"), length=16).load("test")
    whole = len(test.stream) // 16 * 16
    np.testing.assert_array_equal(rows(test)["x"].ravel(), test.stream[:whole])


def test_tfds_text_joins_texts_by_newlines(root):
    source = sources(root)["tfds text"]
    assert source.vocabulary.decode(source.load("test").stream) == "to be\nor"
    assert source.vocabulary.decode(source.load("train").stream) == PLAY


@pytest.mark.parametrize("name", ["tfds", "folder"])
def test_splits_above_memory_mib_stay_on_disk(root, name):
    source = sources(root)[name]
    in_memory, on_disk = source.load("train"), dataclasses.replace(source, memory_mib=0).load("train")
    assert type(on_disk) is not type(in_memory)
    assert len(on_disk) == len(in_memory)
    order = np.array([5, 0, 5, 3])
    for name, array in in_memory[order].items():
        np.testing.assert_array_equal(on_disk[order][name], array)


def test_tfds_data_sets_never_share_a_download_folder(root):
    """TFDS caches unpacked files by bare name: Fashion-MNIST built after MNIST would hold MNIST's images."""
    import tensorflow_datasets as tfds

    from genjax.data.sources.tfds import download_dir

    folders = {
        download_dir(tfds.builder(name, data_dir=str(root))) for name in ("mnist", "fashion_mnist", "kmnist")
    }
    assert len(folders) == 3


def test_tfds_prepares_from_manual_dir_as_array_record(root, monkeypatch):
    """With TFDS's builders, whose preparation (which needs TensorFlow) is recorded instead of run."""
    import tensorflow_datasets as tfds

    calls = []

    def prepare(self, *, download_dir, download_config):
        calls.append((download_dir, download_config.manual_dir, self.info.file_format.value))
        if self.name == "fashion_mnist":
            raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", prepare)
    monkeypatch.setattr("genjax.data.sources.tfds.importlib.util.find_spec", lambda name: object())
    mnist = TFDS("mnist", str(root), "originals")
    described = (mnist.kind, mnist.shape, mnist.dtype, mnist.classes, mnist.levels, mnist.splits)
    assert described == ("image", (28, 28, 1), "uint8", 10, 256, ("train", "test"))
    assert not calls, "metadata need no preparation"
    with pytest.raises(UserError, match="'mnist' has no train split"):  # nothing was really prepared
        mnist.load("train")
    assert calls == [(str(root / "downloads" / "mnist" / "3.0.1"), "originals", "array_record")]
    with pytest.raises(UserError, match=r"cannot prepare TFDS data set 'fashion_mnist': no route$"):
        TFDS("fashion_mnist", str(root), "originals").load("train")
    assert calls[1][0] != calls[0][0]


def test_unknown_characters_raise():
    with pytest.raises(UserError, match="character 'z' is not in the vocabulary of 2"):
        Vocabulary("ab").encode(b"abz")


MISTAKES = {
    "npz missing": (lambda root: Npz(str(root / "none.npz")).shape, "no file '.*none.npz'"),
    "npz cut": (lambda root: Npz(str(root / "cut.npz")).shape, "not an .npz file, or is damaged"),
    "npz broken": (
        lambda root: Npz(str(root / "broken.npz")).load("train"),
        "not an .npz file, or is damaged",
    ),
    "npz other": (lambda root: Npz(str(root / "play.txt")).shape, "not an .npz file"),
    "npz key": (
        lambda root: Npz(str(root / "whole.npz"), x="image").shape,
        r"no array 'image' .*did you mean 'images'\? \(one of: LABELS, images, wave\)",
    ),
    "npz label": (lambda root: Npz(str(root / "split.npz"), label="z").load("train"), "no array 'z'"),
    "npz label kind": (
        lambda root: Npz(str(root / "whole.npz"), x="images", label="wave").classes,
        "'wave' .* has 6 columns, and row 0 is not one-hot",
    ),
    "npz kind": (
        lambda root: Npz(str(root / "whole.npz"), x="LABELS").shape,
        r"int64 \[\], not image examples",
    ),
    "npz levels": (
        lambda root: Npz(str(root / "whole.npz"), x="LABELS", kind="points").levels,
        "int64.*values=",
    ),
    "npz values": (lambda root: Npz(str(root / "split.npz"), values=9).load("train"), r"outside 0 \.\.\. 8"),
    "folder missing": (lambda root: ImageFolder(str(root / "none")).classes, "no folder '.*none'"),
    "folder empty": (lambda root: ImageFolder(str(root / "empty")).load("train"), "no pictures .*empty"),
    "folder bad": (lambda root: ImageFolder(str(root / "bad")).load("train"), "cannot read the picture"),
    "text missing": (
        lambda root: TextFile(str(root / "none.txt")).load("train"),
        "cannot read .*none.txt.*No such",
    ),
    "text long": (
        lambda root: TextFile(str(root / "play.txt"), length=10**6).load("train"),
        "length=1000000",
    ),
    "text bytes": (lambda root: TextFile(str(root / "cut.npz"), unit="char").levels, "not UTF-8"),
    "tfds name": (
        lambda root: TFDS("minst", str(root)).shape,
        "no TFDS data set 'minst': did you mean 'mnist'",
    ),
    "tfds version": (lambda root: TFDS("mnist:9.9.9", str(root)).shape, "mnist:9.9.9.*9.9.9"),
    "tfds feature": (
        lambda root: TFDS("tiny", str(root), x="imag").shape,
        "no feature 'imag'.*did you mean 'image'",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_errors_are_one_line(root, name):
    make, message = MISTAKES[name]
    with pytest.raises(UserError, match=message) as error:
        make(root)
    assert "\n" not in str(error.value)


def test_tfds_names_the_requirements_when_tensorflow_is_missing(root, monkeypatch):
    monkeypatch.setattr("genjax.data.sources.tfds.importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"not prepared in .*needs TensorFlow.*pip install -r requirements-prepare.txt"
    ):
        TFDS("mnist", str(root)).load("train")
