"""The ladder's terms: KL in closed form against draws, and probabilities of all images that sum to 1."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.errors import UserError
from genjax.distributions.likelihoods import Bernoulli
from genjax.networks import Ladder
from genjax.objectives.latent.ladder import LadderVAE

KEY = jax.random.key(0)
IMAGES = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=4))).reshape(-1, 2, 2, 1)
MODEL = LadderVAE(Ladder(channels=4, latent=1, blocks=(1, 1)), (2, 2, 1), likelihood=Bernoulli())


def made():
    """Parameters perturbed away from the zero initialisation of priors and blocks."""
    params, _ = MODEL.init(KEY, {"x": IMAGES})
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(KEY, len(leaves))
    moved = [leaf + 0.15 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


@pytest.mark.slow
@pytest.mark.optimised
def test_kl_and_importance_weights_of_the_hierarchy():
    """mean of KL_1 + KL_2 = mean of log q - log p; the sum over all images of E[w] is 1."""
    params, draws = made(), 2000

    @jax.jit
    def terms(key):
        x = jnp.repeat(IMAGES, 20, axis=0)
        out, kl, log_ratio = MODEL.infer(params, x, None, key)
        return (
            kl.sum(1).reshape(16, 20),
            log_ratio.reshape(16, 20),
            Bernoulli().log_prob(out, x).reshape(16, 20),
        )

    parts = [terms(jax.random.fold_in(KEY, i)) for i in range(draws // 20)]
    kl, log_ratio, given = (
        np.concatenate(part, axis=1).astype(np.float64) for part in zip(*parts, strict=True)
    )
    apart = kl + log_ratio
    assert np.all(np.abs(apart.mean(1)) < 4.5 * apart.std(1) / np.sqrt(draws))
    assert kl.mean() > 0.1, "the KL is not trivial"
    weights = np.exp(given + log_ratio)
    error = np.sqrt((weights.var(1) / draws).sum())
    assert error < 0.03
    assert abs(weights.mean(1).sum() - 1) < 4 * error
    bound = np.asarray(MODEL.log_prob({"net": params["net"]}, {}, {"x": IMAGES}, KEY))
    assert np.all(bound < np.log(weights.mean(1)) + 5)


@pytest.mark.slow
def test_samples_are_deterministic_only_at_temperature_zero():
    @jax.jit
    def draw():
        params = made()
        return [
            LadderVAE(MODEL.net, (2, 2, 1), likelihood=Bernoulli(), temperature=temperature).sample(
                params, {}, KEY, 6
            )
            for temperature in (0.0, 1.0)
        ]

    cold, warm = draw()
    np.testing.assert_allclose(cold, jnp.broadcast_to(cold[:1], cold.shape), atol=1e-6)
    assert float(jnp.std(warm, axis=0).max()) > 1e-2


def test_an_image_that_cannot_be_halved_raises():
    batch = {"x": jnp.zeros((1, 3, 2, 1))}
    with pytest.raises(UserError, match="a ladder of 2 scales cannot halve 3 x 2 images 1 times"):
        jax.eval_shape(dataclasses.replace(MODEL, shape=(3, 2, 1)).init, KEY, batch)
