"""Streaming reports: counts and features of each number."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from processes import CONFIG
from small_features import gathered, small

from genjax.api import evaluate_stream
from genjax.core.errors import UserError
from genjax.data.examples import Subset, Table
from genjax.evaluation.sampling import draw_samples
from genjax.evaluation.streaming import stream_report
from genjax.metrics.distances.coverage import prdc
from genjax.metrics.distances.frechet import Moments, frechet
from genjax.metrics.distances.scores import ClassEntropy
from genjax.metrics.distances.two_sample import one_nn_accuracy
from genjax.metrics.features.extraction import FeatureNetwork
from genjax.metrics.features.fid import to_bytes
from genjax.training import experiment as experiments
from genjax.training.loop import prepare

NUM, TEST, UNSEEN = 400, 360, 200  # samples, all test examples of digits, examples of the reference
MATRIX = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32) / 16
NETWORK = FeatureNetwork(
    "projections",
    5,
    {"matrix": MATRIX},
    lambda params, x: x.reshape(len(x), -1).astype(jnp.float32) @ params["matrix"],
    lambda params, features: features[:, :3],
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """(the run of an untrained model, its state, its samples)."""
    path = tmp_path_factory.mktemp("configs") / "config.py"
    path.write_text(CONFIG)
    run = prepare(experiments.load(f"{path}:digits"))
    state, how = run.make_state(), run.experiment.evaluation
    samples, _ = draw_samples(
        run.experiment.objective,
        run.experiment.data,
        state.ema,
        state.extra,
        run.mesh,
        seed=3,
        num=NUM,
        batch_size=how.batch_size,
    )
    return run, state, samples


def report(drawn, network=NETWORK, num=NUM, unseen=UNSEEN, **more):
    run, state, _ = drawn
    data = run.experiment.data
    reference = Subset(data.load("train"), unseen)
    return stream_report(
        run.experiment, state, run.mesh, network, num=num, seed=3, unseen=reference, **more
    ), reference[np.arange(unseen)]["x"]


def test_counts_of_each_number_with_more_samples_than_test_examples(drawn):
    lines = []
    found, reference = report(drawn, report=lines.append)
    test = Subset(drawn[0].experiment.data.load("test"), TEST)[np.arange(TEST)]["x"]
    x, y, z = (rows.reshape(len(rows), -1) @ MATRIX for rows in (test, drawn[2], reference))
    assert (len(x), len(y), len(z)) == (TEST, NUM, UNSEEN)
    of = lambda rows: Moments.of(rows.astype(np.float64))
    few, some = x[:UNSEEN], y[:UNSEEN]
    near = lambda value: pytest.approx(value, rel=1e-4)
    assert found["frechet"] == near(frechet(of(x), of(y)))
    assert found["frechet_equal"] == near(frechet(of(few), of(some)))
    assert found["frechet_reference"] == near(frechet(of(few), of(z)))
    assert found["frechet_ratio"] == near(found["frechet_equal"] / found["frechet_reference"])
    assert abs(found["frechet"] / found["frechet_equal"] - 1) > 1e-3
    assert found["score"] == near(ClassEntropy.of_logits(y[:, :3]).score)
    assert found["score_equal"] == near(ClassEntropy.of_logits(some[:, :3]).score)
    pairs = prdc(few, some) | {"one_nn_accuracy": one_nn_accuracy(few, some, 3)[1]}
    assert {name: found[name] for name in pairs} == pytest.approx(pairs, abs=1e-2)
    usual = prdc(few, z)
    assert {name: found[f"{name}_reference"] for name in usual} == pytest.approx(usual, abs=1e-2)
    assert (found["samples"], found["test_examples"], found["count"]) == (NUM, TEST, UNSEEN)
    assert lines[0].startswith("streaming 400 samples and 360 test examples through projections")
    assert lines[0].endswith("use 200 of each")


def test_at_equal_counts_all_numbers_agree(drawn):
    found, _ = report(drawn, num=150, keep=False)
    assert (found["samples"], found["test_examples"], found["count"]) == (150, 150, 150)
    for name in ("frechet", "score"):
        assert found[name] == pytest.approx(found[f"{name}_equal"], rel=1e-9)
    assert "precision" not in found
    with pytest.raises(UserError, match="num=1: two or more"):
        report(drawn, num=1)


def test_the_distance_over_a_stream_equals_that_of_fid_statistics(drawn):
    """Digits with 17 levels, converted to bytes on the devices or before."""
    found, _ = report(drawn, small(levels=17))
    test = drawn[0].experiment.data.load("test")[np.arange(TEST)]["x"]
    made, real = (gathered([to_bytes(x, 17)], len(x)) for x in (drawn[2], test))
    assert found["frechet"] == pytest.approx(frechet(made.moments, real.moments), rel=1e-4, abs=1e-9)
    assert not {"fid", "inception_score", "kid"} & {*found}
    assert found["weights"] == "original, arrays' SHA-256 digest"
    assert found["comparable"] == (
        "no: 400 samples, not 50,000; the reference is of the test split of Digits(), "
        "not of the train split of Digits()"
    )


def test_numbers_over_own_features_are_reported_as_not_comparable(drawn):
    found, _ = report(drawn, num=20, keep=False)
    assert found["comparable"] == "no: features of this data's own (projections), not of FID's Inception"
    assert "weights" not in found


def test_inception_is_selected_by_its_weights_and_needs_no_fit(drawn, tmp_path, monkeypatch):
    data, weights = drawn[0].experiment.data, tmp_path / "weights"
    asked = []
    monkeypatch.setattr(evaluate_stream, "load_network", lambda *given: asked.append(given) or NETWORK)
    for name in ("", "inception"):
        network, unseen = evaluate_stream.fit_network(data, name, 0, weights)
        assert (network, len(unseen)) == (NETWORK, 1437)
    assert asked == [(weights, 17)] * 2
    assert len(evaluate_stream.fit_network(data, "random_convolutions", 0)[1]) == 1437 - 1437 // 2
    floats = dataclasses.replace(data, source=Floats())
    for given, words in [
        ((data, "inception", 0), "need each other: inception=FILE"),
        ((data, "classifier", 0, weights), "need each other: inception=FILE"),
        ((floats, "", 0, weights), "features 'inception' do not support these data"),
        ((data, "inceptio", 0), "features 'inceptio' do not support"),
    ]:
        with pytest.raises(UserError, match=words) as caught:
            evaluate_stream.fit_network(*given)
        assert "\n" not in str(caught.value)


@dataclasses.dataclass(frozen=True)
class Floats:
    """Images of floating point values."""

    kind, shape, dtype, classes, levels, splits = "image", (2, 2, 1), "float32", 0, 0, ("train", "test")

    def load(self, split):
        return Table({"x": np.linspace(0, 16, 16, dtype=np.float32).reshape(4, 2, 2, 1)})
