"""Do the metrics see what they are for? Each one on sets whose faults are known, made of real data alone.

    real        unseen data: nothing is wrong
    noise       every value drawn uniformly from the data's range
    shuffled    each pixel's values dealt out anew among examples: right one by one, wrong together
    few modes   five unseen examples of each class, over and over, with noise of 1 % of the range
    one class   unseen data of the first class alone, over and over, whatever was asked for
    class mean  the mean training example of each class, with noise of 1 % of the range
    memorised   training data

A metric is sane if it ranks what it can see below real data, by a margin beyond the noise, and real data beside their
reference. What it cannot see is as much a part of the table: no metric sees all of these.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from genjax.metrics.distances.collapse import twin_report
from genjax.metrics.examined import Examined, Settings
from genjax.metrics.report import Judge, make_judge

REAL = "real"
MODES = 5  # examples of each class in "few modes"
Row = Mapping[str, float | str]


@dataclasses.dataclass(frozen=True)
class Sense:
    """What a metric must see.

    Attributes:
        sees: sets that must be worse than real data.
        larger: whether larger values are worse.
        margin: by how much, as a difference, or with `ratio` as a factor.
        ratio: whether values are distances without a scale.
    """

    sees: tuple[str, ...]
    larger: bool
    margin: float = 0.1
    ratio: bool = False

    def worse(self, value: float, real: float) -> bool:
        """Whether `value` is worse than `real` by the margin."""
        if self.ratio:
            return value > self.margin * abs(real)
        return value - real > self.margin if self.larger else real - value > self.margin


FAULTY = ("noise", "shuffled", "few modes", "one class", "class mean")
SENSES: dict[str, Sense] = {
    "frechet_ratio": Sense(FAULTY, True, 1.5, ratio=True),
    "mmd_polynomial": Sense(
        FAULTY, True, 0.05
    ),  # of real data noise around 0, so no factor of it is a margin
    "mmd_rbf": Sense(FAULTY, True, 0.003),
    "sliced_wasserstein": Sense(FAULTY, True, 1.2, ratio=True),
    "told_apart": Sense(FAULTY, True),
    "precision": Sense(("noise", "shuffled"), False),
    "density": Sense(("noise", "shuffled"), False),
    # Not noise: the balls around it are so large that they hold everything.
    "recall": Sense(("few modes", "one class", "class mean"), False),
    "coverage": Sense(FAULTY, False),
    "neighbours_alike": Sense(("noise", "few modes", "class mean"), True),
    "twins": Sense(("few modes", "class mean"), True),
    "diversity": Sense(("few modes", "class mean"), False),
    "label_accuracy": Sense(("noise", "one class"), False),
    "nearer_than_neighbours": Sense(("memorised",), True),
    "near_copies": Sense(("memorised",), True),
}


def faulty_sets(train: Examined, unseen: Examined, levels: int, seed: int = 0) -> dict[str, Examined]:
    """The sets of the module's docstring, as many examples in each as are unseen.

    Args:
        train: labelled images [n, h, w, c], integers 0 ... levels - 1.
        unseen: labelled images that the model, were there one, has not seen; their labels are those asked for.
        levels: of the integers.
        seed: of all choices.
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
        "noise": Examined(rng.integers(0, levels, x.shape).astype(dtype), labels),
        "shuffled": Examined(dealt, labels),
        "few modes": Examined(noisy(few), labels),
        "one class": Examined(x[np.resize(first, len(x))], labels),
        "class mean": Examined(noisy(mean), labels),
        "memorised": train[known],
    }


def judge_sets(
    train: Examined,
    test: Examined,
    levels: int,
    *,
    num: int,
    seed: int = 0,
    settings: Settings = Settings(),
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Row]:
    """Judges each faulty set as samples of a model would be.

    Args:
        train: labelled images; the last `num` of a random order are taken out: they are the unseen ones.
        test: labelled images that samples are compared with.
        levels: see `faulty_sets`.
        num: examples of each set.
        seed: of all choices.
        settings: of the judge.
        report: called with each set's name.

    Returns:
        Set -> the report of `metrics.report`, with the twins of `metrics.collapse`.
    """
    order = np.random.default_rng(seed).permutation(len(train.x))
    known, unseen = train[np.sort(order[:-num])], train[order[-num:]]
    judge: Judge = make_judge(
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
        rows[name] = judge.report(made.x, made.labels) | twin_report(made.x, test.x)
    return rows


def wrong_ranks(rows: Mapping[str, Row]) -> list[str]:
    """What is not as `SENSES` says, in words; empty if all metrics are sane.

    Real data must be beside their reference, where there is one: distances within a factor of 1.5, others within the
    margin.
    """
    found = []
    for metric, sense in SENSES.items():
        real = float(rows[REAL][metric])
        for suffix in ("_reference", "_test"):
            if metric + suffix not in rows[REAL] or metric.startswith(
                "mmd"
            ):  # an MMD of real data is noise around 0
                continue
            usual = float(rows[REAL][metric + suffix])
            if not (usual / 1.5 < real < 1.5 * usual if sense.ratio else abs(real - usual) <= sense.margin):
                found.append(f"{metric} of real data is {real:.3g}, their reference {usual:.3g}")
        for name in sense.sees:
            value = float(rows[name][metric])
            if not sense.worse(value, real):
                found.append(f"{metric} does not see '{name}': {value:.3g}, real data {real:.3g}")
    return found


def table(rows: Mapping[str, Row]) -> list[str]:
    """Markdown: a line for each metric, a column for each set; * where it is worse than real data by the margin."""
    lines = ["| metric | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for metric, sense in SENSES.items():
        real, cells = float(rows[REAL][metric]), []
        for name, row in rows.items():
            value = float(row[metric])
            mark = " *" if name != REAL and sense.worse(value, real) else ""
            cells.append(f"{value:.3g}{mark}" if np.isfinite(value) else "-")
        lines.append(f"| {metric} | " + " | ".join(cells) + " |")
    return lines
