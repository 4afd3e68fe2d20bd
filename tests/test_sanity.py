"""Each metric ranks sets of known faults as expected, on digits; -s prints the table.

Fashion-MNIST: python -m experiments.metric_sanity --config=diffusion_mnist:fashion_mnist \\
    --config.data.source.data_dir=DIR --num=2000
"""

import numpy as np
import pytest

from genjax.data import Digits
from genjax.evaluation import metric_sanity
from genjax.metrics.inputs import SampleSet

pytestmark = [pytest.mark.optimised, pytest.mark.xdist_group("sanity")]
LEVELS = Digits.levels


def digits(split):
    examples = Digits().load(split)
    rows = examples[np.arange(len(examples))]
    return SampleSet(rows["x"], rows["label"].astype(np.int64))


def test_faulty_sets_have_their_faults():
    train, unseen = digits("train"), digits("test")
    sets = metric_sanity.faulty_sets(train, unseen, LEVELS)
    for name, made in sets.items():
        assert made.x.shape == unseen.x.shape, name
        assert made.x.dtype == np.uint8
        assert made.x.max() <= LEVELS - 1
    np.testing.assert_array_equal(np.sort(sets["shuffled"].x, axis=0), np.sort(unseen.x, axis=0))
    known = {image.tobytes() for image in train.x}
    assert all(image.tobytes() in known for image in sets["memorised"].x)
    for label in range(10):
        here = unseen.x[unseen.labels == label].astype(float)
        made = sets["few modes"].x[unseen.labels == label].astype(float)
        mean = train.x[train.labels == label].mean(axis=0)
        modes = here[: metric_sanity.MODES]
        assert len(np.unique(modes, axis=0)) == metric_sanity.MODES < len(here)
        # The noise moves a pixel by one level at most.
        source = abs(made[:, None] - modes[None]).max(axis=(2, 3, 4)) <= 1
        np.testing.assert_array_equal(source.sum(axis=1), 1)
        assert source.any(axis=0).all()
        assert abs(sets["class mean"].x[unseen.labels == label] - mean[None]).max() <= 1.5
    first = unseen.x[unseen.labels == 0]
    assert {image.tobytes() for image in sets["one class"].x} <= {image.tobytes() for image in first}


@pytest.mark.slow
def test_every_metric_detects_its_faults():
    test = digits("test")
    rows = metric_sanity.evaluate_sets(digits("train"), test, LEVELS, num=len(test.x))
    print("\n".join(["", f"{len(test.x)} digits of each set", *metric_sanity.table(rows)]))
    assert metric_sanity.wrong_ranks(rows) == []


def numbers(**changed):
    """Real data with all metrics and references equal to 0.5."""
    row = dict.fromkeys(metric_sanity.EXPECTATIONS, 0.5)
    return row | {f"{name}_reference": value for name, value in row.items()} | changed


def test_wrong_ranks_are_reported():
    """Nothing is reported if all sets are worse than real data; any violation is."""
    bad = {name: 9.0 if sense.larger else 0.0 for name, sense in metric_sanity.EXPECTATIONS.items()}
    good = {"real": numbers(), **dict.fromkeys((*metric_sanity.FAULTY, "memorised"), bad)}
    assert metric_sanity.wrong_ranks(good) == []
    blind = metric_sanity.wrong_ranks(good | {"noise": bad | {"precision": 0.45, "frechet_ratio": 0.7}})
    assert blind == [
        "frechet_ratio does not detect 'noise': 0.7, real data 0.5",
        "precision does not detect 'noise': 0.45, real data 0.5",
    ]
    off = metric_sanity.wrong_ranks(good | {"real": numbers(recall_reference=0.7)})
    assert off == ["recall of real data is 0.5, their reference 0.7"]
    lines = metric_sanity.table(good)
    assert len(lines) == 2 + len(metric_sanity.EXPECTATIONS)
    assert lines[2] == "| frechet_ratio | 0.5 | 9 * | 9 * | 9 * | 9 * | 9 * | 9 * |"
