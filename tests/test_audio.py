"""Audio: mu-law against its formula, clips against the recordings, files and spectra against other readers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.io import wavfile

from genjax.core.errors import UserError
from genjax.data import Clips, Data, MuLaw, Npz, SoundFolder
from genjax.data.examples import Table
from genjax.reports import exports
from genjax.reports.sampling_paths import show
from genjax.reports.sounds import FLOOR, decibels, write_wav

RATE, KEY = 8000, jax.random.key(0)
RNG = np.random.default_rng(0)


def companded(x, mu):
    """F of `companding`'s docstring, in double precision."""
    return np.sign(x) * np.log1p(mu * np.abs(x)) / np.log1p(mu)


@functools.partial(jax.jit, static_argnums=0)
def forward(law, x):
    return law.forward({"x": x}, KEY, False)["x"]


def tokens(law, x):
    return np.asarray(forward(law, x))


LAWS = {
    "int16": (MuLaw(), np.arange(-(2**15), 2**15).astype(np.int16)),  # 0 lies between two cells
    "unit": (MuLaw(1.0), np.linspace(-1, 1, 40_001).astype(np.float32)),
    "few": (MuLaw(1.0, 15), np.linspace(-1, 1, 1001).astype(np.float32)),
}


@pytest.mark.parametrize("name", LAWS)
def test_companding_quantises_its_formula_into_equal_cells(name):
    """For every amplitude: monotone, all tokens used, the inverse within half a cell of F."""
    law, x = LAWS[name]
    found = tokens(law, x)
    assert set(np.unique(found)) == set(range(law.levels))
    assert (np.diff(found) >= 0).all()
    y, mu = companded(x / law.full, law.levels - 1), law.levels - 1
    back = law.inverse(found.astype(np.float64))
    assert np.abs(companded(back / law.full, mu) - y).max() <= 1 / law.levels + 1e-6
    assert np.abs(back).max() <= law.full
    opposite = (law.levels - 1) - tokens(law, -x.astype(np.float32))
    np.testing.assert_array_equal(found[x != 0], opposite[x != 0])


@pytest.mark.parametrize("name", LAWS)
def test_tokens_decode_to_the_centres_of_their_cells(name):
    law, x = LAWS[name]
    all_tokens = np.arange(law.levels)
    amplitudes = law.inverse(all_tokens.astype(np.float64))
    centres = (2 * all_tokens + 1) / law.levels - 1
    np.testing.assert_allclose(companded(amplitudes / law.full, law.levels - 1), centres, atol=1e-12)
    stored = np.rint(amplitudes) if x.dtype == np.int16 else amplitudes
    np.testing.assert_array_equal(tokens(law, stored.astype(x.dtype)), all_tokens)
    np.testing.assert_allclose(law.inverse(jnp.asarray(all_tokens, jnp.float32)), amplitudes, rtol=1e-4)


def test_loud_samples_are_clipped_and_invalid_settings_raise():
    np.testing.assert_array_equal(tokens(MuLaw(1.0), np.float32([-3.0, 3.0])), [0, 255])
    for wrong in ((0.0, 256), (1.0, 1)):
        with pytest.raises(UserError, match="mu-law needs"):
            MuLaw(*wrong)


LENGTHS = [5, 40, 64, 90, 1, 64, 33, 12]


@pytest.fixture
def recordings(tmp_path):
    """Eight clips, the last two of the test split."""
    clips = [RNG.integers(-(2**15), 2**15, n).astype(np.int16) for n in LENGTHS]
    arrays = {
        "audio": np.concatenate(clips),
        "offsets": np.cumsum([0, *LENGTHS]),
        "label": np.arange(8, dtype=np.uint8) % 3,
        "is_test": np.arange(8) >= 6,
    }
    path = tmp_path / "clips.npz"
    np.savez(path, **arrays)
    return str(path), clips, arrays


def test_clips_are_the_recordings_padded_with_zeros(recordings):
    path, clips, _ = recordings
    source = Clips(path, length=64, classes=3)
    for split, chosen in (("train", range(6)), ("test", (6, 7))):
        rows = source.load(split)[np.arange(len(chosen))]
        assert rows["x"].shape[1:] == source.shape == (64, 1)
        assert rows["x"].dtype.name == source.dtype
        assert rows["label"].dtype == np.int32
        assert rows["label"].tolist() == [i % 3 for i in chosen]
        for row, i in zip(rows["x"][..., 0], chosen, strict=True):
            kept = min(len(clips[i]), 64)
            np.testing.assert_array_equal(row[:kept], clips[i][:kept])
            assert not row[kept:].any()


def test_clips_without_a_split_are_split_and_without_labels_unlabelled(recordings, tmp_path):
    _, _, arrays = recordings
    path = tmp_path / "plain.npz"
    np.savez(path, audio=np.stack([arrays["audio"]] * 2, 1) / np.float32(2**15), offsets=arrays["offsets"])
    source = Clips(str(path), length=64, channels=2, dtype="float32")
    train, test = (source.load(split).arrays["x"] for split in source.splits)
    assert (train.shape, test.shape) == ((7, 64, 2), (1, 64, 2))
    assert source.levels == 0


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({}, {"label": "labels"}, "no array 'labels' .*did you mean 'label'"),
        ({"label": np.arange(8)}, {}, r"'label' of .* is 3 at example 3: one class index of 0 \.\.\. 2"),
        ({"offsets": np.array([0, 9, 7, 20])}, {}, "offsets of .* must increase"),
        ({"is_test": np.zeros(8, bool)}, {}, "'is_test' of .* must split the 8 clips in two"),
        ({}, {"dtype": "float32"}, "int16 with 1 channels, not float32 with 1: set dtype and channels"),
    ],
)
def test_unsuitable_npz_files_raise(recordings, tmp_path, changes, options, words):
    path = tmp_path / "other.npz"
    np.savez(path, **{**recordings[2], **changes})
    with pytest.raises(UserError, match=words):
        Clips(str(path), 64, **{"classes": 3, **options}).load("train")


@pytest.fixture
def folder(tmp_path):
    """(path, recordings by class): stereo files of six lengths in two classes, and a file that is not audio."""
    found = {"a": [], "b": []}
    for number, length in enumerate((150, 64, 10, 63, 200, 129)):
        sound = RNG.integers(-(2**15), 2**15, (length, 2)).astype("<i2")
        name = "ab"[number % 2]
        (tmp_path / "sounds" / name).mkdir(parents=True, exist_ok=True)
        wavfile.write(tmp_path / "sounds" / name / f"{number}.wav", RATE, sound)
        found[name].append(sound)
    (tmp_path / "sounds" / "a" / "notes.txt").write_text("not a sound")
    return str(tmp_path / "sounds"), found


@pytest.mark.parametrize("memory_mib", [0, 1])
def test_recordings_of_a_folder_are_cut_into_segments(folder, memory_mib):
    """Every disjoint segment once, with its class, as SciPy reads them, in memory or read on access."""
    path, found = folder
    expected = []
    for label, name in enumerate("ab"):
        for sound in found[name]:
            padded = np.pad(sound, ((0, max(0, 64 - len(sound))), (0, 0)))
            expected += [(padded[i : i + 64].tobytes(), label) for i in range(0, len(padded) - 63, 64)]
    source = SoundFolder(path, length=64, channels=2, test=0.3, memory_mib=memory_mib)
    assert source.class_names == ("a", "b")
    assert source.describe() == (
        "6 recordings (4 train, 2 test), 2 classes (a 3, b 3); left out: 1 .txt; read as 64x2 samples at 8000 Hz, int16"
    )
    assert source.classes == 2
    parts = []
    for split in source.splits:
        examples = source.load(split)
        assert isinstance(examples, Table) == bool(memory_mib)
        rows = examples[np.arange(len(examples))[::-1]]
        assert rows["x"].shape[1:] == source.shape == (64, 2)
        assert (rows["x"].dtype, rows["label"].dtype) == (np.dtype(source.dtype), np.int32)
        parts.append([(x.tobytes(), label) for x, label in zip(rows["x"], rows["label"], strict=True)])
    assert sorted(parts[0] + parts[1]) == sorted(expected)
    assert all(parts)


def test_unsuitable_recordings_raise(folder, tmp_path):
    path, _ = folder
    with pytest.raises(UserError, match="2 channels at 8000 Hz, not 1 at 8000 Hz: set channels"):
        SoundFolder(path, length=64).load("train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no recordings \(\.wav\) in the folder"):
        SoundFolder(str(tmp_path / "empty")).load("train")
    with pytest.raises(UserError, match="no folder"):
        SoundFolder(str(tmp_path / "none")).load("train")
    (tmp_path / "sounds" / "a" / "bad.wav").write_text("not a sound")
    with pytest.raises(UserError, match=r"cannot read the recording '.*bad\.wav'"):
        SoundFolder(path, length=64, channels=2, test=0.0).load("train")


def test_written_wav_files_are_read_by_scipy(tmp_path):
    stereo = RNG.integers(-(2**15), 2**15, (100, 2)).astype(np.int16)
    write_wav(tmp_path / "a.wav", stereo, RATE)
    rate, back = wavfile.read(tmp_path / "a.wav")
    assert rate == RATE
    np.testing.assert_array_equal(back, stereo)
    write_wav(tmp_path / "b.wav", np.array([[0.0], [1.0], [-1.0], [9.0], [np.nan], [0.5]]), 16_000)
    rate, back = wavfile.read(tmp_path / "b.wav")
    assert rate == 16_000
    np.testing.assert_array_equal(back, [0, 32767, -32767, 32767, 0, 16384])
    with pytest.raises(UserError, match="not uint8"):
        write_wav(tmp_path / "c.wav", np.zeros((3, 1), np.uint8), RATE)


def test_spectrograms_show_time_and_frequency_of_tones():
    """One second of 1 kHz, then one of 3 kHz: the loudest row of each column, to the resolution of the window."""
    t = np.arange(2 * RATE) / RATE
    levels = decibels(np.sin(2 * np.pi * np.where(t < 1, 1000, 3000) * t), RATE)
    frequency = levels.argmax(0) * (RATE / 2) / (len(levels) - 1)
    time = np.linspace(0, 2, levels.shape[1])
    assert np.abs(frequency[time < 0.9] - 1000).max() < 20
    assert np.abs(frequency[time > 1.1] - 3000).max() < 20
    assert levels.max() == 0.0
    assert levels.min() >= FLOOR
    np.testing.assert_array_equal(decibels(np.zeros(500, np.int16), RATE), FLOOR)


def test_audio_samples_are_exported_as_files_and_pictures(recordings, tmp_path):
    """Files at the source's rate replace those of an earlier call; pictures show a spectrogram of each."""
    path, _, _ = recordings
    data = Data(Clips(path, length=64, rate=11_025), (MuLaw(),))
    samples = data.load("train").arrays["x"]
    exports.export(tmp_path / "drawn", data, samples)
    assert "3 sounds of 11025" in exports.export(tmp_path / "drawn", data, samples[:3])
    files = sorted((tmp_path / "drawn_wav").iterdir())
    assert [file.name for file in files] == ["000.wav", "001.wav", "002.wav"]
    rate, back = wavfile.read(files[2])
    assert rate == 11_025
    np.testing.assert_array_equal(back, samples[2, :, 0])
    assert show(data, samples).size == (800, 600)
    np.savez(tmp_path / "same.npz", x=samples)
    stored = Data(Npz(str(tmp_path / "same.npz"), kind="audio", rate=500))
    assert "of 500 samples" in exports.export(tmp_path / "more", stored, samples)


@pytest.mark.slow
def test_the_decoding_benchmark_times_the_same_samples_drawn_in_two_ways():
    from experiments.decoding_speed_wavenet import measure

    timings = measure((2, 4), rounds=2, width=4, naive_steps=4)
    assert [timing.field for timing in timings] == [4, 16]
    for timing in timings:
        assert len(timing.cached) == len(timing.naive) == 2
        assert timing.speedup > 0
