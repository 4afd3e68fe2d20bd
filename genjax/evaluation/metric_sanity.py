"""Sanity checks of the metrics on sets with known faults, constructed from real data.

    real        unseen data, without faults
    noise       every value drawn uniformly from the data's range
    shuffled    each pixel's values permuted over examples: correct marginals, wrong joint distribution
    few modes   five unseen examples of each class, repeated, with noise of 1 % of the range
    one class   unseen data of the first class, repeated, regardless of the label
    class mean  the mean training example of each class, with noise of 1 % of the range
    memorised   training data

A metric is sane if it ranks every fault that it can detect below real data by a margin beyond its noise, and real data
close to their reference. No metric detects all faults: the table also shows what each one misses.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from genjax.metrics.distances.collapse import near_duplicate_report
from genjax.metrics.inputs import SampleSet, Settings
from genjax.metrics.report import SampleReference, make_reference

REAL = "real"
MODES = 5  # distinct examples per class in "few modes"
Row = Mapping[str, float | str]


@dataclasses.dataclass(frozen=True)
class Expectation:
    """The faults that a metric must detect.

    Attributes:
        detects: sets that must be worse than real data.
        larger: whether larger values are worse.
        margin: minimum difference to real data, or factor with `ratio`.
        ratio: whether the margin is a factor (distances without a fixed scale).
    """

    detects: tuple[str, ...]
    larger: bool
    margin: float = 0.1
    ratio: bool = False

    def worse(self, value: float, real: float) -> bool:
        """Whether `value` is worse than `real` by the margin."""
        if self.ratio:
            return value > self.margin * abs(real)
        return value - real > self.margin if self.larger else real - value > self.margin


FAULTY = ("noise", "shuffled", "few modes", "one class", "class mean")
EXPECTATIONS: dict[str, Expectation] = {
    "frechet_ratio": Expectation(FAULTY, True, 1.5, ratio=True),
    "mmd_polynomial": Expectation(
        FAULTY, True, 0.05
    ),  # noise around 0 for real data, so the margin is a difference
    "mmd_rbf": Expectation(FAULTY, True, 0.003),
    "sliced_wasserstein": Expectation(FAULTY, True, 1.2, ratio=True),
    "c2st_accuracy": Expectation(FAULTY, True),
    "precision": Expectation(("noise", "shuffled"), False),
    "density": Expectation(("noise", "shuffled"), False),
    # Not "noise": the balls around such samples are so large that they contain all data.
    "recall": Expectation(("few modes", "one class", "class mean"), False),
    "coverage": Expectation(FAULTY, False),
    "one_nn_accuracy": Expectation(("noise", "few modes", "class mean"), True),
    "near_duplicates": Expectation(("few modes", "class mean"), True),
    "diversity": Expectation(("few modes", "class mean"), False),
    "label_accuracy": Expectation(("noise", "one class"), False),
    "nearer_than_neighbours": Expectation(("memorised",), True),
    "near_copies": Expectation(("memorised",), True),
}


def faulty_sets(train: SampleSet, unseen: SampleSet, levels: int, seed: int = 0) -> dict[str, SampleSet]:
    """The sets of the module's docstring, each of the size of `unseen`.

    Args:
        train: labelled images [n, h, w, c], integers 0 ... levels - 1.
        unseen: labelled held-out images; their labels serve as the samples' conditions.
        levels: number of levels of the integers.
        seed: seed of all random choices.

    Returns:
        Name of the fault -> set.
    """
    assert train.labels is not None
    assert unseen.labels is not None
    rng, x, labels, dtype = np.random.default_rng(seed), unseen.x, unseen.labels, unseen.x.dtype

    def noisy(means: Shaped[ndarray, "n h w c"]) -> Shaped[ndarray, "n h w c"]:
        values = means + rng.normal(size=x.shape) * 0.01 * (levels - 1)
        return np.clip(np.rint(values), 0, levels - 1).astype(dtype)

    few, mean, first = np.empty(x.shape), np.empty(x.shape), np.flatnonzero(labels == labels.min())
    for label in np.unique(labels):
        here = np.flatnonzero(labels == label)
        few[here] = x[np.resize(here[:MODES], len(here))]
        mean[here] = train.x[train.labels == label].mean(axis=0)[None]
    dealt = rng.permuted(x.reshape(len(x), -1), axis=0).reshape(x.shape)
    known = rng.choice(len(train.x), size=len(x), replace=len(train.x) < len(x))
    return {
        REAL: unseen,
        "noise": SampleSet(rng.integers(0, levels, x.shape).astype(dtype), labels),
        "shuffled": SampleSet(dealt, labels),
        "few modes": SampleSet(noisy(few), labels),
        "one class": SampleSet(x[np.resize(first, len(x))], labels),
        "class mean": SampleSet(noisy(mean), labels),
        "memorised": train[known],
    }


def evaluate_sets(
    train: SampleSet,
    test: SampleSet,
    levels: int,
    *,
    num: int,
    seed: int = 0,
    settings: Settings = Settings(),
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Row]:
    """Evaluates each faulty set like a model's samples.

    Args:
        train: labelled images; the last `num` of a random order are held out as `unseen`.
        test: labelled images that samples are compared with.
        levels: see `faulty_sets`.
        num: number of examples per set.
        seed: seed of all random choices.
        settings: settings of the reference.
        report: called with each set's name.

    Returns:
        Set -> report of `metrics.report`, with near-duplicates.
    """
    order = np.random.default_rng(seed).permutation(len(train.x))
    known, unseen = train[np.sort(order[:-num])], train[order[-num:]]
    reference: SampleReference = make_reference(
        train=known.x,
        test=test.x,
        train_labels=known.labels,
        test_labels=test.labels,
        seed=seed,
        settings=settings,
    )
    rows: dict[str, Row] = {}
    for name, made in faulty_sets(known, unseen, levels, seed).items():
        report(name)
        rows[name] = reference.report(made.x, made.labels) | near_duplicate_report(made.x, test.x)
    return rows


def wrong_ranks(rows: Mapping[str, Row]) -> list[str]:
    """Descriptions of all violations of `EXPECTATIONS`; empty if all metrics are sane.

    Real data must match their reference, if there is one: distances within a factor of 1.5, others within the margin.
    """
    found = []
    for metric, sense in EXPECTATIONS.items():
        real = float(rows[REAL][metric])
        for suffix in ("_reference", "_test"):
            if metric + suffix not in rows[REAL] or metric.startswith(
                "mmd"
            ):  # the MMD of real data is noise around 0
                continue
            usual = float(rows[REAL][metric + suffix])
            if not (usual / 1.5 < real < 1.5 * usual if sense.ratio else abs(real - usual) <= sense.margin):
                found.append(f"{metric} of real data is {real:.3g}, their reference {usual:.3g}")
        for name in sense.detects:
            value = float(rows[name][metric])
            if not sense.worse(value, real):
                found.append(f"{metric} does not detect '{name}': {value:.3g}, real data {real:.3g}")
    return found


def table(rows: Mapping[str, Row]) -> list[str]:
    """Markdown table of metrics by sets; * marks values worse than real data by the margin."""
    lines = ["| metric | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for metric, sense in EXPECTATIONS.items():
        real, cells = float(rows[REAL][metric]), []
        for name, row in rows.items():
            value = float(row[metric])
            mark = " *" if name != REAL and sense.worse(value, real) else ""
            cells.append(f"{value:.3g}{mark}" if np.isfinite(value) else "-")
        lines.append(f"| {metric} | " + " | ".join(cells) + " |")
    return lines
