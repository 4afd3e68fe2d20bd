"""Sampling paths, densities and settings: their pictures and tables show the right numbers."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rows import ROWS

from genjax.api import vary
from genjax.core.errors import UserError
from genjax.evaluation.distances import load_split
from genjax.evaluation.sampling import draw_samples
from genjax.metrics.report import distribution_report
from genjax.reports import figures, planes, sampling_paths
from genjax.samplers.ode import DDIM
from genjax.training import experiment as experiments
from genjax.training import loop, variations
from genjax.training.checkpoint import Checkpoints
from genjax.training.experiment import Evaluation

pytestmark = pytest.mark.xdist_group("watch")  # shared fixtures are built once, in one process


def test_frames_are_evenly_spaced_in_path_length():
    """A path that rests at its start: frames have equal distances, not equal numbers of steps; both ends are kept."""
    states = np.concatenate([np.zeros(50), np.linspace(0.0, 1.0, 41)])[:, None]
    chosen = sampling_paths.evenly_spaced_frames(states, 5)
    np.testing.assert_allclose(states[chosen, 0], [0.0, 0.25, 0.5, 0.75, 1.0], atol=1e-9)
    assert chosen[0] == 0
    assert chosen[-1] == 90
    tokens = np.array([[9, 9, 9, 9], [9, 9, 9, 9], [1, 9, 9, 9], [1, 2, 9, 9], [1, 2, 3, 0]])
    np.testing.assert_array_equal(sampling_paths.evenly_spaced_frames(tokens, 3), [0, 3, 4])


@dataclasses.dataclass(frozen=True)
class Known:
    """Points N(0, 0.2^2 I) in model units."""

    std: float = 0.2
    log_prob_kind = "exact"

    condition = None

    def init(self, key, batch):
        return {}, {}

    def players(self):
        return {}

    def sample(self, params, extra, key, num, cond=None):
        return self.std * jax.random.normal(key, (num, 2))

    def log_prob(self, params, extra, batch, key):
        return jnp.sum(-0.5 * (batch["x"] / self.std) ** 2 - jnp.log(self.std * jnp.sqrt(2 * jnp.pi)), axis=1)


@pytest.fixture(scope="module")
def run():
    changed = dataclasses.replace(
        ROWS["diffusion-points"], evaluation=Evaluation(num=80, batch_size=40, pictured=16)
    )
    return loop.prepare(changed)


def test_densities_are_in_data_units(run):
    """The density over the window integrates to 1 only with the Jacobian of the data transforms."""
    known = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, objective=Known()))
    values = planes.log_density(known, run.make_state(), (-2.4, 2.4))
    cell = (4.8 / (len(values) - 1)) ** 2
    assert np.exp(values).sum() * cell == pytest.approx(1.0, abs=1e-3)
    peak = np.unravel_index(values.argmax(), values.shape)
    assert peak == (len(values) // 2, len(values) // 2)
    np.testing.assert_allclose(values, values.T, atol=1e-5)


@pytest.mark.slow
def test_a_path_ends_in_the_samples(run):
    """With equal seed and number the last state equals the samples; the picture has a tile for each time."""
    state = run.make_state()
    times, states = sampling_paths.draw_path(run, state, 8, 3, seed=5)
    arguments = (run.experiment.objective, run.experiment.data, state.ema, state.extra, run.mesh)
    drawn, _ = draw_samples(*arguments, seed=5, num=8, batch_size=8)
    np.testing.assert_allclose(states[-1], drawn, rtol=1e-4, atol=1e-5)
    assert times[0] == 1.0
    assert times[-1] < 0.01
    image = sampling_paths.show_path(run, state, times, states)
    tile = figures.field(np.zeros((1, 2)), (-1.0, 1.0))
    assert image.width == (len(times) + 1) * (tile.width + 6), "one tile for each time, one for the density"


def test_an_objective_without_steps_has_no_path(run):
    known = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, objective=Known()))
    with pytest.raises(UserError, match="Known samples in one step"):
        sampling_paths.draw_path(known, run.make_state(), 8, 3, seed=0)
    with pytest.raises(UserError, match="trace=1 must be at least 2"):
        sampling_paths.draw_path(run, run.make_state(), 8, 1, seed=0)


def test_settings_are_all_combinations():
    over = variations.parse_over(["objective.sampler=DDIM,Heun", "config.objective.sampler.steps=3,4"])
    found = [tuple(value for _, value in setting) for setting in variations.settings(over)]
    assert found == [("DDIM", "3"), ("DDIM", "4"), ("Heun", "3"), ("Heun", "4")]
    assert variations.settings([]) == [()]
    with pytest.raises(UserError, match="over=steps: write over="):
        variations.parse_over(["steps"])


@pytest.mark.slow
def test_vary_reports_the_numbers_of_each_setting(run, tmp_path, monkeypatch):
    """Numbers of a setting are those of `distribution_report` on samples drawn with that setting."""
    experiments.save(run.experiment, "diffusion_mixture", tmp_path)
    state = run.make_state()
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(0, state)
    over = variations.parse_over(["objective.sampler.steps=2,5", "objective.sampler.eta=0,1"])
    rows = vary.vary(tmp_path, [], over, num=80, seed=3)
    assert [row["evaluations"] for row in rows] == [2, 2, 5, 5]
    objective = dataclasses.replace(run.experiment.objective, sampler=DDIM(steps=5, eta=1.0))
    data = run.experiment.data
    samples, _ = draw_samples(objective, data, state.ema, {}, run.mesh, seed=3, num=80, batch_size=40)
    report = distribution_report(
        train=load_split(data, "train")["x"], test=load_split(data, "test")["x"], samples=samples
    )
    assert rows[-1]["frechet_ratio"] == pytest.approx(report["frechet_ratio"], rel=1e-4)
    assert rows[-1]["objective.sampler.eta"] == "1"
    assert json.loads((tmp_path / "vary" / "rows.json").read_text()) == rows
    assert (tmp_path / "vary" / "table.md").read_text().count("\n") == 2 + len(rows)
    assert {path.name for path in (tmp_path / "vary").glob("*.png")} == {"samples.png", "curve.png"}
    with pytest.raises(UserError, match="beta_max"):
        vary.vary(tmp_path, [], variations.parse_over(["objective.process.beta_max=3,4"]), num=8, seed=0)


def test_paths_are_a_function_of_the_key(run):
    """`path` is a function of its key alone."""
    objective, state = run.experiment.objective, run.make_state()
    draw = jax.jit(objective.path, static_argnums=3)
    first = draw(state.ema, {}, jax.random.key(0), 4, None)[1]
    assert np.array_equal(first, draw(state.ema, {}, jax.random.key(0), 4, None)[1])
    assert not np.allclose(first, draw(state.ema, {}, jax.random.key(1), 4, None)[1])
