"""Folders of files: what counts, and which splits and classes it has, for all ways to lay it out."""

import itertools
import os

import numpy as np
import pytest
from PIL import Image

from genjax.core.errors import UserError
from genjax.data import ImageFolder
from genjax.data.sources.files import ROLES, Files

CLASSES = {"cat": 3, "dog": 5}


def lay_out(root, *paths):
    for number, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(number))


def animals(folder="", inner="", count=CLASSES):
    return [f"{folder}{name}/{inner}{i}.png" for name, n in count.items() for i in range(n)]


def files(root, test=0.25):
    return Files(str(root), (".png",), "pictures", test)


def contents(source, split):
    """Path below the folder -> class name, of one split."""
    labels = source.labels(split)
    names = [None] * len(source.paths(split)) if labels is None else [source.classes[i] for i in labels]
    return {
        os.path.relpath(path, source.path): name
        for path, name in zip(source.paths(split), names, strict=True)
    }


def whole(source):
    train, test = contents(source, "train"), contents(source, "test")
    assert not train.keys() & test.keys()
    return train | test


@pytest.mark.parametrize("inner", ["", "a/", "a/b/"])
def test_the_first_folder_is_the_class(tmp_path, inner):
    lay_out(tmp_path, *animals(inner=inner))
    source = files(tmp_path)
    assert source.classes == ("cat", "dog")
    assert whole(source) == {path: path[:3] for path in animals(inner=inner)}


def test_equal_names_deeper_down_are_not_pooled(tmp_path):
    lay_out(
        tmp_path, *[f"{first}/{second}/{i}.png" for first in "ab" for second in ("x", "y") for i in range(2)]
    )
    assert files(tmp_path).classes == ("a", "b")


@pytest.mark.parametrize(
    ("train", "test"), [("train", "test"), ("Train", "Test"), ("TRAINING", "testing"), ("training", "Test")]
)
def test_split_names_in_any_case_are_the_splits(tmp_path, train, test):
    lay_out(tmp_path, *animals(f"{train}/"), *animals(f"{test}/", count={"cat": 1, "dog": 2}))
    source = files(tmp_path)
    assert source.classes == ("cat", "dog")
    assert contents(source, "train") == {path: path.split("/")[1] for path in animals(f"{train}/")}
    assert len(source.paths("test")) == 3


@pytest.mark.parametrize("name", [name for name, role in ROLES.items() if role == "validation"])
def test_validation_is_the_test_split_where_there_is_none(tmp_path, name):
    lay_out(tmp_path, *animals("train/"), *animals(f"{name}/"))
    source = files(tmp_path)
    assert set(contents(source, "test")) == set(animals(f"{name}/"))
    assert f"the test split is {name}/" in source.describe()
    lay_out(tmp_path, *animals("test/"))
    source = files(tmp_path)
    assert set(contents(source, "test")) == set(animals("test/"))
    assert f"left out: {name}/" in source.describe()


def test_a_train_folder_alone_is_split(tmp_path):
    lay_out(tmp_path, *animals("train/"))
    source = files(tmp_path)
    assert source.classes == ("cat", "dog")
    assert whole(source) == {path: path.split("/")[1] for path in animals("train/")}
    assert len(source.paths("test")) == 2


MISTAKES = {
    "split beside a class": (["train/cat/1.png", "dogs/1.png"], "split 'train' and 'dogs' beside it"),
    "class named test": (["plane/1.png", "test/1.png"], "split 'test' and 'plane' beside it"),
    "two training folders": (
        ["train/a/1.png", "Training/a/1.png", "test/a/2.png"],
        "two folders for one split",
    ),
    "test alone": (["test/a/1.png"], "no train"),
    "validation and test": (["test/a/1.png", "val/a/1.png"], "test, val and no train"),
    "case of classes": (["Cat/1.png", "cat/2.png", "dog/3.png"], "'Cat' and 'cat' .*case only"),
    "case between splits": (["train/Cat/1.png", "test/cat/2.png"], "'Cat' and 'cat' .*case only"),
    "class of the test split": (["train/cat/1.png", "test/cats/2.png"], "class 'cats' .*test split alone"),
    "no pictures": (["a/1.txt"], "no pictures"),
    "empty test": (["train/a/1.png", "test/a/1.txt"], "no pictures .*test"),
    "one picture": (["a/1.png"], "1 examples cannot be split"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_can_be_read_in_two_ways_is_refused_in_one_line(tmp_path, name):
    paths, message = MISTAKES[name]
    lay_out(tmp_path, *paths)
    with pytest.raises(UserError, match=message) as error:
        files(tmp_path).labels("train")
    assert "\n" not in str(error.value)


def test_hidden_parts_of_a_path_never_count(tmp_path):
    lay_out(tmp_path / ".hidden" / "data", *animals())  # above the folder, they do
    root = tmp_path / ".hidden" / "data"
    hidden = [
        "cat/.thumbs/1.png",
        ".git/2.png",
        ".train/cat/3.png",
        "dog/._4.png",
        ".ds.png",
        "dog/a/.b/c/5.png",
    ]
    lay_out(root, *hidden)
    assert set(whole(files(root))) == set(animals())


def test_links_are_followed_and_circles_refused(tmp_path):
    lay_out(tmp_path / "store", *animals())
    lay_out(tmp_path / "data", "bird/0.png")
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "store" / "cat", target_is_directory=True)
    (tmp_path / "data" / "bird" / "1.png").symlink_to(tmp_path / "store" / "dog" / "2.png")
    assert whole(files(tmp_path / "data")) == {
        **{f"cat/{i}.png": "cat" for i in range(3)},
        **{f"bird/{i}.png": "bird" for i in range(2)},
    }
    (tmp_path / "data" / "bird" / "again").symlink_to(tmp_path / "data", target_is_directory=True)
    with pytest.raises(UserError, match="again' is a link to a folder above it"):
        files(tmp_path / "data").paths("train")


def test_files_directly_in_a_split_mean_no_classes(tmp_path):
    for folder in ("", "train/"):
        lay_out(tmp_path / "x" / folder, *animals(), "1.png")
        source = files(tmp_path / "x" / folder)
        assert source.classes == ()
        assert source.labels("train") is None
        assert "no classes" in source.describe()


def test_the_order_of_the_file_system_does_not_matter(tmp_path, monkeypatch):
    lay_out(tmp_path, *animals())
    expected = [files(tmp_path).paths(split) for split in ("train", "test")]
    scandir = os.scandir
    for seed in range(3):
        rng = np.random.default_rng(seed)
        monkeypatch.setattr(
            os, "scandir", lambda path, rng=rng: rng.permutation(list(scandir(path))).tolist()
        )
        assert [files(tmp_path).paths(split) for split in ("train", "test")] == expected


def test_one_line_says_what_was_read(tmp_path):
    rng = np.random.default_rng(0)
    for path in animals():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(tmp_path / path)
    for name in ("cat/a.heic", "cat/b.HEIC", "notes"):
        (tmp_path / name).write_text("")
    source = ImageFolder(str(tmp_path), size=4, test=0.25)
    assert source.describe() == (
        "8 pictures (6 train, 2 test), 2 classes (cat 3, dog 5); left out: 2 .heic, 1 without suffix; "
        "read as 4x4x3, 0…255"
    )
    assert source.class_names == ("cat", "dog")
    sizes = [
        np.bincount(source.load(split)[np.arange(n)]["label"], minlength=2)
        for split, n in (("train", 6), ("test", 2))
    ]
    assert sum(sizes).tolist() == [3, 5]
    assert source.load("train")[np.arange(6)]["x"].shape == (6, 4, 4, 3)


def test_roles_are_those_of_the_docstring():
    assert set(itertools.chain(ROLES.values())) == {"train", "test", "validation"}
