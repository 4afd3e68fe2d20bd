"""Features of time that networks are given: known angles, told apart, frequencies as their law says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from genjax.networks.layers.time_features import fourier, sinusoidal


def test_sinusoidal_features_at_known_angles():
    waves = functools.partial(sinusoidal, dim=4, time_scale=1000.0, max_period=100.0)
    np.testing.assert_array_equal(waves(jnp.zeros(1)), [[1, 1, 0, 0]])
    t = jnp.asarray([np.pi / 2000, np.pi / 200])  # a quarter of the first wave, and of the second
    expected = [[0, np.cos(np.pi / 20), 1, np.sin(np.pi / 20)], [-1, 0, 0, 1]]
    np.testing.assert_allclose(waves(t), expected, atol=1e-5)


def test_sinusoidal_features_tell_a_thousand_steps_apart():
    features = np.asarray(sinusoidal(jnp.arange(1000) / 1000, 32), np.float64)
    gram = features @ features.T  # inner product 16 only where the times agree
    np.fill_diagonal(gram, 0)
    assert gram.max() < 15.999


def test_fourier_features_turn_with_time_at_normal_frequencies():
    t, s = jnp.asarray([0.013]), jnp.asarray([0.027])
    a, b, c = (np.asarray(fourier(u, 2048, 16.0))[0].reshape(2, -1) for u in (t, s, t + s))
    np.testing.assert_allclose(c[0], a[0] * b[0] - a[1] * b[1], atol=1e-4)
    np.testing.assert_allclose(c[1], a[1] * b[0] + a[0] * b[1], atol=1e-4)
    speed = jax.jvp(lambda t: fourier(t, 2048, 16.0), (jnp.zeros(1),), (jnp.ones(1),))[1][0, 1024:] / (
        2 * np.pi
    )
    assert abs(np.std(speed) / 16 - 1) < 4 / np.sqrt(2 * 1024)
    # E cos(2 pi w t) is the characteristic function of N(0, 16^2).
    assert abs(a[0].mean() - np.exp(-0.5 * (2 * np.pi * 16 * 0.013) ** 2)) < 4 / np.sqrt(1024)
