"""Each metric ranks sets of known faults as it should, on digits; with -s the table is printed.

Fashion-MNIST: python -m experiments.metric_sanity --config=diffusion_mnist:fashion_mnist \\
    --config.data.source.data_dir=DIR --num=2000
"""

import numpy as np
import pytest

from genjax import sanity
from genjax.data import Digits
from genjax.metrics.classifier import Recipe
from genjax.metrics.report import Examined, Settings

pytestmark = [pytest.mark.optimised, pytest.mark.xdist_group("sanity")]
LEVELS = Digits.levels


def digits(split):
    examples = Digits().load(split)
    rows = examples[np.arange(len(examples))]
    return Examined(rows["x"], rows["label"].astype(np.int64))


def judged(settings):
    test = digits("test")
    rows = sanity.judge_sets(digits("train"), test, LEVELS, num=len(test.x), settings=settings)
    print(f"\n{len(test.x)} digits of each set")
    print("\n".join(sanity.table(rows)))
    return rows


def test_faulty_sets_are_what_they_are_called():
    train, unseen = digits("train"), digits("test")
    sets = sanity.faulty_sets(train, unseen, LEVELS)
    for name, made in sets.items():
        assert made.x.shape == unseen.x.shape, name
        assert made.x.dtype == np.uint8
        assert made.x.max() <= LEVELS - 1
    np.testing.assert_array_equal(np.sort(sets["shuffled"].x, axis=0), np.sort(unseen.x, axis=0))
    known = {image.tobytes() for image in train.x}
    assert all(image.tobytes() in known for image in sets["memorised"].x)
    few = sets["few modes"]
    assert len({image.tobytes() for image in unseen.x[unseen.labels == 3]}) > sanity.MODES
    assert len(np.unique(few.x[few.labels == 3].reshape(-1, 64), axis=0)) <= 3 * sanity.MODES * 10
    first = unseen.x[unseen.labels == 0]
    assert {image.tobytes() for image in sets["one class"].x} <= {image.tobytes() for image in first}


@pytest.mark.slow
def test_every_metric_sees_what_it_is_for():
    assert sanity.wrong_ranks(judged(Settings())) == []


def test_quick_judges_rank_alike_and_a_wrong_rank_is_told():
    rows = judged(Settings(folds=2, recipe=Recipe(channels=(8,), steps=100)))
    assert sanity.wrong_ranks(rows) == []
    swapped = rows | {"noise": rows["real"], "real": rows["noise"]}
    told = " ".join(sanity.wrong_ranks(swapped))
    for metric in ("frechet_ratio", "precision", "told_apart", "label_accuracy"):
        assert f"{metric} does not see 'noise'" in told
