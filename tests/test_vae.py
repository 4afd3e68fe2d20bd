"""VAEs with known evidence: probabilistic PCA, and models of two bits whose probabilities sum to 1."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from sklearn.decomposition import PCA
from tiny import Affine

from genjax.core.objective import Context
from genjax.distributions.elbo import ELBO, IWAE, Beta, DReG
from genjax.distributions.flows import models
from genjax.distributions.likelihoods import Bernoulli, Gaussian
from genjax.distributions.priors import FlowPrior, Mixture, Normal, VampPrior
from genjax.networks import MADE
from genjax.objectives.latent.vae import VAE

KEY = jax.random.key(0)
DIMS, LATENT = 5, 2


def dense(kernel, bias):
    return {"params": {"Dense_0": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}}


def ppca(scale: float = 0.0):
    """A linear-Gaussian VAE at scikit-learn's optimum (float64), its posterior perturbed by `scale`; data; evidence.

    W = U (Lambda - s^2)^(1/2), q(z|x) = N(Lambda^-1 W^T (x - mean), s^2 Lambda^-1): Tipping & Bishop 1999, eq. 7-8.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, LATENT)) @ rng.normal(size=(LATENT, DIMS)) + 0.5 * rng.normal(size=(40, DIMS))
    model = PCA(LATENT).fit(x)
    noise, lam = model.noise_variance_, model.explained_variance_
    w = model.components_.T * np.sqrt(lam - noise)
    back, log_std = w / lam, 0.5 * np.log(noise / lam)
    back, log_std = back + scale * rng.normal(size=back.shape), log_std + scale
    encoder = dense(
        np.concatenate([back, np.zeros_like(back)], axis=1), np.concatenate([-model.mean_ @ back, log_std])
    )
    params = {"vae": {"encoder": encoder, "decoder": dense(w.T, model.mean_)}}
    vae = VAE(Affine(), Affine(), (DIMS,), LATENT, likelihood=Gaussian(float(np.sqrt(noise))))
    return vae, params, {"x": jnp.asarray(x)}, model.score_samples(x)


@pytest.mark.parametrize("samples", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_bound_equals_the_evidence_of_probabilistic_pca_at_the_optimum(samples):
    with jax.enable_x64(True):
        vae, params, batch, evidence = ppca()
        vae = dataclasses.replace(vae, samples=samples)
        found = [
            vae.log_prob(params, {}, batch, jax.random.key(i)) for i in range(300 if samples == 1 else 2)
        ]
        if samples == 1:  # the KL is exact, the reconstruction one draw
            error = np.std(found, axis=0) / np.sqrt(300)
            assert np.all(np.abs(np.mean(found, axis=0) - evidence) < 4.5 * error)
        else:  # log w equals the evidence for every draw
            np.testing.assert_allclose(found, np.stack([evidence] * 2), rtol=1e-9)
        assert vae.log_prob_kind == ("lower bound (ELBO)" if samples == 1 else "lower bound (IWAE-3)")


def test_bound_is_below_the_evidence_elsewhere_and_increases_with_samples():
    """The gap of the ELBO is KL(q || posterior), in closed form; IWAE-k reduces it monotonically."""
    with jax.enable_x64(True):
        vae, params, batch, evidence = ppca(0.05)
        exact = ppca()[1]
        posteriors = (np.asarray(vae.posterior(p, batch["x"])) for p in (params, exact))
        (mean, log_std), (best, best_std) = posteriors
        ratio = np.exp(2 * (log_std - best_std))
        gap = 0.5 * (ratio - 1 - np.log(ratio) + (mean - best) ** 2 * np.exp(-2 * best_std)).sum(1).mean()
        terms = vae.terms(params, {}, batch, KEY, ELBO(samples=2000))[0]
        log_w = np.asarray(terms.log_likelihood + terms.log_ratio) - evidence[:, None]
        closed = np.asarray(terms.log_likelihood).mean(1) - np.asarray(terms.kl).sum(1) - evidence
        assert closed.mean() == pytest.approx(-gap, abs=0.02), gap
        curve = [np.log(np.exp(log_w.reshape(40, -1, k)).mean(2)).mean() for k in (1, 2, 5, 20, 100, 500)]
        assert curve[0] == pytest.approx(-gap, abs=0.02)
        assert np.all(np.diff(curve) > 0), curve
        assert -0.02 < curve[-1] < 0.005 < gap / 10


def gradients(bound, num: int, scale: float = 0.3):
    """`num` gradients of the pPCA model's loss on two examples, float64: of encoder and decoder, flat."""
    vae, params, batch, _ = ppca(scale)
    vae = dataclasses.replace(vae, bound=bound)
    batch = {"x": batch["x"][:2]}

    def one(key):
        loss = lambda params: vae.loss(params, {}, batch, Context(key, jnp.zeros((), jnp.int32)))[0]
        grads = jax.grad(loss)(params)["vae"]
        return tuple(ravel_pytree(grads[part])[0] for part in ("encoder", "decoder"))

    return (np.asarray(part) for part in jax.jit(jax.vmap(one))(jax.random.split(KEY, num)))


def test_dreg_is_unbiased_for_the_iwae_with_less_variance():
    with jax.enable_x64(True):
        num = 4000
        (plain, decoder), (doubly, same) = (gradients(bound, num) for bound in (IWAE(8), DReG(8)))
        np.testing.assert_allclose(decoder, same, rtol=1e-9, atol=1e-12)
        apart = (plain - doubly).mean(0) / ((plain - doubly).std(0) / np.sqrt(num))
        assert np.all(np.abs(apart) < 4.5), apart
        assert np.abs(doubly.mean(0) / (doubly.std(0) / np.sqrt(num))).max() > 20, (
            "the gradient is not only noise"
        )
        assert doubly.var(0).sum() < 0.5 * plain.var(0).sum()


def test_dreg_gradient_has_zero_variance_at_the_exact_posterior():
    with jax.enable_x64(True):
        encoder, _ = gradients(DReG(4), 5, 0.0)
        np.testing.assert_allclose(encoder, 0.0, atol=1e-9)
        assert np.abs(next(gradients(IWAE(4), 5, 0.0))).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "prior",
    [Normal(), Mixture(3), VampPrior(3), FlowPrior(models.autoregressive(MADE(8, 1), count=2))],
    ids=lambda p: type(p).__name__,
)
def test_importance_weights_of_all_data_sum_to_one(prior):
    """E_q[w] = p(x), and the probabilities of all examples of two bits sum to 1."""
    x = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=2)))
    vae = VAE(Affine(), Affine(), (2,), 2, likelihood=Bernoulli(), prior=prior)
    params, extra = vae.init(KEY, {"x": x})
    params["vae"]["encoder"] = jax.tree.map(lambda leaf: 0.3 * leaf, params["vae"]["encoder"])
    terms = vae.terms(params, extra, {"x": x}, KEY, ELBO(samples=20_000))[0]
    weights = np.exp(np.asarray(terms.log_likelihood + terms.log_ratio, np.float64))
    error = np.sqrt((weights.var(1) / 20_000).sum())
    assert error < 0.04
    assert abs(weights.mean(1).sum() - 1) < 4 * error


def test_loss_equals_the_bound_of_the_same_draw():
    vae, params, batch, _ = ppca(0.3)
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (params, batch))
    for beta in (1.0, 4.0):
        model = dataclasses.replace(vae, bound=ELBO(Beta(beta)))
        loss, aux = model.loss(single[0], {}, single[1], Context(KEY, jnp.zeros((), jnp.int32)))
        kl = float(aux.metrics["kl"])
        assert float(loss) == pytest.approx(-float(aux.metrics["elbo"]) + (beta - 1) * kl, rel=1e-5)
