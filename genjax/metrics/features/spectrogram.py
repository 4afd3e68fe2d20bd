"""Log-mel spectrograms, the features of sounds.

A sound is split into frames of N samples, the power of two nearest to 1/32 s, which overlap by half. Each frame, times
the Hann window w, has the one-sided power spectrum

    P_k = c_k |DFT(w x)_k|^2 / (N sum w^2),    c_k = 1 at 0 and the highest frequency, else 2,

so that sum_k P_k = sum (w x)^2 / sum w^2, the frame's mean square (Parseval); a sine of amplitude a has a^2 / 2. Bands
are triangles with centres equally spaced in mel, m(f) = 2595 log10(1 + f / 700) (O'Shaughnessy 1987); the first is flat
below its centre and the last above. They sum to 1 at every frequency, so power is preserved. A spectrogram is 10 log10
of the bands' power relative to full scale, at least `FLOOR`, in decibels.
"""

import math

import numpy as np
from jaxtyping import Float64, Shaped
from numpy import ndarray
from scipy import signal

from genjax.core.errors import UserError

FLOOR = -80.0  # decibels of full scale


def mel(hertz: Float64[ndarray, "..."]) -> Float64[ndarray, "..."]:
    """Mel of frequencies in Hz."""
    return 2595.0 * np.log10(1.0 + hertz / 700.0)


def mel_bands(bands: int, size: int, rate: int) -> Float64[ndarray, "bands frequencies"]:
    """Weights of each band at the frequencies 0, rate / size, ..., rate / 2.

    Args:
        bands: number of bands, at least 2.
        size: N, even.
        rate: sample rate in Hz.

    Returns:
        [bands, size / 2 + 1], columns sum to 1.
    """
    at = mel(np.arange(size // 2 + 1) * (rate / size))
    centres = np.linspace(0.0, at[-1], bands + 2)[1:-1]
    return np.stack([np.interp(at, centres, height) for height in np.eye(bands)])


def frame_size(rate: int, length: int) -> int:
    """N for sounds of `length` samples: the power of two nearest to rate / 32, at most the length."""
    nearest = 2 ** max(3, round(math.log2(rate / 32)))
    return min(nearest, 2 ** int(math.log2(length)))


def full_scale(dtype: np.dtype) -> float:
    """The full-scale amplitude: 1 for floating point, 32768 for int16.

    Raises:
        UserError: another dtype.
    """
    if np.issubdtype(dtype, np.floating):
        return 1.0
    if not np.issubdtype(dtype, np.signedinteger):
        raise UserError(f"sounds are signed integers or floating point in [-1, 1], not {dtype}")
    return float(2 ** (np.iinfo(dtype).bits - 1))


def mel_power(
    sounds: Shaped[ndarray, "n t c"], rate: int, bands: int = 40
) -> Float64[ndarray, "n frames bands c"]:
    """Power in each band over time, relative to full scale squared.

    Args:
        sounds: signed integers, or floating point in [-1, 1], [n, t, c], t >= 8.
        rate: sample rate in Hz.
        bands: number of bands.

    Returns:
        Power float64 [n, frames, bands, c].

    Raises:
        UserError: another dtype, t < 8, or a rate of 0 or less.
    """
    if rate <= 0 or sounds.shape[1] < 8:
        raise UserError(
            f"a spectrogram needs 8 samples or more and a rate above 0, not {sounds.shape[1]} and {rate}"
        )
    size = frame_size(rate, sounds.shape[1])
    x = sounds.astype(np.float64) / full_scale(sounds.dtype)
    frequencies, _, density = signal.spectrogram(
        x, rate, window="hann", nperseg=size, noverlap=size // 2, detrend=False, axis=1
    )
    power = density * frequencies[1]  # [n, frequencies, c, frames]; density is per Hz
    return np.einsum("bf,nfct->ntbc", mel_bands(bands, size, rate), power)


def log_mel(
    sounds: Shaped[ndarray, "n t c"], rate: int, bands: int = 40, max_frames: int = 32, chunk: int = 256
) -> Float64[ndarray, "n frames bands c"]:
    """Log-mel spectrograms in decibels relative to full scale, at least `FLOOR`.

    Args:
        sounds: see `mel_power`.
        rate: sample rate in Hz.
        bands: number of bands.
        max_frames: upper limit on frames; beyond it, the power of adjacent frames is averaged (a remainder is dropped).
        chunk: sounds processed at once.

    Returns:
        Decibels float64 [n, frames, bands, c].

    Raises:
        UserError: see `mel_power`.
    """

    def one(block: Shaped[ndarray, "m t c"]) -> Float64[ndarray, "m frames bands c"]:
        power = mel_power(block, rate, bands)
        together = -(-power.shape[1] // max_frames)
        frames = power.shape[1] // together
        power = power[:, : frames * together]
        power = power.reshape(len(block), frames, together, *power.shape[2:]).mean(axis=2)
        return 10.0 * np.log10(np.maximum(power, 10.0 ** (FLOOR / 10.0)))

    return np.concatenate([one(sounds[i : i + chunk]) for i in range(0, len(sounds), chunk)])
