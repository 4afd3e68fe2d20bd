"""WAV files and spectrograms."""

import wave
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Shaped
from numpy import ndarray
from scipy import signal

from genjax.core.errors import UserError
from genjax.core.files import writing

WINDOW = 256  # samples per spectrum
FLOOR = -80.0  # lowest value of a spectrogram in decibels relative to the maximum


def write_wav(path: Path, sound: Shaped[ndarray, "n c"], rate: int) -> None:
    """Writes one sound as a 16-bit WAV file.

    Args:
        path: path of the file in an existing folder.
        sound: int16, or floating point clipped to [-1, 1] and scaled so that 1 becomes 32767.
        rate: sampling rate in Hz.

    Raises:
        UserError: the dtype is neither int16 nor floating point, or the file cannot be written.
    """
    if np.issubdtype(sound.dtype, np.floating):
        sound = np.rint(np.clip(np.nan_to_num(sound), -1.0, 1.0) * 32767)
    elif sound.dtype != np.int16:
        raise UserError(f"sounds are written from int16 or floating point samples, not {sound.dtype}")
    with writing(path), wave.open(str(path), "wb") as file:
        file.setnchannels(sound.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(sound.astype("<i2").tobytes())


def decibels(sound: Shaped[ndarray, " n"], rate: int) -> Float64[ndarray, "frequencies times"]:
    """Spectrogram in decibels.

    Args:
        sound: samples of one channel.
        rate: sampling rate in Hz.

    Returns:
        10 log10 of the power relative to its maximum, clipped below at `FLOOR` (silence is `FLOOR` everywhere); rows
        are evenly spaced from 0 to rate / 2 Hz.
    """
    size = min(WINDOW, len(sound))
    _, _, power = signal.spectrogram(sound.astype(np.float64), rate, nperseg=size, noverlap=size * 3 // 4)
    return 10 * np.log10(np.maximum(power / max(power.max(), 1e-30), 10 ** (FLOOR / 10)))
