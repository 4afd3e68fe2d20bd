"""Latent-space tasks: interpolation, traversal, quantile grids; and all tasks on small autoencoders."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rows import DIGITS, ROWS, SMALL, on_one_device
from scipy import stats

from genjax.conditioning.labels import Labels
from genjax.core.errors import UserError
from genjax.core.types import named
from genjax.data import Digits
from genjax.networks.vector_quantizers import FSQ
from genjax.objectives.adversarial.gan import GAN
from genjax.objectives.latent.vae import VAE
from genjax.objectives.latent.vqvae import VQVAE
from genjax.reports.latents import View, between, explore, quantile_grid, traversals
from genjax.training.experiment import Experiment

pytestmark = pytest.mark.xdist_group("explore")  # shared fixtures are built once, in one process


def test_interpolations_hit_both_ends_linearly_and_spherically():
    a, b = (jax.random.normal(jax.random.key(i), (3, 2, 4)) for i in (0, 1))
    norm = lambda z: np.sqrt(np.asarray(z**2).sum((-1, -2)))
    b = b * jnp.asarray(norm(a) / norm(b))[:, None, None]
    chord, arc = between(a, b, 5, "linear"), between(a, b, 5, "spherical")
    for way in (chord, arc):
        np.testing.assert_allclose(way[0], a, atol=1e-6)
        np.testing.assert_allclose(way[-1], b, atol=1e-6)
    np.testing.assert_allclose(chord[2], (a + b) / 2, atol=1e-6)
    np.testing.assert_allclose(norm(arc), np.broadcast_to(norm(a), (5, 3)), rtol=1e-5)
    assert np.all(norm(chord)[2] < 0.99 * norm(a))


def test_traversals_move_one_latent_at_a_time():
    z = jax.random.normal(jax.random.key(0), (2, 3, 2))
    moved = np.asarray(traversals(z, 5, 2.0))
    assert moved.shape == (2, 6, 5, 3, 2)
    for latent in range(6):
        flat = moved[:, latent].reshape(2, 5, 6)
        np.testing.assert_allclose(flat[..., latent], [[-2, -1, 0, 1, 2]] * 2)
        rest = np.delete(flat, latent, axis=-1)
        np.testing.assert_array_equal(
            rest, np.broadcast_to(np.delete(z.reshape(2, 1, 6), latent, axis=-1), rest.shape)
        )


def test_the_manifold_grid_is_even_in_probability():
    shares = stats.norm.cdf(quantile_grid(4)).reshape(4, 4, 2)
    np.testing.assert_allclose(shares[0, :, 0], [1 / 8, 3 / 8, 5 / 8, 7 / 8], atol=1e-6)
    np.testing.assert_allclose(shares[:, 0, 1], [7 / 8, 5 / 8, 3 / 8, 1 / 8], atol=1e-6)


def view(objective, data=DIGITS, **options) -> View:
    run = on_one_device(Experiment(objective, data, batch_size=16))
    return View(run, run.make_state(), **options)


FLAT = VAE(SMALL, SMALL, (8, 8, 1), 2, condition=Labels(10))


@pytest.fixture(scope="module")
def flat() -> View:
    return view(FLAT, num=3, points=4)


@pytest.mark.slow
def test_tasks_have_their_shapes_and_invalid_options_raise(flat):
    test = Digits().load("test")[np.arange(6)]
    found, picture = explore(flat, "reconstruct")
    np.testing.assert_array_equal(found["input"], test["x"][:3])
    assert found["samples"].shape == (3, 8, 8, 1)
    assert picture.size == (3 * (8 * 8 + 1) - 1, 2 * (8 * 8 + 1) - 1)
    z = flat.latents({name: jnp.asarray(rows[:3]) for name, rows in test.items()})
    np.testing.assert_array_equal(flat.images(z, jnp.asarray(test["label"][:3])), found["samples"])
    shapes = {"interpolate": (4, 3), "traverse": (3, 2, 4), "manifold": (4, 4)}
    for task, shape in shapes.items():
        assert explore(flat, task)[0]["samples"].shape == (*shape, 8, 8, 1)
    for task, changes, words in [
        ("codes", {}, "task=codes cannot be done: this run's latents are real numbers"),
        ("traverze", {}, "has no task 'traverze': did you mean 'traverse'"),
        ("traverse", {"label": 11}, "label=11: this model has classes 0 to 9"),
        ("interpolate", {"num": 4000}, "needs 8000 test images"),
        ("manifold", {"points": 1}, "points=1 must be at least 2"),
    ]:
        with pytest.raises(UserError, match=words):
            explore(dataclasses.replace(flat, **changes), task)


@pytest.mark.slow
def test_codes_are_counted_over_the_whole_split():
    coded = view(VQVAE(SMALL, SMALL, (8, 8, 1), (3,), FSQ((3, 2))))
    found, _ = explore(coded, "codes")
    x = coded.run.experiment.data.forward(Digits().load("test")[np.arange(360)], jax.random.key(0), False)
    codes = coded.coder.encode(coded.state.ema, coded.state.extra, x, jax.random.key(0))
    np.testing.assert_allclose(
        found["usage"], np.bincount(np.asarray(codes).ravel(), minlength=6) / 1080, atol=1e-6
    )
    with pytest.raises(UserError, match="this run's latents are codes"):
        explore(coded, "traverse")


@pytest.mark.slow
def test_a_generators_latents_are_prior_draws_and_decode_to_its_samples():
    latent_view = view(GAN(SMALL, SMALL, (8, 8, 1), 2, condition=Labels(10)), num=3, points=4)
    z, label = latent_view.base_latents(12)
    np.testing.assert_array_equal(label, np.arange(12) % 10)
    assert abs(float(jnp.mean(z))) < 1.0
    objective, params = latent_view.coder, latent_view.state.ema
    key = jax.random.key(5)
    prior = jax.random.normal(named(key, "prior"), (12, 2))
    drawn = objective.sample(params, {}, key, 12, {"label": label})
    np.testing.assert_allclose(objective.decode(params, {}, prior, key, {"label": label}), drawn, atol=1e-6)
    assert explore(latent_view, "interpolate")[0]["samples"].shape == (4, 3, 8, 8, 1)
    for task in ("reconstruct", "mix", "codes"):
        with pytest.raises(UserError, match="cannot be done with a GAN"):
            explore(latent_view, task)


@pytest.mark.slow
def test_style_mixing_switches_images_at_a_layer():
    latent_view = view(ROWS["stylegan-digits"].objective, num=2)
    objective, params, extra = latent_view.coder, latent_view.state.ema, latent_view.state.extra
    (z, label), key = latent_view.base_latents(4), jax.random.key(1)
    cond = None if label is None else {"label": label[:2]}
    decode = lambda z: objective.decode(params, extra, z, key, cond)
    mix = lambda place: objective.mix(params, extra, z[:2], z[2:], place, key, cond)
    np.testing.assert_allclose(mix(objective.styles), decode(z[:2]), atol=1e-6)
    np.testing.assert_allclose(mix(0), decode(z[2:]), atol=1e-6)
    assert float(jnp.abs(mix(1) - decode(z[:2])).max()) > 1e-4
    found, picture = explore(latent_view, "mix")
    assert found["samples"].shape == (2, 2, *found["coarse"].shape[1:])
    assert picture.width == picture.height
