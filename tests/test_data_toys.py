"""The toys' densities integrate to one, samples follow them, entropies are E[-log p]."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from sklearn.datasets import make_moons

from genjax.core.errors import UserError
from genjax.data import Checkerboard, GaussianMixture, Moons, Rings, Spirals

TOYS = {
    "ring": GaussianMixture(noise=0.2),
    "grid": GaussianMixture(count=25, layout="grid", radius=2.0, noise=0.15),
    "rings": Rings(noise=0.15),
    "moons": Moons(noise=0.2),
    "spirals": Spirals(noise=0.2),
    "checkerboard": Checkerboard(),
}
toys = pytest.mark.parametrize("toy", TOYS.values(), ids=TOYS)


def grid(step: float) -> np.ndarray:
    """Midpoints of the square cells that cover [-5, 5]^2 (the checkerboard's edges fall between cells)."""
    ticks = np.arange(-5 + step / 2, 5, step)
    return np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)


@toys
def test_density_integrates_to_one(toy):
    step = 0.1
    assert np.sum(np.exp(toy.log_density(grid(step)))) * step**2 == pytest.approx(1.0, abs=1e-6)


@toys
def test_entropy_is_the_mean_of_minus_log_density(toy):
    x = toy.load("test").arrays["x"]
    surprise = -toy.log_density(x)
    error = np.std(surprise) / np.sqrt(len(x))
    assert abs(np.mean(surprise) - toy.entropy()) <= 4 * error + 1e-9


@toys
def test_samples_follow_the_density(toy):
    """Chi-square over cells of side 1/2, whose probabilities come from the density on a fine grid."""
    x = toy.load("train").arrays["x"]
    fine = 10  # midpoints per cell and axis
    probability = (
        np.exp(toy.log_density(grid(0.5 / fine))).reshape(20, fine, 20, fine).mean(axis=(1, 3)) * 0.25
    )
    counts, *_ = np.histogram2d(x[:, 0], x[:, 1], bins=20, range=[[-5, 5], [-5, 5]])
    expected = probability * len(x)
    large = expected > 5
    rest = counts[~large].sum(), len(x) - expected[large].sum()
    chi2 = np.sum((counts - expected)[large] ** 2 / expected[large])
    chi2 += (rest[0] - rest[1]) ** 2 / rest[1] if rest[1] > 5 else 0.0
    assert stats.chi2.sf(chi2, large.sum()) > 1e-4


@toys
def test_labels_are_components_of_equal_weight(toy):
    train = toy.load("train").arrays
    counts = np.bincount(train["label"], minlength=toy.classes)
    assert len(counts) == toy.classes
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("toy", [Moons(noise=0.1), Spirals(noise=0.1), Spirals(noise=0.4, arms=3)])
def test_curves_agree_with_adaptive_quadrature(toy):
    x = toy.load("test").arrays["x"][:12].astype(np.float64) * 1.1

    def integrand(u, point, arm):
        (centre,) = toy.curve(np.array([u]), np.array([arm]))
        return np.exp(-np.sum((point - centre) ** 2) / (2 * toy.noise**2)) / (2 * np.pi * toy.noise**2)

    def density(point):
        options = {"limit": 1000, "epsabs": 0.0, "epsrel": 1e-10, "points": np.linspace(0, 1, 41)}
        return np.mean([quad(integrand, 0, 1, args=(point, arm), **options)[0] for arm in range(toy.classes)])

    np.testing.assert_allclose(toy.log_density(x), [np.log(density(point)) for point in x], atol=1e-8)


def test_moons_equal_those_of_scikit_learn():
    expected, label = make_moons(n_samples=80, shuffle=False, noise=None)
    u = np.tile(np.linspace(0, 1, 40), 2)
    np.testing.assert_allclose(Moons().curve(u, label), expected, atol=1e-12)


@pytest.mark.parametrize("arms", [1, 2, 3])
def test_spirals_have_their_number_of_turns_and_are_rotations_of_each_other(arms):
    toy = Spirals(arms=arms, turns=1.25, radius=2.5, noise=0.3)
    u = np.linspace(0.001, 1, 500)
    first = toy.curve(u, np.zeros(500, int)) @ np.array([1, 1j])
    np.testing.assert_allclose(np.abs(first), 2.5 * u)
    winding = np.unwrap(np.angle(first))
    assert winding[-1] == pytest.approx(2 * np.pi * 1.25)
    np.testing.assert_allclose(winding, winding[-1] * u, atol=1e-9)
    turn = 2 * np.pi / arms
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    x = toy.load("test").arrays["x"][:50].astype(np.float64)
    np.testing.assert_allclose(toy.log_density(x @ rotation.T), toy.log_density(x), atol=1e-9)


def test_single_gaussian_has_the_closed_form_density_and_entropy():
    one = GaussianMixture(count=1, noise=0.3)
    normal = stats.multivariate_normal([2.0, 0.0], 0.09 * np.eye(2))
    x = np.random.default_rng(0).normal(size=(50, 2)) + 2
    np.testing.assert_allclose(one.log_density(x), normal.logpdf(x), rtol=1e-12)
    assert one.entropy() == pytest.approx(normal.entropy(), abs=1e-10)


def test_single_ring_has_rician_radii():
    ring = Rings(radii=(1.5,), noise=0.3)
    r = np.linspace(0.01, 4, 40)
    x = np.stack([np.zeros_like(r), r], axis=1)
    rice = stats.rice(1.5 / 0.3, scale=0.3).logpdf(r) - np.log(2 * np.pi * r)
    np.testing.assert_allclose(ring.log_density(x), rice, rtol=1e-9)
    fine, step = np.linspace(1e-6, 5, 200_001, retstep=True)
    p = stats.rice(1.5 / 0.3, scale=0.3).pdf(fine)
    expected = -np.sum(p * np.log(p / (2 * np.pi * fine))) * step
    assert ring.entropy() == pytest.approx(expected, abs=1e-6)


def test_far_modes_have_the_entropy_of_one_mode_plus_log_count():
    toy = GaussianMixture(count=8, radius=2.0, noise=0.01)
    assert toy.entropy() == pytest.approx(np.log(8) + np.log(2 * np.pi * np.e * 0.01**2), abs=1e-10)


def test_modes_are_where_labelled_samples_are():
    toy = GaussianMixture(count=25, layout="grid", noise=0.05)
    centres, std = toy.modes()
    train = toy.load("train").arrays
    offset = train["x"] - centres[train["label"]]
    assert len(np.unique(centres, axis=0)) == 25
    assert np.std(offset) == pytest.approx(std, rel=0.02)
    assert np.abs(offset).max() < 6 * std


@toys
def test_points_depend_on_seed_and_split_alone(toy):
    small = dataclasses.replace(toy, num=200, num_test=200)
    train, again, test = (small.load(split).arrays["x"] for split in ("train", "train", "test"))
    np.testing.assert_array_equal(train, again)
    other = dataclasses.replace(small, seed=1).load("train").arrays["x"]
    assert len(np.unique(np.concatenate([train, test, other]), axis=0)) == 600
    assert len(dataclasses.replace(toy, num=30, num_test=20).load("test")) == 20


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianMixture(count=7, layout="grid"), "count=7 .* square"),
        (lambda: Checkerboard(cells=3), "cells=3 must be even"),
        (lambda: Rings().load("tets"), "no split 'tets': did you mean 'test'"),
    ],
)
def test_errors_are_one_line(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
