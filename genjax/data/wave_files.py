"""One reader of .wav files (RIFF/WAVE and its 64-bit form RF64): every encoding becomes int16.

PCM of 8, 16, 24 and 32 bits and floating point of 32 and 64 bits are read, also as WAVE_FORMAT_EXTENSIBLE. An amplitude
a in [-1, 1], where 1 is full scale (2^(bits - 1) of PCM), becomes round(32768 a), half to even; a = 1 becomes 32767.
So 16 bits are read as they are, and 8 bits exactly. Floating point outside [-1, 1] and NaN are refused.

The sizes in a header are checked against the file: a file that ends early is refused. A program that writes to a pipe
does not know the size of its audio and leaves 0 or 2^32 - 1: then the audio is what follows, and an incomplete last
sample is dropped.
"""

import contextlib
import dataclasses
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from jaxtyping import Int16

from genjax.core.errors import UserError

FULL = 2**15
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
NAMES = {2: "ADPCM", 6: "A-law", 7: "mu-law", 17: "ADPCM", 49: "GSM", 80: "MPEG", 85: "MP3"}
GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")  # of the subformats that are old format numbers
BITS = {PCM: (8, 16, 24, 32), FLOAT: (32, 64)}
UNKNOWN = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class WaveFile:
    """What the header of a .wav file says.

    Attributes:
        path: of the file.
        channels: number of channels.
        rate: sampling rate in Hz.
        bits: of a value.
        floating: floating point; False for integers.
        offset: of the audio in the file, in bytes.
        samples: per channel.
    """

    path: str
    channels: int
    rate: int
    bits: int
    floating: bool
    offset: int
    samples: int


@contextlib.contextmanager
def open_wave(path: str) -> Iterator[BinaryIO]:
    """Opens a .wav file; any exception in the context becomes a UserError with the file's name.

    Raises:
        UserError: the file cannot be read, is damaged, or has an encoding that is not read.
    """
    try:
        with open(path, "rb") as file:
            yield file
    except Exception as error:
        text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise UserError(f"cannot read the recording '{path}': {text.splitlines()[0]}") from error


def read_wave_header(path: str) -> WaveFile:
    """Reads the header of a .wav file, and checks that the audio is there.

    Raises:
        UserError: see `open_wave`; or there is no audio.
    """
    with open_wave(path) as file:
        length = os.fstat(file.fileno()).st_size
        kind, size, form = struct.unpack("<4sI4s", _exactly(file, 12))
        if kind not in (b"RIFF", b"RF64", b"BW64") or form != b"WAVE":
            raise UserError("it is not a RIFF/WAVE file")
        # The padding byte after an odd number of bytes is often left out.
        unfinished = size in (0, UNKNOWN) or size + 8 < length
        if size not in (0, UNKNOWN) and size + 8 > length + 1:
            raise UserError(f"it is cut: its header says {size + 8:,} bytes, it has {length:,}")
        long_size, encoding = None, None
        while True:
            if file.tell() >= length:
                raise UserError("it has no audio")
            name, size = struct.unpack("<4sI", _exactly(file, 8))
            left = length - file.tell()
            if name == b"data":
                break
            if size > left:
                raise UserError(
                    f"it is cut: {size:,} bytes of {_shown(name)} are announced, {left:,} are there"
                )
            if name == b"ds64":
                long_size = struct.unpack("<8xQ", _exactly(file, 16))[0]
                file.seek(size - 16, os.SEEK_CUR)
            elif name == b"fmt ":
                encoding = _encoding(_exactly(file, size))
            else:
                file.seek(size, os.SEEK_CUR)
            file.seek(size % 2, os.SEEK_CUR)
        if encoding is None:
            raise UserError("its audio comes before its format")
        channels, rate, bits, floating = encoding
        frame = channels * bits // 8
        if size == UNKNOWN and long_size is not None:
            size = long_size
        elif size == UNKNOWN or (size == 0 and unfinished):
            size = left - left % frame
        if size > left:
            raise UserError(f"it is cut: {size:,} bytes of audio are announced, {left:,} are there")
        if size % frame:
            raise UserError(f"its {size:,} bytes of audio are not whole samples of {frame} bytes")
        if size == 0:
            raise UserError("it has no audio")
        return WaveFile(path, channels, rate, bits, floating, file.tell(), size // frame)


def read_wave(wave: WaveFile, start: int, count: int) -> Int16[np.ndarray, "{count} {wave.channels}"]:
    """Reads samples of a .wav file.

    Args:
        wave: its header.
        start: first sample.
        count: number of samples.

    Returns:
        int16 [count, channels]; see the module's docstring.

    Raises:
        UserError: see `open_wave`; the file has become shorter; or its floating point is NaN or outside [-1, 1].
    """
    with open_wave(wave.path) as file:
        frame = wave.channels * wave.bits // 8
        file.seek(wave.offset + start * frame)
        data = np.frombuffer(_exactly(file, count * frame), np.uint8)
        if wave.floating:
            amplitude = data.view(f"<f{wave.bits // 8}").astype(np.float64)
            bad = np.flatnonzero(~(np.abs(amplitude) <= 1.0))
            if len(bad):
                raise UserError(
                    f"sample {start + bad[0] // wave.channels} is {amplitude[bad[0]]:g}, outside [-1, 1]: scale it"
                )
        elif wave.bits == 16:
            return data.view("<i2").astype(np.int16).reshape(count, wave.channels)
        elif wave.bits == 8:
            amplitude = (data.astype(np.float64) - 128) / 128
        else:
            wide = np.zeros((len(data) * 8 // wave.bits, 4), np.uint8)
            wide[:, 4 - wave.bits // 8 :] = data.reshape(len(wide), -1)
            amplitude = wide.view("<i4")[:, 0] / 2.0**31
        values = np.minimum(np.rint(amplitude * FULL), FULL - 1)
        return values.astype(np.int16).reshape(count, wave.channels)


def _encoding(fields: bytes) -> tuple[int, int, int, bool]:
    """Channels, rate, bits and whether values are floating point, of the chunk "fmt ".

    Raises:
        UserError: an encoding that is not read, or that contradicts itself.
    """
    if len(fields) < 16:
        raise UserError("its format is cut")
    number, channels, rate, _, frame, bits = struct.unpack_from("<HHIIHH", fields)
    if number == EXTENSIBLE:
        if len(fields) < 40:
            raise UserError("its format is cut")
        number = struct.unpack_from("<H", fields, 24)[0] if fields[26:40] == GUID_TAIL else EXTENSIBLE
    if number not in BITS:
        raise UserError(f"its encoding is {NAMES.get(number, f'number {number}')}: convert it to PCM")
    if bits not in BITS[number]:
        known = ", ".join(map(str, BITS[number]))
        raise UserError(f"it has {bits} bits per sample: convert it to PCM of 16 (one of: {known})")
    if channels < 1 or rate < 1 or frame != channels * bits // 8:
        raise UserError(
            f"its header is damaged: {channels} channels of {bits} bits in {frame} bytes at {rate} Hz"
        )
    return channels, rate, bits, number == FLOAT


def _exactly(file: BinaryIO, count: int) -> bytes:
    """Reads `count` bytes, which must not be more than the file has: memory is allocated for them.

    Raises:
        UserError: the file ends before.
    """
    left = os.fstat(file.fileno()).st_size - file.tell()
    data = file.read(count) if count <= left else b""
    if len(data) != count:
        raise UserError(f"it is cut: it ends {count - left:,} bytes early")
    return data


def _shown(name: bytes) -> str:
    return repr(name.decode("latin-1").strip())
