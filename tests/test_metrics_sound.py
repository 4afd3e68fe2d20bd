"""Log-mel spectrograms: power by closed forms and sums, and rankings of sounds of known quality."""

import numpy as np
import pytest

from genjax.core.errors import UserError
from genjax.metrics.features.classifier import Recipe
from genjax.metrics.features.spectrogram import FLOOR, frame_size, log_mel, mel_bands, mel_power
from genjax.metrics.report import Settings, distribution_report

RATE, SIZE, BANDS = 8000, 256, 40
RNG = np.random.default_rng(0)
MEL = lambda hertz: 2595 * np.log(1 + hertz / 700) / np.log(10)


def hann(size):
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)


def test_bands_are_triangles_equally_spaced_in_mel_and_preserve_power():
    bands = mel_bands(BANDS, SIZE, RATE)
    np.testing.assert_allclose(bands.sum(axis=0), 1.0, atol=1e-12)
    step = MEL(RATE / 2) / (BANDS + 1)
    distance = np.abs(MEL(np.arange(SIZE // 2 + 1) * RATE / SIZE) / step - np.arange(1, BANDS + 1)[:, None])
    np.testing.assert_allclose(bands[1:-1], np.maximum(1 - distance, 0)[1:-1], atol=1e-12)
    assert [frame_size(rate, 10**6) for rate in (8000, 16000, 22050, 44100, 48000)] == [
        256,
        512,
        512,
        1024,
        2048,
    ]
    assert frame_size(8000, 100) == 64


@pytest.mark.parametrize("k", [9, 40, 100])
def test_a_tone_has_its_closed_form(k):
    """a sin(2 pi k n / N) has power a^2 / 2; the Hann window puts 2/3 of it at k and 1/6 on each side."""
    a, n = 0.3, np.arange(1024)
    sound = a * np.sin(2 * np.pi * k * n / SIZE + 0.7)
    lines = np.zeros(SIZE // 2 + 1)
    lines[k - 1 : k + 2] = a**2 / 2 * np.array([1 / 6, 2 / 3, 1 / 6])
    found = mel_power(sound[None, :, None], RATE, BANDS)
    assert found.shape == (1, 7, BANDS, 1)
    np.testing.assert_allclose(
        found[0, :, :, 0], np.tile(mel_bands(BANDS, SIZE, RATE) @ lines, (7, 1)), atol=1e-12
    )
    db = log_mel(sound[None, :, None], RATE)[0, :, :, 0]
    centre = MEL(k * RATE / SIZE) / MEL(RATE / 2) * (BANDS + 1) - 1
    assert (np.abs(db.argmax(axis=1) - centre) <= 1).all()


def test_power_follows_parseval_and_the_fourier_sum():
    """Parseval in each frame, and each band by an explicit Fourier sum."""
    sound, w = RNG.normal(size=700) * 0.1, hann(SIZE)
    found = mel_power(sound[None, :, None], RATE, BANDS)[0, :, :, 0]
    frames = np.stack([sound[i : i + SIZE] for i in range(0, 700 - SIZE + 1, SIZE // 2)])
    np.testing.assert_allclose(found.sum(axis=1), ((w * frames) ** 2).sum(axis=1) / (w**2).sum())
    k = np.arange(SIZE // 2 + 1)
    sums = (w * frames) @ np.exp(-2j * np.pi * np.outer(np.arange(SIZE), k) / SIZE)
    power = np.where((k == 0) | (k == SIZE // 2), 1, 2) * abs(sums) ** 2 / (SIZE * (w**2).sum())
    np.testing.assert_allclose(found, power @ mel_bands(BANDS, SIZE, RATE).T, atol=1e-14)


def test_units_channels_and_silence():
    sound = (RNG.normal(size=(3, 512, 2)) * 3000).astype(np.int16)
    both = log_mel(sound, RATE)
    np.testing.assert_allclose(both, log_mel(sound / 32768.0, RATE))
    np.testing.assert_allclose(both[..., 1:], log_mel(sound[..., 1:], RATE))
    np.testing.assert_allclose(both, log_mel(sound, RATE, chunk=2))
    assert (log_mel(np.zeros((1, 512, 1), np.int16), RATE) == FLOOR).all()
    louder = mel_power(sound / 32768.0 * 10, RATE) / mel_power(sound, RATE)
    np.testing.assert_allclose(louder, 100.0)


def test_many_frames_are_averaged_in_power():
    sound = RNG.normal(size=(2, 6000, 1)) * 0.1
    power = mel_power(sound, RATE)
    assert power.shape[1] == 45
    expected = 10 * np.log10(power[:, :44].reshape(2, 22, 2, BANDS, 1).mean(axis=2))
    np.testing.assert_allclose(log_mel(sound, RATE), expected)


def tones(count, rng, noise=0.01):
    """Two classes: decaying low and high tones with overtones, of random pitch and amplitude."""
    kind, t = np.arange(count) % 2, np.arange(768) / RATE
    pitch = np.where(kind, 900, 250) * np.exp(rng.normal(size=count) * 0.15)
    loud = np.exp(rng.normal(size=count) * 0.3) * 0.1
    waves = sum(
        np.sin(2 * np.pi * h * pitch[:, None] * t + rng.uniform(0, 6, (count, 1))) / h for h in (1, 2, 3)
    )
    sound = loud[:, None] * waves * np.exp(-20 * t) + rng.normal(size=(count, 768)) * noise
    return (sound * 32767).clip(-32768, 32767).astype(np.int16)[..., None], kind


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(1)
    noise = (rng.normal(size=(200, 768, 1)) * 2000).astype(np.int16)
    quiet = rng.integers(-2, 3, (200, 768, 1)).astype(np.int16)
    return {
        "train": tones(400, rng)[0],
        "test": tones(200, rng)[0],
        "new": tones(200, rng)[0],
        "noisy": tones(200, rng, noise=0.05)[0],
        "noise": noise,
        "quiet": quiet,
    }


def test_reports_rank_real_before_noisy_before_noise_and_silence(sets):
    reports = {
        name: distribution_report(
            train=sets["train"], test=sets["test"], samples=sets[name], settings=Settings(folds=2)
        )
        for name in ("new", "noisy", "noise", "quiet")
    }
    new, noisy, noise, quiet = reports.values()
    assert new["features"] == "log mel"
    assert 0.7 < new["frechet_ratio"] < 1.4
    assert new["frechet_log_mel"] < noisy["frechet_log_mel"] < noise["frechet_log_mel"]
    assert noisy["frechet_log_mel"] < quiet["frechet_log_mel"]
    assert new["c2st_accuracy"] < 0.65 < 0.95 < min(noise["c2st_accuracy"], quiet["c2st_accuracy"])
    assert new["coverage"] > 0.8 > 0.1 > max(noise["coverage"], quiet["coverage"])
    assert len({report["frechet_log_mel_reference"] for report in reports.values()}) == 1


@pytest.mark.slow
@pytest.mark.optimised
def test_a_classifier_of_spectrograms_measures_label_accuracy():
    rng = np.random.default_rng(2)
    train, test, made = (tones(count, rng) for count in (400, 200, 200))
    settings = Settings(folds=2, recipe=Recipe(channels=(8,), steps=60))
    for labels, right in ((made[1], 1.0), (1 - made[1], 0.0)):
        report = distribution_report(
            train=train[0],
            test=test[0],
            samples=made[0],
            train_labels=train[1],
            test_labels=test[1],
            sample_labels=labels,
            settings=settings,
        )
        assert report["label_accuracy"] == pytest.approx(right, abs=0.03)
        assert report["classifier_accuracy"] > 0.97
        assert report["features"] == "log mel"


@pytest.mark.parametrize(
    ("sounds", "rate", "message"),
    [
        (np.zeros((1, 512, 1), np.uint8), 8000, "not uint8"),
        (np.zeros((1, 512, 1), np.int16), 0, "a rate above 0"),
        (np.zeros((1, 7, 1), np.int16), 8000, "8 samples or more"),
    ],
)
def test_invalid_sounds_raise_one_line(sounds, rate, message):
    with pytest.raises(UserError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
        log_mel(sounds, rate)
