"""Metrics are strict JSON and survive kills and resumes; TensorBoard events round-trip; pictures by pixel."""

import io
import json
import math
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2

from genjax.core.errors import UserError
from genjax.reports import pictures
from genjax.training.writers import Writer

RNG = np.random.default_rng(0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def refuse(word):
    raise ValueError(word)


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().split("\n")
    assert lines[-1] == ""
    return [json.loads(line, parse_constant=refuse) for line in lines[:-1]]


def crc32c(data):
    """CRC of Castagnoli, bit by bit (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(workdir):
    """The events of all files in order, by TFRecord framing."""
    for path in sorted((workdir / "tensorboard").iterdir(), key=lambda p: p.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            body = data[12 : 12 + size]
            assert struct.unpack("<I", data[8:12])[0] == masked(data[:8])
            assert struct.unpack("<I", data[12 + size : 16 + size])[0] == masked(body)
            yield event_pb2.Event.FromString(body)
            data = data[16 + size :]


def test_crc32c_reference_values():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, appendix B.4


def test_metrics_are_strict_json_and_exact(tmp_path):
    values = {
        "loss": jnp.float32(0.1),
        "half": jnp.bfloat16(1.5),
        "double": np.float64(1 / 3),
        "count": np.int64(2**40),
        "python": 3,
        "flag": jnp.asarray(True),
        "bad": jnp.float32(jnp.nan),
        "up": math.inf,
        "down": np.float32(-np.inf),
        'quo"te\n': 1.0,
    }
    with Writer(tmp_path, 10, stream=io.StringIO()) as writer:
        writer.scalars(5, values)
        (row,) = rows(tmp_path)  # on disk before the writer is closed
    assert row["step"] == 5
    for name, value in values.items():
        np.testing.assert_array_equal(float(row[name]), np.asarray(value, np.float64), strict=False)
    assert isinstance(row["count"], int)
    assert (row["bad"], row["up"], row["down"]) == ("nan", "inf", "-inf")


def test_resume_keeps_each_step_once_and_time_continues(tmp_path):
    with Writer(tmp_path, 10, stream=io.StringIO()) as writer:
        for step in range(1, 7):
            writer.scalars(step, {"loss": step})
    path = tmp_path / "metrics.jsonl"
    late = [{**row, "time": 1000.0 + row["step"]} for row in rows(tmp_path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in late)[:-9])  # killed while writing a line
    with Writer(tmp_path, 10, start=4, stream=io.StringIO()) as writer:
        for step in range(5, 9):
            writer.scalars(step, {"loss": 10 * step})
    got = rows(tmp_path)
    assert [row["step"] for row in got] == list(range(1, 9))
    assert [row["loss"] for row in got] == [1, 2, 3, 4, 50, 60, 70, 80]
    times = [row["time"] for row in got]
    assert times == sorted(times)
    assert 1004 <= times[4] < 1034


@pytest.mark.parametrize(
    "rest", [b'{"step": 3, "lo', b"\x00\x00\x00", b'{"step": 3, "loss": NaN}\n', b"\n\n", b"[3]\n"]
)
def test_an_incomplete_last_line_is_removed(tmp_path, rest):
    whole = b'{"step": 1, "time": 0.5, "loss": 2.0}\n{"step": 2, "time": 0.75, "loss": 1.0}\n'
    (tmp_path / "metrics.jsonl").write_bytes(whole + rest)
    Writer(tmp_path, 10, start=9, stream=io.StringIO()).close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole


def test_a_new_run_in_an_old_directory_drops_old_rows(tmp_path):
    for _ in range(2):
        with Writer(tmp_path, 10, stream=io.StringIO()) as writer:
            writer.scalars(1, {"loss": 1.0})
    assert [row["step"] for row in rows(tmp_path)] == [1]


def test_events_read_back(tmp_path):
    picture = Image.fromarray(RNG.integers(0, 256, (6, 5, 3), np.uint8))
    with Writer(tmp_path, 10, stream=io.StringIO()) as writer:
        writer.scalars(3, {"loss": np.float32(0.1), "count": 7})
        writer.image(4, "net/samples", picture)
        writer.text(5, "story", "a *b*\nc")
    with Writer(tmp_path, 10, start=3, stream=io.StringIO()) as writer:
        writer.scalars(4, {"loss": 2.0})
    seen = list(events(tmp_path))
    assert {e.file_version for e in seen if e.file_version} == {"brain.Event:2"}
    values = [(e.step, value) for e in seen for value in e.summary.value]
    scalars = {(step, v.tag): v.simple_value for step, v in values if v.WhichOneof("value") == "simple_value"}
    assert scalars == {(3, "loss"): np.float32(0.1), (3, "count"): 7.0, (4, "loss"): 2.0}
    ((step, shown),) = [(step, v) for step, v in values if v.WhichOneof("value") == "image"]
    assert (step, shown.tag) == (4, "net/samples")
    decoded = Image.open(io.BytesIO(shown.image.encoded_image_string))
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(picture))
    (text,) = [v.tensor.string_val[0] for step, v in values if v.WhichOneof("value") == "tensor"]
    assert text == b"    a *b*\n    c\n"
    # Readers drop an earlier file's events from this step on.
    assert [e.step for e in seen if e.session_log.status == e.session_log.START][-1] == 4
    saved = Image.open(tmp_path / "samples" / "net_samples_00000004.png")
    np.testing.assert_array_equal(np.asarray(saved), np.asarray(picture))
    assert (tmp_path / "samples" / "story_00000005.txt").read_text() == "a *b*\nc"


def test_progress_line(tmp_path, monkeypatch):
    clock = iter([0.0, 100.0, 100.0, 102.0, 102.0, 110.0, 110.0]).__next__
    monkeypatch.setattr("genjax.training.writers.time.perf_counter", clock)
    out = io.StringIO()
    with Writer(tmp_path, 4000, start=200, items=32, stream=out) as writer:
        writer.scalars(210, {"net/loss": 1.25, "net/grad_norm": 3.0})
        writer.scalars(400, {"acc": math.nan})
    first, second = out.getvalue().splitlines()
    assert first == "210/4000  5.2%  5 steps/s  160 items/s  ETA 12:38  net/loss 1.25"
    # 190 steps in 8 s, 3600 to go: 151.58 s
    assert second == "400/4000  10.0%  23.8 steps/s  760 items/s  ETA 2:32  acc nan"


def test_progress_is_rewritten_on_a_terminal(tmp_path):
    out = Terminal()
    with Writer(tmp_path, 10, stream=out) as writer:
        writer.scalars(1, {"a_long_name/loss": 1.0})
        writer.scalars(2, {"loss": 1.0})
    text = out.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    _, first, second = text[:-1].split("\r")
    assert first.startswith("1/10")
    assert second.startswith("2/10")
    assert len(second) >= len(first.rstrip())  # padded to overwrite the previous line


def test_only_process_0_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with Writer(tmp_path / "run", 10) as writer:
        writer.scalars(1, {"loss": 1.0})
        writer.image(1, "a", Image.new("RGB", (2, 2)))
        writer.text(1, "a", "b")
    assert not (tmp_path / "run").exists()


# Pictures.


@pytest.mark.parametrize(("n", "columns", "rows"), [(6, 3, 2), (5, 3, 2), (5, 0, 2), (1, 0, 1), (2, 7, 1)])
def test_grid_places_images_pixel_by_pixel(n, columns, rows):
    images = RNG.integers(0, 256, (n, 4, 7, 3), np.uint8)
    got = np.asarray(pictures.grid(images, columns=columns, scale=2)).astype(int)
    wide = min(columns or 3, n)
    assert got.shape == (rows * 9 - 1, wide * 15 - 1, 3)
    for i in range(n):
        top, left = i // wide * 9, i % wide * 15
        for y in range(8):
            for x in range(14):
                np.testing.assert_array_equal(got[top + y, left + x], images[i, y // 2, x // 2])
        got[top : top + 8, left : left + 14] = -1
    assert set(np.unique(got)) <= {-1, pictures.SEPARATOR}


def test_grid_scales_values():
    values = np.asarray([-1.0, -0.5, 0.0, 1.0, 3.0, -9.0, np.nan, np.inf], np.float32).reshape(1, 2, 4)
    expected = np.asarray([0, 64, 128, 255, 255, 0, 0, 255])  # 63.75 and 127.5, rounded (to even)
    show = lambda images, **options: np.asarray(pictures.grid(images, scale=1, **options))[..., 0].ravel()
    np.testing.assert_array_equal(show(values), expected)
    np.testing.assert_array_equal(show(jnp.asarray(values)), expected)
    np.testing.assert_array_equal(show(values, span=(0.0, 1.0)), [0, 0, 0, 255, 255, 0, 0, 255])
    np.testing.assert_array_equal(show(np.arange(4).reshape(1, 2, 2), levels=4), [0, 85, 170, 255])
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    np.testing.assert_array_equal(show(every), np.arange(256))


@pytest.mark.parametrize(("size", "scale"), [(8, 8), (28, 2), (64, 1), (200, 1)])
def test_small_images_are_enlarged(size, scale):
    assert pictures.grid(np.zeros((1, size, size))).size == (size * scale, size * scale)


def blue(picture):
    """(row, column) of the blue sample pixels."""
    pixels = np.asarray(picture).astype(int)
    return np.argwhere(pixels[..., 2] - pixels[..., 0] > 60)


def test_scatter_shows_points_where_they_are():
    frame = np.asarray([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]])
    spots = {}
    for name, point in {
        "left": (-0.8, 0.0),
        "right": (0.8, 0.0),
        "up": (0.0, 0.8),
        "down": (0.0, -0.8),
    }.items():
        spots[name] = blue(pictures.scatter(np.asarray([point] * 9), frame)).mean(0)
    assert spots["up"][0] < spots["left"][0] < spots["down"][0]
    assert spots["left"][1] < spots["up"][1] < spots["right"][1]
    reach = spots["right"][1] - spots["left"][1], spots["down"][0] - spots["up"][0]
    np.testing.assert_allclose(reach[0], reach[1], atol=2)  # the axes' units are equal
    assert len(blue(pictures.scatter(np.asarray([[50.0, 0.0], [np.nan, 0.0]]), frame))) == 0


def test_histogram_of_points_on_a_line():
    bars = blue(pictures.scatter(np.repeat([-1.0, 1.0], [50, 100])))
    middle = bars[:, 1].mean()
    left, right = bars[bars[:, 1] < middle], bars[bars[:, 1] > middle]
    np.testing.assert_allclose(np.ptp(right[:, 0]) / np.ptp(left[:, 0]), 2, rtol=0.02)
    assert len(blue(pictures.scatter(np.full(10, np.inf), np.linspace(-1, 1, 100)))) == 0


def test_text_is_drawn_line_by_line():
    dark = lambda texts, **o: (np.asarray(pictures.lines(texts, **o)).min((1, 2)) < 100).astype(int)
    bands = lambda rows: int(np.count_nonzero(np.diff(np.concatenate([[0], rows])) == 1))
    assert bands(dark(["mmm"])) == 1
    assert bands(dark(["mmm\nmmm"])) == 2
    assert bands(dark(["m" * 25], width=10)) == 3
    assert bands(dark(["mm", "mm"])) == 3  # with the rule between
    assert bands(dark([""])) == 0
    assert not np.array_equal(pictures.lines(["日"]), pictures.lines(["a"]))
    np.testing.assert_array_equal(pictures.lines(["a\x00b"]), pictures.lines(["a\ufffdb"]))


def test_waves_rise_and_fall():
    t = np.linspace(0, 1, 200)
    columns = lambda wave: blue(pictures.waves(wave[None]))
    rising, falling = columns(t), columns(1 - t)
    assert np.corrcoef(rising.T)[0, 1] < -0.99  # larger values have smaller row indices
    assert np.corrcoef(falling.T)[0, 1] > 0.99
    assert pictures.waves(RNG.normal(size=(20, 50, 1))).size == (800, 800)


def test_curves_follow_the_metrics(tmp_path):
    with Writer(tmp_path, 100, stream=io.StringIO()) as writer:
        for step in range(100):
            writer.scalars(step, {"net/loss": 1 - step / 100, "other": math.nan if step == 50 else step})
    path = tmp_path / "metrics.jsonl"
    assert np.corrcoef(blue(pictures.curves(path)).T)[0, 1] > 0.99
    assert np.corrcoef(blue(pictures.curves(path, ["other"])).T)[0, 1] < -0.99
    with pytest.raises(UserError, match="did you mean 'other'"):
        pictures.curves(path, ["othre"])
    with pytest.raises(UserError, match="no metrics at"):
        pictures.curves(tmp_path / "none")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: pictures.grid(np.zeros((2, 3, 3, 2))),
        lambda: pictures.grid(np.zeros((0, 3, 3))),
        lambda: pictures.scatter(np.zeros((2, 3, 3))),
        lambda: pictures.waves(np.zeros((0, 4))),
        lambda: pictures.lines([]),
    ],
)
def test_invalid_shapes_raise_one_line(wrong):
    with pytest.raises(UserError) as error:
        wrong()
    assert "\n" not in str(error.value)
