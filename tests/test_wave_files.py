"""Recordings as .wav files: every encoding against an encoder of its own, every cut, every size in the header."""

import itertools
import math
import struct
import tracemalloc

import numpy as np
import pytest
from scipy.io import wavfile

from genjax.core.errors import UserError
from genjax.data import SoundFolder
from genjax.data.wave_files import read_wave, read_wave_header

RATE, GUID = 8000, bytes.fromhex("000000001000800000aa00389b71")
ENCODINGS = [("pcm", 8), ("pcm", 16), ("pcm", 24), ("pcm", 32), ("float", 32), ("float", 64)]
FORMATS = [*itertools.product(ENCODINGS, (False, True), (1, 2, 3))]
UNKNOWN = 2**32 - 1


def stored(encoding, rng, count):
    """Values as stored, extremes among them, and the int16 values that they mean, in exact arithmetic."""
    kind, bits = encoding
    if kind == "float":
        values = [-1.0, 1.0, 0.0, 0.5, *rng.uniform(-1, 1, count - 4)]
        values = [float(np.dtype(f"f{bits // 8}").type(value)) for value in values]
        data = b"".join(struct.pack("<f" if bits == 32 else "<d", value) for value in values)
        amplitudes = values
    else:
        full = 2 ** (bits - 1)
        values = [-full, full - 1, 0, -1, *map(int, rng.integers(-full, full, count - 4))]
        offset = full if bits == 8 else 0
        data = b"".join((value + offset).to_bytes(bits // 8, "little", signed=bits > 8) for value in values)
        amplitudes = [value / full for value in values]  # exact: powers of two
    return data, [min(round(32768 * a), 32767) for a in amplitudes]


def chunk(name, data, size=None, pad=True):
    padding = b"\0" if pad and len(data) % 2 else b""
    return name + struct.pack("<I", len(data) if size is None else size) + data + padding


def fmt(encoding, channels, extensible=False, **changes):
    kind, bits = encoding
    number = changes.get("number", 1 if kind == "pcm" else 3)
    frame = changes.get("frame", channels * bits // 8)
    fields = struct.pack(
        "<HHIIHH", 0xFFFE if extensible else number, channels, RATE, RATE * frame, frame, bits
    )
    if extensible:
        fields += struct.pack("<HHIH", 22, bits, 0, number) + GUID
    return chunk(b"fmt ", fields)


def riff(*chunks, size=None, name=b"RIFF"):
    body = b"WAVE" + b"".join(chunks)
    return name + struct.pack("<I", len(body) if size is None else size) + body


def read(file):
    wave = read_wave_header(str(file))
    return read_wave(wave, 0, wave.samples)


def in_folder(tmp_path, data, channels, length=8):
    """Bytes read by the source, as both splits of a folder."""
    for split in ("train", "test"):
        (tmp_path / split).mkdir(parents=True, exist_ok=True)
        (tmp_path / split / "a.wav").write_bytes(data)
    source = SoundFolder(str(tmp_path), length=length, rate=RATE, channels=channels)
    return source.load("train")[np.arange(1)]["x"][0]


@pytest.mark.parametrize(("encoding", "extensible", "channels"), FORMATS)
def test_every_encoding_is_read_as_its_encoder_meant(tmp_path, encoding, extensible, channels):
    data, meant = stored(encoding, np.random.default_rng(channels), 8 * channels)
    expected = np.array(meant, np.int16).reshape(8, channels)
    header = fmt(encoding, channels, extensible)
    file = tmp_path / "x.wav"
    file.write_bytes(riff(chunk(b"LIST", b"odd"), header, chunk(b"data", data), chunk(b"LIST", b"tail")))
    np.testing.assert_array_equal(read(file), expected)
    wave = read_wave_header(str(file))
    for start in range(8):
        np.testing.assert_array_equal(read_wave(wave, start, 8 - start), expected[start:])
    if encoding[0] == "pcm":  # a second reader, of the stored values
        raw = wavfile.read(file)[1].reshape(8, channels).astype(np.float64)
        amplitude = {8: (raw - 128) / 128, 16: raw / 2**15}.get(encoding[1], raw / 2.0**31)
        np.testing.assert_array_equal(np.minimum(np.rint(amplitude * 32768), 32767), expected)
    np.testing.assert_array_equal(
        in_folder(tmp_path / "all", riff(header, chunk(b"data", data)), channels), expected
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [None, 0, UNKNOWN])
def test_every_cut_is_refused_unless_the_size_was_unknown(tmp_path, encoding, size):
    """All cuts of one file. With sizes of 0 or 2^32 - 1 the whole samples that are there are read."""
    channels, count = 3, 5
    data, meant = stored(encoding, np.random.default_rng(0), channels * count)
    expected = np.array(meant, np.int16).reshape(count, channels)
    header = fmt(encoding, channels)
    parts = (header, chunk(b"data", data, size, pad=False))
    whole = riff(*parts, size=size)
    first, frame = len(whole) - len(data), channels * encoding[1] // 8
    file = tmp_path / "x.wav"
    for cut in range(len(whole) + 1):
        file.write_bytes(whole[:cut])
        samples = (cut - first) // frame
        if (size is None and cut < len(whole)) or samples < 1:
            with pytest.raises(UserError, match=r"cannot read the recording '.*x\.wav': it ") as error:
                read(file)
            assert "\n" not in str(error.value)
        else:
            np.testing.assert_array_equal(read(file), expected[:samples])
    if size is None:
        file.write_bytes(riff(header, chunk(b"data", data, len(data) - 1, pad=False)))
        with pytest.raises(UserError, match="not whole samples"):
            read(file)


def test_chunks_after_the_audio_do_not_become_samples_and_cuts_in_them_do_not_go_unseen(tmp_path):
    data, meant = stored(("pcm", 16), np.random.default_rng(0), 6)
    whole = riff(fmt(("pcm", 16), 2), chunk(b"data", data), chunk(b"LIST", b"by A. N. Author "))
    file = tmp_path / "x.wav"
    for cut in range(len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"x\.wav"):
            read(file)
    file.write_bytes(whole + b"anything")
    np.testing.assert_array_equal(read(file).ravel(), meant)


def test_files_beyond_4_gib_have_their_size_elsewhere(tmp_path):
    data, meant = stored(("pcm", 16), np.random.default_rng(0), 6)
    sizes = lambda audio: chunk(b"ds64", struct.pack("<QQQI", 0, audio, 0, 0))
    parts = lambda audio: (sizes(audio), fmt(("pcm", 16), 2), chunk(b"data", data, UNKNOWN))
    file = tmp_path / "x.wav"
    file.write_bytes(riff(*parts(len(data)), chunk(b"LIST", b"tail"), size=UNKNOWN, name=b"RF64"))
    np.testing.assert_array_equal(read(file).ravel(), meant)
    file.write_bytes(riff(*parts(2**40), size=UNKNOWN, name=b"RF64"))
    with pytest.raises(UserError, match=r"x\.wav': it is cut: 1,099,511,627,776 bytes"):
        read(file)


PCM_16, AUDIO = ("pcm", 16), chunk(b"data", bytes(8))
DAMAGED = {
    "empty file": (b"", "it is cut"),
    "text": (b"this is no sound at all", "not a RIFF/WAVE file"),
    "big-endian": (riff(fmt(PCM_16, 1), AUDIO, name=b"RIFX"), "not a RIFF/WAVE file"),
    "no audio": (riff(fmt(PCM_16, 1), chunk(b"data", b"")), "it has no audio"),
    "no audio, tagged": (
        riff(fmt(PCM_16, 1), chunk(b"data", b""), chunk(b"LIST", b"tail")),
        "it has no audio",
    ),
    "no data": (riff(fmt(PCM_16, 1)), "it has no audio"),
    "no format": (riff(AUDIO), "its audio comes before its format"),
    "short format": (riff(chunk(b"fmt ", bytes(14)), AUDIO), "its format is cut"),
    "2 GB of format": (riff(chunk(b"fmt ", bytes(16), 2**31), AUDIO), "2,147,483,648 bytes of 'fmt'"),
    "2 GB of audio": (riff(fmt(PCM_16, 1), chunk(b"data", bytes(8), 2**31)), "2,147,483,648 bytes of audio"),
    "2 GB in all": (riff(fmt(PCM_16, 1), AUDIO, size=2**31), "its header says 2,147,483,656 bytes"),
    "mu-law": (riff(fmt(("pcm", 8), 1, number=7), AUDIO), "its encoding is mu-law: convert it"),
    "unknown": (riff(fmt(("pcm", 16), 1, number=999), AUDIO), "its encoding is number 999"),
    "12 bits": (riff(fmt(("pcm", 12), 2), AUDIO), "12 bits per sample"),
    "16 bits of float": (riff(fmt(("float", 16), 1), AUDIO), "16 bits per sample: .*one of: 32, 64"),
    "no channels": (riff(fmt(PCM_16, 0), AUDIO), "header is damaged: 0 channels"),
    "frame": (riff(fmt(PCM_16, 2, frame=2), AUDIO), "header is damaged: 2 channels of 16 bits in 2 bytes"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused_in_one_line_with_their_name(tmp_path, name):
    data, words = DAMAGED[name]
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=rf"cannot read the recording '.*a\.wav': .*{words}") as error:
            in_folder(tmp_path, data, 1)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.0001, -2.0])
def test_floats_outside_full_scale_are_refused(tmp_path, bits, bad):
    values = [0.1, -1.0, 1.0, bad]
    data = b"".join(struct.pack("<f" if bits == 32 else "<d", value) for value in values)
    with pytest.raises(UserError, match=r"a\.wav': sample 1 is .*, outside \[-1, 1\]"):
        in_folder(tmp_path, riff(fmt(("float", bits), 2), chunk(b"data", data)), 2)


def test_a_file_that_becomes_shorter_after_its_header_was_read_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    for split in ("train", "test"):
        wavfile.write(tmp_path / split / "a.wav", RATE, np.arange(1, 20, dtype=np.int16))
    source = SoundFolder(str(tmp_path), length=8, rate=RATE, memory_mib=0)
    examples = source.load("train")
    file = tmp_path / "train" / "a.wav"
    file.write_bytes(file.read_bytes()[:-20])
    np.testing.assert_array_equal(examples[np.array([0])]["x"][0, :, 0], np.arange(1, 9))
    with pytest.raises(UserError, match=r"a\.wav': it is cut"):
        examples[np.array([1])]
    file.unlink()
    with pytest.raises(UserError, match=r"a\.wav': No such file"):
        examples[np.array([0])]


@pytest.mark.parametrize("field", ["length", "rate", "channels"])
def test_sizes_are_positive(field):
    with pytest.raises(UserError, match=f"{field}=0"):
        SoundFolder("x", **{field: 0})
