"""Penalties on the aggregate posterior against closed forms, direct sums, and the bound that they replace."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rows import ROWS
from tiny import Affine

from genjax.core.errors import UserError
from genjax.core.objective import Context
from genjax.distributions import aggregate
from genjax.distributions.aggregate import DIPVAE, MMD, BetaTCVAE
from genjax.distributions.elbo import ELBO, Beta, Terms, reparameterise
from genjax.objectives.latent.vae import VAE
from genjax.training import experiment

KEY = jax.random.key(0)
BATCH = {"x": jax.random.normal(jax.random.key(5), (12, 5))}
# one program each, compiled once for a shape
decompose = jax.jit(aggregate.decompose, static_argnames="size")
squared_mmd = jax.jit(aggregate.squared_mmd, static_argnames=("kernel", "scale"))
cost = jax.jit(lambda penalty, terms: penalty.cost(terms, None), static_argnums=0)


@functools.partial(jax.jit, static_argnames="samples")
def gaussian(mean, log_std, samples=1):
    """The terms of posteriors N(mean, std^2) [b, d] under the prior N(0, I); no likelihood."""
    z, log_q = reparameterise(mean, log_std, KEY, samples)
    log_p = jnp.sum(jax.scipy.stats.norm.logpdf(z), axis=-1)
    kl = 0.5 * (jnp.exp(2 * log_std) + mean**2 - 1) - log_std
    return Terms(jnp.zeros_like(log_q), log_p - log_q, kl, z, mean, log_std, jax.random.normal(KEY, z.shape))


@pytest.mark.parametrize("samples", [1, 3])
def test_equal_weights_of_beta_tc_give_the_kl_of_the_same_draws(samples):
    """The three parts of the KL sum to the mean of log q(z|x) - log p(z), whatever the number of examples."""
    vae = VAE(Affine(), Affine(), (5,), 3, bound=ELBO(BetaTCVAE(1000, 1.0, 1.0, 1.0), samples))
    terms = jax.jit(lambda: vae.terms(*vae.init(KEY, BATCH), BATCH, KEY, vae.bound)[0])()
    assert terms.z.shape == (12, samples, 3)
    assert terms.mean.shape == terms.log_std.shape == (12, 3)
    found = cost(vae.bound.penalty, terms)
    assert float(found) == pytest.approx(-float(jnp.mean(terms.log_ratio)), rel=1e-5)
    parts = decompose(terms, 7)
    weighted = cost(BetaTCVAE(7, 2.0, 3.0, 5.0), terms)
    assert float(weighted) == pytest.approx(float(2 * parts[0] + 3 * parts[1] + 5 * parts[2]), rel=1e-5)


def test_total_correlation_equals_closed_forms():
    """Of separate clusters on a diagonal, and of a correlated Gaussian; the data set is the batch, so N is 1."""
    count, dims = 4, 3
    mean = jnp.broadcast_to(20.0 * jnp.arange(count)[:, None], (count, dims))
    information, correlation, _ = decompose(gaussian(mean, jnp.full((count, dims), -1.0), 5), 1)
    assert float(information) == pytest.approx(np.log(count), abs=1e-4)
    assert float(correlation) == pytest.approx((dims - 1) * np.log(count), abs=1e-4)
    rho, std = 0.8, 0.5  # the aggregate is N(0, C + std^2 I)
    root = jnp.linalg.cholesky(jnp.asarray([[1.0, rho], [rho, 1.0]]))
    mean = jax.random.normal(jax.random.key(1), (1500, 2)) @ root.T
    found = decompose(gaussian(mean, jnp.full((1500, 2), jnp.log(std))), 1)[1]
    exact = -0.5 * np.log(1 - (rho / (1 + std**2)) ** 2)
    assert float(found) == pytest.approx(exact, abs=0.03)


def test_minibatch_weights_shift_the_parts_by_the_number_of_examples():
    terms = gaussian(jax.random.normal(jax.random.key(1), (6, 2)), jnp.zeros((6, 2)))
    one, ten = (np.asarray(decompose(terms, size)) for size in (1, 10))
    np.testing.assert_allclose(ten - one, np.log(10) * np.asarray([1.0, 1.0, -2.0]), rtol=1e-4)


@pytest.mark.parametrize("kernel", ["gaussian", "multiquadric"])
def test_mmd_is_the_double_sum_and_unbiased(kernel):
    x, y = np.asarray(jax.random.normal(KEY, (2, 5, 3))) + np.asarray([0.0, 1.0])[:, None, None]
    width = 2 * 3 * 0.7**2

    def k(a, b):
        squares = np.sum((a - b) ** 2)
        return np.exp(-squares / width) if kernel == "gaussian" else width / (width + squares)

    pairs = [(i, j) for i in range(5) for j in range(5)]
    direct = sum(k(x[i], x[j]) + k(y[i], y[j]) for i, j in pairs if i != j) / 20
    direct -= 2 * sum(k(x[i], y[j]) for i, j in pairs) / 25
    assert float(squared_mmd(jnp.asarray(x), jnp.asarray(y), kernel, 0.7)) == pytest.approx(direct, abs=1e-5)
    a, b = jax.random.normal(KEY, (2, 2000, 8, 3))
    found = jax.jit(jax.vmap(lambda x, y: squared_mmd(x, y, kernel, 1.0)))(a, b)
    error = float(jnp.std(found)) / np.sqrt(2000)
    assert abs(float(jnp.mean(found))) < 4 * error, "the biased estimate is positive"
    assert float(jnp.mean(jax.vmap(lambda x, y: squared_mmd(x, y, kernel, 1.0))(a, b + 1))) > 20 * error


def test_info_vae_weighs_kl_and_mmd():
    terms = gaussian(jax.random.normal(jax.random.key(1), (9, 2)) + 1.0, jnp.full((9, 2), -0.5), 2)
    each = [squared_mmd(terms.z[:, i], terms.prior[:, i], "gaussian", 1.0) for i in range(2)]
    kl = jnp.mean(jnp.sum(terms.kl, axis=1))
    found = cost(MMD(alpha=0.25, weight=10.0), terms)
    assert float(found) == pytest.approx(float(0.75 * kl + 9.25 * np.mean(each)), rel=1e-5)
    assert float(cost(MMD(alpha=0.0, weight=1.0), terms)) == pytest.approx(float(kl), rel=1e-6)


@pytest.mark.parametrize("kind", ["I", "II"])
def test_dip_is_the_covariance_formula_and_vanishes_for_independent_latents(kind):
    mean, log_std = np.asarray(jax.random.normal(KEY, (2, 9, 3)))
    terms = gaussian(jnp.asarray(mean), jnp.asarray(0.3 * log_std))
    kl = float(jnp.mean(jnp.sum(terms.kl, axis=1)))
    covariance = np.cov(mean.T, bias=True) + (kind == "II") * np.diag(np.exp(0.6 * log_std).mean(0))
    by_hand = sum(
        5.0 * (covariance[i, i] - 1) ** 2 if i == j else 2.0 * covariance[i, j] ** 2
        for i in range(3)
        for j in range(3)
    )
    assert float(cost(DIPVAE(kind, 2.0, 5.0), terms)) == pytest.approx(kl + by_hand, rel=1e-4)
    corners = jnp.asarray([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    std = jnp.full((4, 2), np.log(0.5))
    terms = gaussian(corners if kind == "I" else np.sqrt(0.75) * corners, std)
    assert float(cost(DIPVAE(kind), terms)) == pytest.approx(float(jnp.mean(jnp.sum(terms.kl, 1))), rel=1e-5)


def test_penalties_change_the_loss_and_not_the_reported_likelihood():
    vae = VAE(Affine(), Affine(), (5,), 3)
    params, extra = jax.jit(vae.init)(KEY, BATCH)
    plain = jax.jit(vae.log_prob)(params, extra, BATCH, KEY)
    losses = set()

    @functools.partial(jax.jit, static_argnums=0)
    def values(model):
        context = Context(KEY, jnp.zeros((), jnp.int32))
        return (
            model.log_prob(params, extra, BATCH, KEY),
            *model.loss(params, extra, BATCH, context),
            model.terms(params, extra, BATCH, jax.random.key(0), model.bound)[0],
        )

    for penalty in (Beta(), BetaTCVAE(1000), MMD(), DIPVAE("I"), DIPVAE("II")):
        model = dataclasses.replace(vae, bound=ELBO(penalty))
        log_prob, loss, aux, terms = values(model)
        np.testing.assert_allclose(log_prob, plain, rtol=1e-6)
        losses.add(round(float(loss), 3))
        assert float(aux.metrics["kl"]) == pytest.approx(float(jnp.mean(jnp.sum(terms.kl, 1))), rel=1e-5)
    assert len(losses) == 5


def test_a_ladder_has_no_single_posterior_and_is_refused():
    ladder = next(row.objective for row in ROWS.values() if type(row.objective).__name__ == "LadderVAE")
    assert ladder.penalty == Beta()
    terms = Terms(jnp.zeros((4, 1)), jnp.zeros((4, 1)), jnp.ones((4, 3)))
    for penalty in (BetaTCVAE(10), MMD(), DIPVAE()):
        with pytest.raises(UserError, match="requires one Gaussian posterior"):
            penalty.cost(terms, None)
    with pytest.raises(UserError, match="at least 2 examples"):
        MMD().cost(gaussian(jnp.zeros((1, 2)), jnp.zeros((1, 2))), None)


def test_flags_choose_the_penalties():
    words = [("objective.bound.penalty", "BetaTCVAE"), ("objective.bound.penalty.size", "1437")]
    assert experiment.load("vae_digits", words).objective.bound.penalty == BetaTCVAE(1437)
    with pytest.raises(UserError, match="size has no default"):
        experiment.load("vae_digits", words[:1])
    words = [("objective.bound.penalty", "DIPVAE"), ("objective.bound.penalty.kind", "II")]
    assert experiment.load("vae_digits", words).objective.bound.penalty == DIPVAE("II")
    assert (
        experiment.load("vae_digits", [("objective.bound.penalty", "MMD")]).objective.bound.penalty == MMD()
    )
