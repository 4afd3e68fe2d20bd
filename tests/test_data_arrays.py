"""Arrays from files: labels of every dtype and shape, values that no model may see, units that no transform fits."""

import dataclasses
import io
import itertools
import zipfile

import numpy as np
import pytest

import genjax as gx
from genjax.core.errors import UserError
from genjax.data import Binarize, Clips, Data, Dequantize, Flip, MuLaw, Npz, Quantize, Scale, Table
from genjax.data.checks import check_examples
from genjax.training import loop

RNG = np.random.default_rng(0)
N, CLASSES = 12, 3
LABELS = np.arange(N) % CLASSES
X = RNG.integers(0, 256, (N, 4, 5, 1), dtype=np.uint8)
INTEGERS = [f"{order}{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8) for order in "<>"]
FLOATS = [f"{order}f{size}" for size in (2, 4, 8) for order in "<>"]


def npz(tmp_path, **arrays):
    path = tmp_path / "data.npz"
    np.savez(path, **{"x": X, **arrays})
    return str(path)


def of_file(path, **options):
    return Npz(path, **{"label": "y", "test": 0.25, **options})


def whole(source):
    """(x, label) of both splits, as a multiset of pairs."""
    parts = [source.load(split).arrays for split in source.splits]
    return sorted(
        (x.tobytes(), int(y)) for part in parts for x, y in zip(part["x"], part["label"], strict=True)
    )


EXPECTED = sorted((x.tobytes(), int(y)) for x, y in zip(X, LABELS, strict=True))
ONE_HOT = np.array([[int(y == c) for c in range(CLASSES)] for y in LABELS])
LABEL_ARRAYS = {
    **{f"{d} [n]": LABELS.astype(d) for d in INTEGERS},
    **{f"{d} [n, 1]": LABELS.astype(d)[:, None] for d in INTEGERS},
    **{f"{d} one-hot": ONE_HOT.astype(d) for d in [*INTEGERS, *FLOATS, "?"]},
    **{f"{d} names": np.array(["ant", "bee", "wasp"])[LABELS].astype(d) for d in ("U", ">U9", "S")},
    "names [n, 1]": np.array(["ant", "bee", "wasp"])[LABELS][:, None],
}


@pytest.mark.parametrize("name", LABEL_ARRAYS)
def test_labels_of_every_dtype_and_shape_are_class_indices(tmp_path, name):
    source = of_file(npz(tmp_path, y=LABEL_ARRAYS[name]))
    assert source.classes == CLASSES
    assert source.class_names == (("ant", "bee", "wasp") if "names" in name else ())
    assert whole(source) == EXPECTED
    assert source.load("train").arrays["label"].dtype == np.int32


@pytest.mark.parametrize("shape", [(N,), (N, 1)])
def test_booleans_are_two_classes(tmp_path, shape):
    source = of_file(npz(tmp_path, y=(LABELS == 1).reshape(shape)))
    assert source.classes == 2
    assert whole(source) == sorted((x.tobytes(), int(y == 1)) for x, y in zip(X, LABELS, strict=True))


def changed(index, value, dtype=np.int64):
    label = LABELS.astype(dtype)
    label[index] = value
    return label


NO_LABELS = {
    "negative": (changed(4, -1), "is -1 at example 4: class indices start at 0"),
    "wraps to 1": (changed(4, 2**32 + 1), "is 4294967297 at example 4: number the classes from 0"),
    "wraps to -1": (changed(4, 2**32 - 1), "is 4294967295 at example 4"),
    "wraps to -1 of 64 bits": (changed(4, 2**64 - 1, np.uint64), "is 18446744073709551615 at example 4"),
    "years": (1990 + LABELS, r"3 different numbers up to 1992: number the classes 0 \.\.\. 2"),
    "floats": (LABELS.astype(float), "is float64: labels are integers, names, or one-hot"),
    "floats [n, 1]": (LABELS.astype(float)[:, None], "is float64: labels are"),
    "two columns": (np.stack([LABELS, LABELS], 1), "2 columns, and row 0 is not one-hot"),
    "probabilities": (np.full((N, 3), 1 / 3), "3 columns, and row 0 is not one-hot"),
    "NaN in one-hot": (np.where(ONE_HOT == 1, 1.0, np.nan), "row 0 is not one-hot"),
    "all zero in row 5": (ONE_HOT * (np.arange(N) != 5)[:, None], "row 5 is not one-hot"),
    "three axes": (LABELS[:, None, None], r"shape \[12, 1, 1\], not one label per example"),
    "one value": (np.array(3), "is a single value"),
    "no values": (LABELS[:0], "has 0 labels|too few|no examples"),
    "too few": (LABELS[:-1], "array 'y' of .* has 11 labels for the 12 examples of 'x'"),
    "objects": (np.array(["a", None] * 6, object), "array 'y' of .*Python objects, which are never loaded"),
    "complex": (LABELS.astype(complex), "is complex128"),
    "dates": (np.array(["2020-01-01"] * N, "M8[D]"), "is datetime64"),
    "records": (np.zeros(N, [("a", int)]), "save integers"),
    "numbers as strings": (LABELS.astype("U"), "numbers as strings, such as '0': save integers"),
    "empty name": (np.array(["ant", ""] * 6), "empty name"),
    "case": (np.array(["Ant", "ant"] * 6), "'Ant' and 'ant' .* case only"),
    "not UTF-8": (np.array([b"\xff", b"a"] * 6), "not UTF-8"),
}


@pytest.mark.parametrize("name", NO_LABELS)
def test_what_is_no_label_is_refused_in_one_line_with_the_file(tmp_path, name):
    label, words = NO_LABELS[name]
    with pytest.raises(UserError, match=words) as error:
        of_file(npz(tmp_path, y=label)).load("train")
    assert "data.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_splits_of_one_file_share_their_classes(tmp_path):
    names = np.array(["ant", "bee", "wasp"])
    arrays = {"x_train": X[:8], "x_test": X[8:], "y_train": names[LABELS[:8]], "y_test": names[[2, 2, 1, 2]]}
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    source = of_file(str(path))
    assert source.classes == 3
    assert source.load("test").arrays["label"].tolist() == [2, 2, 1, 2]
    np.savez(path, **{**arrays, "y_test": np.arange(4)})
    with pytest.raises(UserError, match="names in one split and numbers in another"):
        of_file(str(path)).load("train")
    np.savez(path, **{**arrays, "y_train": ONE_HOT[:8], "y_test": np.eye(4)})
    with pytest.raises(UserError, match="different number of columns"):
        of_file(str(path)).load("train")
    np.savez(path, **{**arrays, "x_test": X[:0], "y_test": names[:0]})
    with pytest.raises(UserError, match=r"array 'x_test' of .*data\.npz has no examples"):
        of_file(str(path), label=None).load("test")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_the_first_example_that_is_not_finite_is_named(tmp_path, dtype, bad):
    for row in (0, 7, N - 1):
        x = np.zeros((N, 4, 5), dtype)
        with np.errstate(over="ignore"):
            x[row:, 2, 3] = bad
        with pytest.raises(UserError, match=rf"array 'x' of .*data\.npz holds .* in example {row}:"):
            Npz(npz(tmp_path, x=x)).load("train")


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", ">i2", *FLOATS, "?"])
def test_values_of_every_dtype_are_kept(tmp_path, dtype):
    x = RNG.integers(0, 2, (N, 4, 5, 1)).astype(dtype)
    source = Npz(npz(tmp_path, x=x), test=0.25)
    found = [source.load(split).arrays["x"] for split in source.splits]
    assert all(part.dtype == np.dtype(source.dtype) and part.dtype.isnative for part in found)
    assert sorted(row.tobytes() for part in found for row in part) == sorted(
        row.tobytes() for row in x.astype(source.dtype)
    )


FIRST = [s for c, h, w in itertools.product((1, 3), (8, 9), (8, 9)) for s in [(c, h, w)]] + [
    (4, 8, 8),
    (2, 8, 8),
]
LAST = [
    (8, 9, 1),
    (8, 8, 3),
    (8, 8, 4),
    (3, 8, 3),
    (1, 8, 3),
    (3, 3, 3),
    (4, 4, 8),
    (1, 1, 1),
    (8, 8, 16),
    (2, 2, 3),
]


@pytest.mark.parametrize("shape", FIRST)
def test_images_with_channels_first_are_refused_with_the_mend(tmp_path, shape):
    path = npz(tmp_path, x=np.zeros((N, *shape), np.uint8))
    with pytest.raises(UserError, match=r"channels come last, save numpy\.moveaxis\(x, 1, -1\)"):
        _ = Npz(path).shape
    assert Npz(npz(tmp_path, x=np.zeros((N, *shape[1:], shape[0]), np.uint8))).shape == (*shape[1:], shape[0])


@pytest.mark.parametrize("shape", LAST)
def test_images_with_channels_last_are_read(tmp_path, shape):
    assert Npz(npz(tmp_path, x=np.zeros((N, *shape), np.uint8))).shape == shape


NO_EXAMPLES = {
    "objects": (np.array([None] * N, object), {}, "array 'x' of .*Python objects, which are never loaded"),
    "one value": (np.array(1.0), {"kind": "points"}, "array 'x' of .* is a single value"),
    "strings": (np.array(["a"] * N), {"kind": "points"}, "array 'x' of .* not points examples"),
    "complex": (np.zeros((N, 2), complex), {"kind": "points"}, "is complex128"),
    "no pixels": (np.zeros((N, 0, 5), np.uint8), {}, "not image examples"),
    "one example": (X[:1], {}, "array 'x' of .* has 1 examples, too few"),
    "none": (X[:0], {}, "array 'x' of .* has 0 examples, too few"),
    "levels of floats": (np.zeros((N, 4, 5)), {"values": 17}, "values=17 does not fit array 'x' .* float64"),
    "too many levels": (X, {"values": 257}, "values=257 does not fit"),
    "no levels": (X, {"values": 0}, "values=0 does not fit"),
    "levels": (
        np.minimum(X, 16),
        {"values": 16},
        r"outside 0 \.\.\. 15 in example 0: check the field values",
    ),
    "stereo first": (np.zeros((N, 2, 90)), {"kind": "audio"}, "channels come last"),
}


@pytest.mark.parametrize("name", NO_EXAMPLES)
def test_what_is_no_example_is_refused_in_one_line_with_the_file(tmp_path, name):
    x, options, words = NO_EXAMPLES[name]
    with pytest.raises(UserError, match=words) as error:
        Npz(npz(tmp_path, x=x), **options).load("train")
    assert "data.npz" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(N + 1, 4, 5), (2**30, 4, 5), (N - 1, 4, 5), (2**62, 8, 8)])
def test_headers_that_do_not_fit_the_file_are_refused(tmp_path, shape):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "data.npz", "w", method) as file:
            file.writestr("x.npy", buffer.getvalue() + bytes(N * 4 * 5 * 4))
        with pytest.raises(UserError, match=r"data\.npz.* damaged"):
            Npz(str(tmp_path / "data.npz")).load("train")


def test_every_damaged_byte_of_a_file_gives_the_same_examples_or_one_line(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=X[:4, :2, :2], y=LABELS[:4])
    sound, expected = path.read_bytes(), whole(of_file(str(path)))
    for position in range(0, len(sound), 7):
        for data in (
            sound[:position],
            sound[:position] + bytes([sound[position] ^ 0x51]) + sound[position + 1 :],
        ):
            path.write_bytes(data)
            message = ""
            try:
                found = whole(of_file(str(path)))
            except UserError as error:
                message = str(error)
            assert found == expected if not message else "data.npz" in message
            assert "\n" not in message


@dataclasses.dataclass(frozen=True, eq=False)
class Held:
    """A source of one's own, in memory."""

    x: np.ndarray
    label: np.ndarray | None = None
    classes: int = 0
    kind: str = "image"
    splits = ("train", "test")

    @property
    def shape(self):
        return self.x.shape[1:]

    @property
    def dtype(self):
        return self.x.dtype.name

    @property
    def levels(self):
        return 0 if self.x.dtype.kind == "f" else 2 ** (8 * self.x.itemsize)

    def load(self, split):
        return Table({"x": self.x} if self.label is None else {"x": self.x, "label": self.label})


# Name of a unit -> the values of images, and the transforms made for it.
UNITS = {
    "unit": (RNG.uniform(0, 1, (20, 6, 6, 1)), (Scale(0, 1), Binarize(1), Scale(1, 0))),
    "digits": (
        RNG.integers(0, 17, (20, 6, 6, 1)).astype(np.uint8),
        (Scale(0, 16), Scale(0, 17), Quantize(5, 16)),
    ),
    "bytes": (
        RNG.integers(0, 256, (20, 6, 6, 1)).astype(np.uint8),
        (Scale(0, 255), Binarize(255), Quantize(8)),
    ),
    "float bytes": (RNG.uniform(0, 255, (20, 6, 6, 1)).astype(np.float32), (Scale(0, 255), Scale(0, 256))),
    "16 bits": (RNG.integers(-(2**15), 2**15, (20, 90, 1)).astype(np.int16), (MuLaw(), Scale(-32768, 32768))),
    "float sound": (RNG.uniform(-0.5, 0.5, (20, 90, 1)), (MuLaw(1.0), Scale(-1, 1))),
}
SIZE = {"unit": 1, "digits": 16, "bytes": 255, "float bytes": 255, "16 bits": 65_536, "float sound": 2}


@pytest.mark.parametrize(("values", "made_for"), [*itertools.product(UNITS, UNITS)])
def test_transforms_made_for_other_units_are_refused(values, made_for):
    """Units of about equal size are accepted; a factor of 10, or of 1,000 where sound is quieter, is not."""
    x, kind = UNITS[values][0], "audio" if values in ("16 bits", "float sound") else "image"
    ratio = SIZE[values] / SIZE[made_for]
    for transform, before in itertools.product(UNITS[made_for][1], ((), (Flip(),), (Dequantize(),))):
        if kind == "audio" and before:
            continue
        data = Data(Held(x, kind=kind), (*before, transform))
        if values in ("unit", "float bytes") and Dequantize() in before:
            with pytest.raises(UserError, match="is for integers, and the training split holds"):
                data.load("train")
        elif max(ratio, 1 / ratio) > 10 and not (kind == "audio" and 1 / 1000 < ratio < 1):
            with pytest.raises(
                UserError, match=r"is for values of .* training split lie in .* give it their range"
            ):
                data.load("train")
        elif 0.5 <= ratio <= 2:
            data.load("train")
        data.load("test")


def test_quiet_sound_outliers_and_constant_values_are_no_other_units():
    quiet = np.zeros((20, 90, 1), np.int16)
    quiet[3, 5:9] = 200
    Data(Held(quiet, kind="audio"), (MuLaw(),)).load("train")
    points = RNG.normal(size=(500, 2))
    points[7] = 1e6
    Data(Held(points, kind="points"), (Scale(-2, 2),)).load("train")
    Data(Held(np.zeros((5, 4, 4, 1), np.uint8)), (Scale(0, 255),)).load("train")
    with pytest.raises(UserError, match="needs a range"):
        Data(Held(X), (Scale(3, 3),)).load("train")


def test_labels_of_any_source_are_checked():
    for label, words in (
        (changed(4, -1), "the label of the split 'train' is -1 at example 4"),
        (changed(4, 3), r"is 3 at example 4: one class index of 0 \.\.\. 2"),
        (changed(4, 2**32), "is 4294967296 at example 4"),
        (LABELS.astype(float), r"is float64 \[12\]"),
        (ONE_HOT, r"is int64 \[12, 3\], not one integer"),
    ):
        with pytest.raises(UserError, match=words):
            Data(Held(X, label, 3)).load("train")
    with pytest.raises(UserError, match="the split 'test' has no examples"):
        Data(Held(X[:0])).load("test")


def test_classes_without_examples_are_said_once(caplog):
    table = Table({"x": X, "label": LABELS})
    for _ in range(2):
        check_examples(table, "train", 5)
        check_examples(table, "test", 6)
    assert [record.getMessage() for record in caplog.records] == [
        "2 of 5 classes have no example in the training split: 3, 4"
    ]


def test_a_model_conditioned_on_fewer_classes_than_the_data_have_is_refused(tmp_path):
    data = Data(of_file(npz(tmp_path, y=LABELS)), (Scale(0, 255),))
    objective = gx.objectives.Diffusion(gx.networks.MLP(), data.shape, condition=gx.conditioning.Labels(2))
    with pytest.raises(
        UserError, match=r"on 2 classes, .* have 3: set config\.objective\.condition\.classes=3"
    ):
        loop.prepare(gx.Experiment(objective, data, gx.optimizers.SGD(), batch_size=8))


BAD_CLIPS = {
    "a NaN": ({"audio": np.float32([0, 0, 0, np.nan, 0, 0])}, "holds nan in sample 3"),
    "loud": ({"audio": np.float32([0, 0, 0, 0, 1.5, 0])}, r"outside \[-1, 1\] in clip 2"),
    "start": ({"offsets": np.array([1, 2, 4, 6])}, "must increase from 0 to the 6 samples"),
    "end": ({"offsets": np.array([0, 2, 4])}, "must increase from 0 to the 6"),
    "float offsets": ({"offsets": np.array([0.0, 2, 4, 6])}, "must increase from 0 to the 6"),
    "unsigned offsets": ({"offsets": np.array([0, 4, 2, 6], np.uint64)}, "must increase from 0 to the 6"),
    "channels first": (
        {"audio": np.zeros((2, 6), np.float32)},
        "6 channels, not float32 with 1: .*come last",
    ),
    "labels": ({"label": np.array([0, 2**32 + 1, 1])}, "is 4294967297 at example 1"),
    "too few labels": ({"label": np.array([0, 1])}, "'label' of .* has 2 labels for 3 clips"),
    "names": ({"label": np.array(["a", "b", "c"])}, "has 3 names: set classes=3"),
    "split as strings": ({"is_test": np.array(["False", "True", "False"])}, "two parts, by one boolean"),
}


@pytest.mark.parametrize("name", BAD_CLIPS)
def test_unsuitable_clips_are_refused(tmp_path, name):
    good = {
        "audio": np.zeros(6, np.float32),
        "offsets": np.array([0, 2, 4, 6], np.uint32),
        "label": np.arange(3) % 2,
    }
    path = tmp_path / "clips.npz"
    source = Clips(str(path), 4, classes=2, dtype="float32")
    np.savez(path, **good)
    assert source.load("train")[np.arange(2)]["label"].dtype == np.int32
    np.savez(path, **{**good, **BAD_CLIPS[name][0]})
    with pytest.raises(UserError, match=BAD_CLIPS[name][1]) as error:
        dataclasses.replace(source).load("train")
    assert "clips.npz" in str(error.value)
