"""The comparison page: best values, layout, and self-containment."""

import dataclasses
import html.parser
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genjax.core.errors import UserError
from genjax.data import Data, Digits, Scale
from genjax.evaluation import sample_quality
from genjax.evaluation.comparison import Entry, group, parse, title, without_seed
from genjax.evaluation.likelihood import ADDED
from genjax.evaluation.sample_quality import seconds_per_thousand
from genjax.metrics.report import SampleReference
from genjax.networks import MLP
from genjax.objectives.latent.vae import VAE
from genjax.reports import charts, page
from genjax.reports.comparison_page import _stability
from genjax.reports.comparison_table import as_json, likelihood, markdown, mean_std_over_seeds, table
from genjax.training import experiment
from genjax.training.experiment import Experiment
from genjax.training.loop import Run
from genjax.training.optimizers import Adam
from genjax.training.step import TrainState

VOID = {"meta", "link", "img", "br"}


class Reader(html.parser.HTMLParser):
    """Records the links of a page, and checks that its elements are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.loaded, self.counts = [], [], {}

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.loaded += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_the_front_is_pareto_optimal():
    """A point is on the front unless another is at least as good in both coordinates and better in one."""
    points = [tuple(p) for p in np.random.default_rng(0).integers(0, 6, (12, 2)).astype(float)]
    beaten = {
        i
        for i, j in itertools.permutations(range(len(points)), 2)
        if points[j] != points[i] and points[j][0] <= points[i][0] and points[j][1] <= points[i][1]
    }
    on = {points[i] for i in range(len(points)) if i not in beaten}
    assert {points[i] for i in charts.pareto_front(points)} == on


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [[1.2, 1.6], [0.001, 900.0], [5.0, 5.0], [3.0, 4.0, 90.0]])
def test_axes_hold_their_values_and_have_round_ticks(values, log):
    axis = charts.Axis.around("x", values, log)
    assert all(0.0 <= axis.fraction(value) <= 1.0 for value in values)
    ticks = axis.ticks()
    assert 3 <= len(ticks) <= 9
    assert all(axis.low <= tick <= axis.high for tick in ticks)
    assert all(float(f"{tick:.3g}") == pytest.approx(tick) for tick in ticks)
    places = [axis.fraction(value) for value in sorted(values)]
    assert places == sorted(places)


def test_a_page_loads_nothing_and_escapes_its_text():
    picture = page.figure("a < b", Image.new("RGB", (4, 3)))
    chart = charts.scatter(
        [charts.Point("<i>", 0, 1.0, 2.0, 0.5), charts.Point("b", 1, 3.0, 1.0)], "x & y", "z"
    )
    curve = charts.lines([("c", 0, [(0.0, 1.0), (1.0, math.nan), (2.0, 3.0)])], "x", "y")
    dots = charts.strip([("d & e", [1.0, math.inf, 3.0]), ("none", [])], "v")
    rows = page.table(["run", "n"], [["a", "1"], ["b", "2"]], [[False, True], [False, False]])
    text = page.page("T", "w", page.section("s", "w", rows, chart, curve, dots, page.cards([picture] * 2)))
    reader = read(text)
    assert all(link.startswith("data:") for link in reader.loaded)
    assert reader.counts["img"] == 2
    assert reader.counts["td"] == 4
    assert "i" not in reader.counts
    assert "nan" not in text
    assert "http" not in text.replace("http-equiv", "")


CONTEXT = {
    "samples": 8,
    "sample_seed": 0,
    "features": "none",
    "sampler": "none",
    "parameters_of": "EMA",
    "comparable": "no: features of FID's rival",
}


def entry(name, seed, width=8, trouble="", **numbers) -> Entry:
    data = Data(Digits(), (Scale(0.0, 16.0),))
    net = MLP(width=width)
    objective = VAE(net, net, shape=data.shape, latent=2)
    run = object.__new__(Run)  # grouping needs only the experiment
    object.__setattr__(run, "experiment", Experiment(objective, data, Adam(), seed=seed))
    return Entry(
        name, Path(name), run, object.__new__(TrainState), numbers, {}, np.zeros(0), CONTEXT, trouble
    )


def test_runs_that_differ_only_in_their_seed_are_one_row():
    rows = group([entry("a,seed=0", 0, ratio=1.0), entry("b,seed=0", 0, 16), entry("c", 1, ratio=2.0)])
    assert [[one.name for one in row] for row in rows] == [["a,seed=0", "c"], ["b,seed=0"]]
    assert [title(row) for row in rows] == ["a (2 seeds)", "b,seed=0"]
    assert mean_std_over_seeds(rows[0], "ratio") == (1.5, pytest.approx(0.5**0.5))
    assert mean_std_over_seeds(rows[1], "ratio") is None
    assert mean_std_over_seeds([dataclasses.replace(rows[0][0])], "ratio") == (1.0, None)


def test_the_seed_of_an_inner_model_does_not_separate_rows(tmp_path):
    """Two priors whose autoencoders differ in their seed are equal; one with another autoencoder is not."""
    made = []
    for number, (seed, variant) in enumerate([("0", "vqvae_digits"), ("1", "vqvae_digits"), ("0", "other")]):
        workdir = tmp_path / str(number)
        workdir.mkdir()
        more = [("ema", "0.5")] if variant == "other" else []
        experiment.save(experiment.load("vqvae_digits", [("seed", seed), *more]), "vqvae_digits", workdir)
        made.append(without_seed(experiment.load(f"vq_prior_digits:{workdir}", [("seed", seed)])))
    assert made[0] == made[1] != made[2]


def test_tables_mark_the_best_and_count_failures():
    rows = group(
        [
            entry("a,seed=0", 0, frechet_ratio=1.0, megabytes=5.0, parameters=7.0),
            entry(
                "a,seed=1", 1, trouble="collapsed: recall", frechet_ratio=2.0, megabytes=5.0, parameters=7.0
            ),
            entry("b", 0, 16, trouble="diverged: nan", frechet_ratio=1.25, megabytes=6.0, parameters=9.0),
        ]
    )
    heads, cells, marks = table(rows)
    assert heads == ["run", "objective", "Fréchet ratio", "MB / step", "parameters", "likelihood"]
    assert cells[0][2:5] == ["1.50 ± 0.71", "5", "7"]
    assert cells[1][2:5] == ["1.25", "6", "9"]
    assert marks == [[False, False, False, True, False, False], [False, False, True, False, False, False]]
    text = markdown(rows)
    assert "Comparable with published numbers? No: features of FID's rival." in text
    assert "| a (2 seeds) | VAE | 1.50 ± 0.71 | 5 | 7 |" in text
    assert "- a,seed=1: collapsed: recall" in text
    assert [one["seed"] for one in as_json(rows)] == [0, 1, 0]
    section = _stability(rows)
    assert "<td>a (2 seeds)</td><td>2</td><td>0.707</td><td>1</td><td>0</td>" in section
    assert "<td>b</td><td>1</td><td></td><td>0</td><td>1</td>" in section


def test_equal_values_have_no_best():
    rows = group(
        [
            entry("a", 0, frechet_ratio=1.0, near_copies=0.0, recall=0.5),
            entry("b", 0, 16, frechet_ratio=2.0, near_copies=0.0),
        ]
    )
    heads, _, marks = table(rows)
    marked = [[head for head, best in zip(heads, row, strict=True) if best] for row in marks]
    assert marked == [["Fréchet ratio"], []]


def test_metrics_of_ones_own_are_the_last_columns():
    heads, cells, _ = table(group([entry("a", 0, **{"mine/x": 2.0}), entry("b", 0, 16, recall=0.5)]))
    assert heads == ["run", "objective", "recall", "mine/x", "likelihood"]
    assert [line[2:4] for line in cells] == [["", "2"], ["0.50", ""]]


def test_labels_of_points_do_not_overlap():
    """Ten nearby points on a line: no label's box intersects another's."""
    taken: list[charts.Box] = []
    for number in range(10):
        charts._label("a name", 120.0 + 40 * number, 150.0 + 4 * number, taken)
    for one, other in itertools.combinations(taken, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_runs_are_named_with_settings(tmp_path):
    assert parse("runs/a@config.x.y=3@z=b") == (Path("runs/a"), [("x.y", "3"), ("z", "b")])
    with pytest.raises(UserError, match="write DIR@"):
        parse("runs/a@x")


def test_likelihoods_of_seeds_are_mean_and_std_with_the_sign_of_a_bound():
    found = [
        {"bits_per_dim": 2.5 + seed, "bits_per_dim_error": 0.125, "log_prob_kind": "lower bound (k)"}
        for seed in range(2)
    ]
    one, other = (dataclasses.replace(entry("a", seed), likelihood=said) for seed, said in enumerate(found))
    assert likelihood([one]) == "≤ 2.50 ± 0.12 bits/dim (lower bound (k))"
    assert likelihood([one, other]) == "≤ 3.00 ± 0.71 bits/dim (lower bound (k))"
    exact = {**found[0], "log_prob_kind": "exact", "dequantization": "none"}
    assert likelihood([dataclasses.replace(one, likelihood=exact)]) == "2.50 ± 0.12 bits/dim (exact)"
    noisy = likelihood([dataclasses.replace(one, likelihood={**exact, "dequantization": ADDED})])
    assert noisy.startswith("≤ 2.50 ± 0.12 bits/dim (lower bound through uniform")
    assert likelihood([entry("a", 0)]) == ""


def test_seconds_per_thousand_exclude_the_first_call():
    """Three calls of 100 for 210 samples, two seconds each except the first, which compiles."""
    assert seconds_per_thousand([(100, 30.0), (200, 32.0), (210, 34.0)]) == pytest.approx(20.0)


def test_equal_samples_are_not_compared_and_non_finite_ones_raise(monkeypatch):
    asked = []

    def draw(*args, num, batch_size, finite, report, **_):
        asked.append((batch_size, finite))
        report(batch_size), report(num)
        return np.zeros((num, 8, 8, 1), np.uint8), None

    monkeypatch.setattr(sample_quality, "draw_samples", draw)
    run = entry("a", 0).run
    object.__setattr__(run, "mesh", None)
    state = object.__new__(TrainState)
    for name in ("ema", "extra"):
        object.__setattr__(state, name, {})
    found, samples = sample_quality.measure(run, state, object.__new__(SampleReference), 40, 0)
    sample_quality.measure(run, state, None, 1000, 0)
    assert asked == [(20, True), (250, False)]
    assert {*found} == {"evaluations", "seconds_per_1000"}
    assert len(samples) == 40
