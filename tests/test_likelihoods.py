"""Likelihoods sum to 1; the optimal Gaussian maximises the likelihood; schedules and KL match closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genjax.data import Scale
from genjax.distributions import likelihoods
from genjax.distributions.elbo import Beta, Capacity, FreeBits, Terms, importance_bound
from genjax.distributions.flows.bijector import Chain
from genjax.distributions.flows.layers import Elementwise
from genjax.distributions.flows.linear import ActNorm
from genjax.distributions.flows.scalar import Spline
from genjax.distributions.likelihoods import (
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
    Gaussian,
    OptimalGaussian,
)
from genjax.distributions.priors import FlowPrior, Mixture, Normal, VampPrior

KEY = jax.random.key(0)


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


@pytest.mark.parametrize("likelihood", [DiscretizedLogistic(5), Categorical(5), DiscretizedLogistic(256)])
def test_discretised_likelihoods_sum_to_one_in_the_units_of_the_data(likelihood):
    """Over all examples of two channels; evaluation adds the log determinant of the scaling, as here."""
    levels = likelihood.levels
    values = range(levels) if levels < 10 else (0, 1, 77, 254, 255)
    integers = np.asarray(list(itertools.product(range(levels), values)), np.float32)[:, None]
    scale = Scale(0, levels - 1)
    x = scale.forward({"x": jnp.asarray(integers)}, KEY, False)["x"]
    out = normal(0, 1, *likelihood.outputs((1, 2)))
    log_p = jax.jit(likelihood.log_prob)(jnp.repeat(out, len(x), axis=0), x) + scale.log_det((1, 2))
    p = np.exp(np.asarray(log_p, np.float64)).reshape(levels, -1)
    if levels < 10:
        assert abs(p.sum() - 1) < 1e-5
    else:  # each column is the other channel's probability
        rest = Scale(0, 255).forward({"x": jnp.asarray(values, jnp.float32)[:, None, None]}, KEY, False)["x"]
        second = likelihood.log_prob(jnp.repeat(out[..., 1::2], 5, axis=0), rest) + scale.log_det((1, 1))
        np.testing.assert_allclose(p.sum(0), np.exp(second), rtol=1e-4)


@pytest.mark.parametrize("likelihood", [DiscretizedLogistic(5, noisy=True), Categorical(5, noisy=True)])
def test_samples_and_means_match_the_probabilities(likelihood):
    out, num = normal(1, 1, *likelihood.outputs((1,))), 4000
    wide = jnp.repeat(out, num, axis=0)
    drawn = likelihoods.to_integers(likelihood.sample(wide, KEY), 5)
    counts = np.bincount(np.asarray(drawn)[:, 0], minlength=5)
    values = likelihoods.from_integers(jnp.arange(5)[:, None], 5)
    p = np.exp(np.asarray(likelihood.log_prob(jnp.repeat(out, 5, axis=0), values), np.float64)) * 0.5
    keep = p * num > 5
    assert stats.chisquare(counts[keep], p[keep] / p[keep].sum() * counts[keep].sum()).pvalue > 1e-3
    if isinstance(likelihood, Categorical):
        mean = Categorical(5).sample(out, KEY)[0, 0]
        assert float(mean) == pytest.approx(float((p * np.asarray(values)[:, 0]).sum()), abs=1e-5)


def test_bernoulli_and_gaussian_match_scipy():
    out, x = normal(2, 3, 4), (normal(3, 3, 4) > 0).astype(jnp.float32)
    p = np.where(x > 0, jax.nn.sigmoid(out), jax.nn.sigmoid(-out))
    np.testing.assert_allclose(Bernoulli().log_prob(out, x), np.log(p).sum(1), rtol=1e-5)
    both = normal(4, 3, 8)
    distribution = stats.norm(both[:, :4], 0.3 * np.exp(both[:, 4:]))
    expected = distribution.logpdf(np.asarray(out)).sum(1)
    np.testing.assert_allclose(Gaussian(0.3, learned=True).log_prob(both, out), expected, rtol=1e-4)


def test_optimal_gaussian_maximises_the_likelihood_with_the_profile_gradient():
    likelihood, out, x = OptimalGaussian(decay=0.9), normal(5, 6, 7), normal(6, 6, 7)
    carried = likelihood.init_state()
    fitted = lambda out: likelihoods.fit_scale(likelihood, {"likelihood": carried}, out, x, True)
    total = lambda out: jnp.sum(fitted(out)[0].log_prob(out, x))
    grid = np.geomspace(0.5, 3.0, 2001)
    best = stats.norm(0.0, grid[:, None]).logpdf(np.asarray(x - out).reshape(1, -1)).sum(1).max()
    assert float(total(out)) == pytest.approx(best, abs=1e-3)
    profile = jax.grad(lambda out: -0.5 * x.size * jnp.log(jnp.mean((x - out) ** 2)))(out)
    np.testing.assert_allclose(jax.grad(total)(out), profile, rtol=1e-4, atol=1e-6)
    carried = fitted(out)[1]["likelihood"]
    carried = likelihood.fit_scale(carried, 3.0 * out, x)[1]
    first, second = (float(jnp.mean((x - o) ** 2)) for o in (out, 3.0 * out))
    expected = np.sqrt((0.9 * first + second) / 1.9)
    evaluated = likelihoods.fit_scale(likelihood, {"likelihood": carried}, out, x, False)
    assert float(jnp.exp(evaluated[0].log_std)) == pytest.approx(expected, rel=1e-5)
    assert evaluated[1] == {}


def test_kl_to_the_normal_prior_matches_monte_carlo():
    mean, log_std, num = normal(7, 1, 3), 0.5 * normal(8, 1, 3), 40_000
    z = mean + jnp.exp(log_std) * jax.random.normal(KEY, (num, 3))
    log_q = jax.scipy.stats.norm.logpdf(z, mean, jnp.exp(log_std))
    each = log_q - jax.scipy.stats.norm.logpdf(z)
    error = np.asarray(each).std(0) / np.sqrt(num)
    assert np.all(np.abs(np.asarray(each).mean(0) - Normal().kl({}, mean, log_std)[0]) < 4.5 * error)
    np.testing.assert_allclose(
        Normal().log_prob({}, z, lambda x: (x, x)), jax.scipy.stats.norm.logpdf(z).sum(1), rtol=1e-5
    )


FLOW = FlowPrior(Chain((ActNorm(), Elementwise(Spline(6, 3.0)))))


LATER = [pytest.param(prior, marks=pytest.mark.slow) for prior in (Mixture(3), FLOW)]


@pytest.mark.parametrize("prior", [Normal(), VampPrior(3), *LATER], ids=lambda p: type(p).__name__)
def test_prior_densities_integrate_to_one_and_match_samples(prior):
    """In one dimension: the density integrates to 1, and over intervals to the shares of samples."""
    posterior = lambda x: (2.0 * x, 0.3 * x - 0.5)
    params = prior.init(KEY, normal(9, 5, 1), (1,))
    if isinstance(prior, FlowPrior):
        params = jax.tree.map(lambda leaf: leaf + 0.7 * jax.random.normal(KEY, leaf.shape), params)
    if isinstance(prior, Mixture):
        params |= {"logits": jnp.asarray([0.0, 1.0, -1.0]), "log_std": normal(10, 3, 1)}
    line = jnp.linspace(-14.0, 14.0, 4001)[:, None]
    p = np.exp(np.asarray(prior.log_prob(params, line, posterior), np.float64)) * 28.0 / 4000
    assert p.sum() == pytest.approx(1.0, abs=1e-3)
    drawn = np.asarray(prior.sample(params, KEY, 8000, (1,), posterior))[:, 0]
    for low, high in ((-1.0, 0.5), (0.5, 2.0)):
        inside = (line[:, 0] > low) & (line[:, 0] <= high)
        assert ((drawn > low) & (drawn <= high)).mean() == pytest.approx(p[inside].sum(), abs=0.025)


def test_penalties_match_closed_forms_at_every_step():
    kl = jnp.asarray([[0.1, 2.0], [0.3, 4.0]])  # means 0.2 and 3.0
    terms = lambda kl: Terms(jnp.zeros((2, 1)), jnp.zeros((2, 1)), kl)
    at = lambda penalty, step: float(penalty.cost(terms(kl), None if step is None else jnp.asarray(step)))
    assert at(Beta(4.0), 0) == pytest.approx(12.8)
    assert [at(Beta(4.0, 10), step) for step in (0, 5, 10, 99, None)] == pytest.approx(
        [0, 6.4, 12.8, 12.8, 12.8]
    )
    capacity = [at(Capacity(10.0, 4.0, 8), step) for step in (0, 4, 8, 50, None)]
    assert capacity == pytest.approx([32.0, 12.0, 8.0, 8.0, 8.0])
    assert at(FreeBits(0.5), 3) == pytest.approx(0.5 + 3.0)
    assert at(FreeBits(2.5), 3) == pytest.approx(2.5 + 3.0)  # the mean over the batch first
    slope = jax.grad(lambda kl: FreeBits(0.5).cost(terms(kl), None))(kl)
    np.testing.assert_allclose(slope, [[0.0, 0.5], [0.0, 0.5]])


@pytest.mark.parametrize("samples", [7, 100, 123])
def test_importance_bound_is_the_log_of_the_mean_of_all_its_different_weights(samples):
    """In chunks of at most 50 draws, one of them smaller, or none."""
    drawn = []

    def log_weights(key, k):
        found = 2.0 * jax.random.normal(key, (2, k))
        jax.debug.callback(drawn.append, found)
        return found

    found = importance_bound(log_weights, KEY, samples)
    jax.effects_barrier()
    each = np.concatenate([np.asarray(chunk, np.float64) for chunk in drawn], axis=1)
    assert max(chunk.shape[1] for chunk in drawn) <= 50
    assert len(np.unique(each)) == each.size == 2 * samples
    np.testing.assert_allclose(found, np.log(np.exp(each).mean(axis=1)), rtol=1e-5)
