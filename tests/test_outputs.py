"""Output distributions are normalised, and their logits element by element give their joint probability."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from test_networks import filled

from genjax.core.errors import UserError
from genjax.distributions.outputs import Categorical, LogisticMixture, log_bin
from genjax.networks import PixelCNN
from genjax.objectives.autoregressive import Autoregressive

KEY = jax.random.key(0)


@pytest.mark.parametrize("log_scale", [-6.9, -3.0, 0.0, 3.0])
def test_bins_are_differences_of_the_logistic_function_and_sum_to_one(log_scale):
    x = jnp.arange(256)
    found = np.asarray(log_bin(x, jnp.float32(0.3), jnp.float32(log_scale), 256), np.float64)
    edges = (2 * np.arange(1, 256) - 1) / 255 - 1
    law = stats.logistic(0.3, np.exp(log_scale))
    upper = np.concatenate([law.logcdf(edges), [0.0]])
    expected = np.diff(np.concatenate([[0.0], law.cdf(edges), [1.0]]))
    assert abs(np.exp(found).sum() - 1) < 1e-5
    large = expected > 1e-10
    np.testing.assert_allclose(found[large], np.log(expected[large]), rtol=2e-4, atol=2e-4)
    assert np.all(np.isfinite(found)), "tails are not cut off"
    assert upper[0] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.parametrize(
    ("output", "channels"), [(Categorical(), 1), (LogisticMixture(2), 1), (LogisticMixture(3), 3)]
)
def test_all_pixels_sum_to_one_and_channels_multiply(output, channels):
    values, rng = 5, np.random.default_rng(0)
    out = jnp.asarray(rng.normal(size=(1, 1, *output.features(channels, values))), jnp.float32)
    x = jnp.asarray(list(itertools.product(range(values), repeat=channels)))
    wide = jnp.broadcast_to(out, (len(x), *out.shape[1:]))
    log_p = jax.jit(lambda out, x: output.log_prob(out, x, values))(wide, x[:, None])[:, 0]
    assert abs(float(jnp.exp(log_p).sum()) - 1) < 1e-5
    total = 0.0
    for channel in range(channels):
        logits = jax.nn.log_softmax(output.logits(wide[:, 0], x, channel, values))
        total = total + np.asarray(logits)[np.arange(len(x)), np.asarray(x)[:, channel]]
    np.testing.assert_allclose(total, log_p, atol=2e-5)
    if channels > 1:  # what comes later must not matter
        later = x.at[:, 1:].set(0)
        np.testing.assert_array_equal(
            output.logits(wide[:, 0], x, 0, values), output.logits(wide[:, 0], later, 0, values)
        )


@pytest.mark.slow
@pytest.mark.parametrize("cached", [True, False])
def test_samples_of_colour_images_follow_their_log_probability(cached):
    """Two pixels of two channels of three values: 81 images, 4,000 draws, by a chi-square test."""
    net = PixelCNN(width=4, depth=2, hidden=4, levels=3)
    objective = Autoregressive(net, (2, 1, 2), 3, output=LogisticMixture(2), cached=cached)
    x = jnp.asarray(list(itertools.product(range(3), repeat=4))).reshape(81, 2, 1, 2)
    params = {"net": filled(net, objective._shifted(x), None, None, out=objective._out)}
    log_p = np.asarray(jax.jit(lambda x: objective.log_prob(params, {}, {"x": x}, KEY))(x))
    assert abs(np.exp(log_p).sum() - 1) < 1e-5
    done = jax.jit(lambda key: objective.generate(params, key, 4000))(jax.random.key(1))
    code = np.asarray(done.tokens) @ np.array([27, 9, 3, 1])
    expected, found = 4000 * np.exp(log_p), np.bincount(code, minlength=81)
    likely = expected > 5
    cells = np.append(expected[likely], expected[~likely].sum() + 1e-9)
    counts = np.append(found[likely], found[~likely].sum())
    size = likely.sum()
    assert ((counts - cells) ** 2 / np.maximum(cells, 1.0)).sum() < size + 4 * (2 * size) ** 0.5
    np.testing.assert_allclose(np.asarray(done.log_prob.sum(1)), log_p[code], atol=2e-5)


def test_a_mixture_of_logistics_needs_channels():
    with pytest.raises(UserError, match="for images or audio"):
        LogisticMixture().grid((7,))


def test_the_mean_of_a_channel_mixes_the_channels_before_it():
    """Three coefficients: of red for green, of red and of green for blue (Salimans et al. 2017, section 2.2)."""
    means, mixing = jnp.asarray([[1.0], [2.0], [3.0]]), jnp.asarray([[0.1], [0.2], [0.3]])
    parts = (jnp.zeros(1), means, jnp.zeros((3, 1)), mixing)
    x = jnp.asarray([1.0, 10.0, 100.0])
    found = [float(LogisticMixture(1)._channel(parts, x, channel)[0][0]) for channel in range(3)]
    np.testing.assert_allclose(found, [1.0, 2.0 + 0.1, 3.0 + 0.2 + 3.0], rtol=1e-6)
