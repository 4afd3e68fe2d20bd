"""The classifier and the whole report, on real digits and on vectors."""

import jax
import numpy as np
import pytest
from einops import rearrange
from sklearn.datasets import load_digits

from genjax.core.errors import UserError
from genjax.metrics import report as report_module
from genjax.metrics.distances.frechet import Moments, frechet
from genjax.metrics.features import features as feature_module
from genjax.metrics.features.classifier import Recipe, _patches, train_classifier
from genjax.metrics.features.features import of_classifier, random_convolutions
from genjax.metrics.report import Settings, distribution_report, make_reference

pytestmark = [
    pytest.mark.optimised,
    pytest.mark.xdist_group("metrics_report"),
]  # one process computes the shared fixtures

QUICK = Settings(folds=2, recipe=Recipe(channels=(8,), steps=60))


@pytest.fixture(scope="module")
def digits():
    """Real digits in disjoint parts: train, test, new (real data as samples); and noisy, collapsed, copied ones."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(1797)
    x = (data.images * 15.9375).astype(np.uint8)[order][..., None]
    y = data.target.astype(np.int64)[order]
    noise = np.random.default_rng(1).normal(size=(400, 8, 8, 1)) * 40
    return {
        "train": (x[:900], y[:900]),
        "test": (x[900:1300], y[900:1300]),
        "new": (x[1300:1700], y[1300:1700]),
        "noisy": (np.clip(x[1300:1700] + noise, 0, 255).astype(np.uint8), y[1300:1700]),
        "collapsed": (np.tile(x[1300:1305], (80, 1, 1, 1)), np.tile(y[1300:1305], 80)),
        "copies": (x[:400], y[:400]),
    }


@pytest.fixture(scope="module")
def classifier(digits):
    return train_classifier(*digits["train"], recipe=QUICK.recipe)


@pytest.mark.slow
def test_classifier_learns_and_is_deterministic(digits, classifier):
    again = train_classifier(*digits["train"], recipe=QUICK.recipe)
    other = train_classifier(*digits["train"], recipe=QUICK.recipe, seed=1)
    x = digits["test"][0]
    assert classifier.accuracy(*digits["test"]) > 0.93
    np.testing.assert_array_equal(classifier.features(x), again.features(x))
    assert np.abs(classifier.features(x) - other.features(x)).max() > 0.1


def test_logits_are_linear_in_the_features_for_any_chunk(digits, classifier):
    features, logits = classifier.outputs(digits["test"][0], chunk=300)
    head = (
        np.asarray(classifier.params["weight"], np.float64),
        np.asarray(classifier.params["bias"], np.float64),
    )
    np.testing.assert_allclose(features @ head[0] + head[1][None], logits, atol=1e-4)
    np.testing.assert_allclose(classifier.features(digits["test"][0]), features, atol=1e-5)


@pytest.mark.slow
def test_classifier_of_vectors():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2)) * np.array([1.0, 1000.0])
    labels = (x[:, 0] * x[:, 1] > 0).astype(np.int64)
    fitted = train_classifier(x[:400], labels[:400], recipe=Recipe(steps=150))
    assert fitted.accuracy(x[400:], labels[400:]) > 0.93


def test_patches_keep_every_value():
    x = jax.random.normal(jax.random.key(0), (2, 35, 20, 3))
    y = _patches(x)
    assert y.shape == (2, 12, 7, 27)
    back = rearrange(y, "b h w (i j c) -> b (h i) (w j) c", i=3, j=3)
    np.testing.assert_array_equal(back[:, :35, :20], x)
    assert _patches(x[:, :16, :16]).shape == (2, 16, 16, 3)


@pytest.mark.slow
def test_feature_spaces_are_white_on_what_they_were_fitted_to(digits, classifier):
    train = digits["train"][0]
    for space in (of_classifier(classifier, train), random_convolutions(train)):
        z = space.extract(train)
        np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=1e-6)
        np.testing.assert_allclose(np.cov(z, rowvar=False), np.eye(z.shape[1]), atol=1e-6)


def test_features_do_not_depend_on_the_signs_of_eigenvectors(digits, monkeypatch):
    x = digits["train"][0][:300]
    usual, eigh = random_convolutions(x).extract(x), feature_module.eigh
    signs = np.where(np.random.default_rng(0).random(usual.shape[1]) < 0.5, -1.0, 1.0)
    assert {-1.0, 1.0} == set(signs)

    def turned(covariance):
        values, vectors = eigh(covariance)
        return values, vectors * np.resize(signs, vectors.shape[1])[None]

    monkeypatch.setattr(feature_module, "eigh", turned)
    np.testing.assert_allclose(random_convolutions(x).extract(x), usual, atol=1e-9)


def test_random_convolutions_rank_real_before_noisy_before_collapsed(digits):
    space = random_convolutions(digits["train"][0])
    real = Moments.of(space.extract(digits["test"][0]))
    new, noisy, collapsed = (
        frechet(Moments.of(space.extract(digits[n][0])), real) for n in ("new", "noisy", "collapsed")
    )
    assert new * 1.2 < noisy < collapsed


@pytest.fixture(scope="module")
def reports(digits):
    names = ("new", "noisy", "collapsed", "copies")
    return {name: report(digits, name) for name in names}


def report(digits, name, **options):
    return distribution_report(
        train=digits["train"][0],
        test=digits["test"][0],
        samples=digits[name][0],
        train_labels=digits["train"][1],
        test_labels=digits["test"][1],
        sample_labels=digits[name][1],
        settings=QUICK,
        **options,
    )


def test_report_ranks_real_before_noisy_before_collapsed(reports):
    new, noisy, collapsed = reports["new"], reports["noisy"], reports["collapsed"]
    assert new["features"] == "classifier"
    assert new["count"] == 400.0
    for name in ("frechet_ratio", "frechet_random_convolutions_ratio"):
        assert 0.75 < new[name] < 1.25
        assert new[name] < noisy[name] < collapsed[name]
    assert abs(new["mmd_rbf"]) < noisy["mmd_rbf"] < collapsed["mmd_rbf"]
    assert abs(new["mmd_polynomial"]) < noisy["mmd_polynomial"] < collapsed["mmd_polynomial"]
    assert noisy["density"] < 0.75 * new["density"]
    assert collapsed["coverage"] < 0.3 < 0.9 < new["coverage"]
    assert collapsed["recall"] < 0.1 < 0.6 < new["recall"]


def test_report_of_real_data_equals_its_reference_within_noise(reports):
    new = reports["new"]
    for name in ("precision", "recall", "density", "coverage"):
        assert new[name] == pytest.approx(new[f"{name}_reference"], abs=0.1)
    assert new["nearer_than_neighbours"] == pytest.approx(new["nearer_than_neighbours_test"], abs=0.1)
    assert new["label_accuracy"] == pytest.approx(new["classifier_accuracy"], abs=0.04)


@pytest.mark.slow
def test_report_flags_memorised_training_data(reports):
    copies, new = reports["copies"], reports["new"]
    for name in ("exact_duplicates", "near_copies", "nearer_than_neighbours"):
        assert copies[name] == 1.0
        assert copies[f"{name}_test"] == new[f"{name}_test"] < 0.6
    assert copies["extraction_ratio"] == 0.0
    assert new["exact_duplicates"] == new["near_copies"] == 0.0


@pytest.mark.slow
def test_report_reads_labels_of_samples(digits, reports):
    x, y = digits["new"]
    wrong = report(digits | {"new": (x, (y + 1) % 10)}, "new")
    assert wrong["label_accuracy"] < 0.05
    same = {k: v for k, v in wrong.items() if k != "label_accuracy"}
    assert same == {
        k: v for k, v in reports["new"].items() if k != "label_accuracy"
    }  # the report is deterministic


def test_samples_do_not_change_the_reference(reports):
    name = "frechet_classifier_reference"
    assert {r[name] for r in reports.values()} == {reports["new"][name]}
    assert reports["copies"]["label_accuracy"] > reports["new"]["classifier_accuracy"]


def test_references_are_held_out_from_the_features_and_use_all_training_data(monkeypatch):
    x = np.arange(400.0).reshape(200, 2)
    fitted, compared = [], []
    fit, compare = report_module._fit, report_module._compare
    monkeypatch.setattr(report_module, "_fit", lambda data, *a: (fitted.append(data.x), fit(data, *a))[1])
    monkeypatch.setattr(
        report_module,
        "_compare",
        lambda s, r, o, *a, **k: (compared.append((r, o)), compare(s, r, o, *a, **k))[1],
    )
    distribution_report(train=x, test=x + 1000.0, samples=x - 1000.0)
    assert len(fitted) == len(compared) == 4
    for seen, (real, others) in zip(fitted, compared, strict=True):
        unseen = others["_reference"]
        assert len(real) == len(unseen) == len(others[""]) == 50
        assert set(seen[:, 0]) | set(unseen[:, 0]) == set(x[:, 0])
        assert not set(seen[:, 0]) & set(unseen[:, 0])
        assert real.min() >= 1000.0 > 0.0 > others[""].max()
    assert {value for _, others in compared for value in others["_reference"][:, 0]} == set(x[:, 0])


def test_one_reference_serves_several_reports():
    """Each report equals one with its own fit."""
    rng = np.random.default_rng(1)
    train, test, first, second = (rng.normal(size=(n, 2)) for n in (400, 150, 120, 130))
    reference = make_reference(train=train, test=test, seed=3)
    for samples in (first, second, first):
        assert reference.report(samples) == distribution_report(
            train=train, test=test, samples=samples, seed=3
        )


def test_report_of_vectors_is_in_the_datas_own_units():
    rng = np.random.default_rng(0)
    train, test, same = (rng.normal(size=(n, 3)) for n in (2000, 600, 500))
    settings = Settings(folds=4)
    good = distribution_report(train=train, test=test, samples=same, settings=settings)
    bad = distribution_report(train=train, test=test, samples=same + np.array([3.0, 0, 0]), settings=settings)
    assert good["features"] == "identity"
    assert good["count"] == 500.0
    assert bad["frechet_identity"] == pytest.approx(9.0, rel=0.15)
    assert good["mean_error"] < 0.2 < 2.5 < bad["mean_error"]
    assert bad["frechet_ratio"] > 50 * good["frechet_ratio"]
    assert 0.2 < good["frechet_ratio"] < 5.0
    assert good["variance_ratio_min"] > 0.8


def test_fewer_examples_than_features_are_marked():
    """A covariance of d dimensions needs d + 1 examples; with fewer the report notes the bias."""
    x = np.random.default_rng(0).normal(size=(600, 40))
    few, settings = x[:40], Settings(folds=2)
    found = distribution_report(train=x, test=x[::-1].copy(), samples=few, settings=settings)
    assert found["feature_dim"] == found["count"] == 40.0
    assert found["covariance"].startswith("singular (40 examples of 40 features)")
    assert np.isfinite(found["frechet_ratio"])
    enough = distribution_report(train=x, test=x[::-1].copy(), samples=x[:41] + 0.1, settings=settings)
    assert "covariance" not in enough


VECTORS = np.random.default_rng(0).normal(size=(200, 3))
IMAGES = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1), np.uint8)
LABELS = np.arange(200) % 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": np.where(VECTORS > 1, np.nan, VECTORS)}, "samples: .* NaN"),
        ({"samples": VECTORS[:, :2]}, "samples is"),
        ({"samples": VECTORS[:20]}, "samples: 20 examples, at least 32"),
        ({"test": np.ones((200, 3))}, "test: all 200 examples are equal"),
        (
            {"samples": np.repeat(IMAGES[:1], 50, axis=0), "train": IMAGES, "test": IMAGES},
            "all 50 examples are equal",
        ),
        ({"samples": IMAGES / 255.0, "train": IMAGES, "test": IMAGES}, "samples are images of float64"),
        ({"samples": VECTORS.astype(np.int64)}, "samples are vectors of int64"),
        ({"train": VECTORS[:100]}, "train: 100 examples in 4 folds"),
        ({"train_labels": LABELS}, "only train have labels"),
        ({"sample_labels": LABELS}, "only samples have labels"),
        ({"train_labels": LABELS, "test_labels": LABELS[:9]}, "test: 200 examples but 9 labels"),
    ],
)
def test_wrong_input_is_one_line(change, message):
    with pytest.raises(UserError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
        distribution_report(**({"train": VECTORS, "test": VECTORS, "samples": VECTORS} | change))
