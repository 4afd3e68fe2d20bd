"""The conformance table: a new objective is one more row with every check below.

An objective in a config file outside the repository is checked by

    ./launch/local.sh test tests/test_objectives.py --config=my_idea.py
"""

import dataclasses
import json

import jax
import numpy as np
import pytest
from rows import ROWS, SLOW, make_run, on_one_device, start

from genjax.core import tree
from genjax.core.errors import UserError
from genjax.core.objective import HasLogProb
from genjax.evaluation.sampling import draw_samples
from genjax.training.checkpoint import Checkpoints
from genjax.training.optimizers import SGD


def in_one_process(names):
    """Groups the checks of a row in one process, which compiles what they share once."""
    marks = lambda name: [pytest.mark.xdist_group(name), *([pytest.mark.slow] if name in SLOW else [])]
    return [pytest.param(name, marks=marks(name)) for name in names]


row = pytest.mark.parametrize("name", in_one_process(ROWS))
FIRST = {
    len(experiment.objective.players()): name
    for name, experiment in reversed(ROWS.items())
    if name not in SLOW
}


def leaves(value):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(value)]


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def take_steps(run, steps: int, state=None, first: int = 0):
    """Takes steps, one call each; returns the state and the metrics of each step."""
    state, metrics = start(run) if state is None else state, []
    for number in range(first, first + steps):
        state, now = run.compiled(state, run.batch(number, 1), False)
        metrics.append({name: float(value) for name, value in now.items()})
    return state, metrics


@row
def test_parameters_are_plain_float32_dicts_by_player(name):
    run = make_run(name)
    params = start(run).params
    assert list(params) == list(run.experiment.objective.players())
    assert all(leaf.dtype == np.float32 for leaf in leaves(params))

    def plain(node) -> bool:
        if hasattr(node, "shape"):
            return True
        return type(node) is dict and all(type(key) is str and plain(child) for key, child in node.items())

    assert plain(params)


@row
def test_every_player_is_updated_and_compiled_once(name):
    """Three steps change every parameter array of every player; the third does not compile."""
    run = make_run(name)
    state, before, compiled = start(run), start(run), []

    def listen(event, *_, **__):
        compiled.append(event)

    for number in range(3):
        batch = run.batch(number, 1)
        if number == 2:
            jax.block_until_ready(state)
            jax.monitoring.register_event_duration_secs_listener(listen)
        state, metrics = run.compiled(state, batch, False)
    jax.block_until_ready(state)
    jax.monitoring.unregister_event_duration_listener(listen)
    assert not [event for event in compiled if "compile" in event]
    for player in run.experiment.objective.players():
        pairs = zip(leaves(state.params[player]), leaves(before.params[player]), strict=True)
        still = [index for index, (new, old) in enumerate(pairs) if np.array_equal(new, old)]
        assert not still, f"{player}: arrays {still} did not change"
        assert f"{player}/loss" in metrics


@row
def test_an_update_changes_its_own_player_only(name):
    """With all other learning rates zero, the parameters of other players do not change."""
    experiment = ROWS[name]
    players = list(experiment.objective.players())
    for mover in players[:-1]:
        rates = {player: SGD(learning_rate=0.1 if player == mover else 0.0) for player in players}
        run = on_one_device(dataclasses.replace(experiment, optimizer=rates))
        before = start(make_run(name, "one"))
        state, _ = take_steps(run, 1, start(make_run(name, "one")))
        for player in players:
            assert equal(state.params[player], before.params[player]) == (player != mover)


@row
def test_runs_repeat_and_resume_bit_for_bit(name, tmp_path):
    """Repeating a run gives the same bits, as does saving and resuming; another seed does not."""
    run = make_run(name)
    state, metrics = take_steps(run, 4)
    half, first = take_steps(run, 2)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, half)
    with Checkpoints(tmp_path) as checkpoints:
        done, resumed = checkpoints.restore(run.template())
    resumed, last = take_steps(run, 2, resumed, done)
    assert equal(state, resumed)
    assert metrics == first + last
    other = start(make_run(name, seed=ROWS[name].seed + 1))
    assert not equal(other.params, start(run).params)


def check_sharded(name: str, mesh: str) -> None:
    """The same numbers on 8 devices as on one, up to the order of float32 sums."""
    one, reference = take_steps(make_run(name, "one"), 2)
    many, metrics = take_steps(make_run(name, mesh), 2)
    for ours, theirs in zip(leaves(many.params), leaves(one.params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4)
    for key, value in reference[-1].items():
        np.testing.assert_allclose(metrics[-1][key], value, rtol=2e-3, atol=1e-4, err_msg=key)


@row
def test_sharded_equals_one_device(name):
    """Batches split over all devices."""
    check_sharded(name, "data:8")


@pytest.mark.parametrize("name", in_one_process(FIRST.values()))
def test_split_parameters_equal_one_device(name):
    """Batches split over two axes, parameters over one: for one row of each number of players."""
    check_sharded(name, "data:2,fsdp:4")


@row
def test_fsdp_splits_large_arrays(name):
    state = start(make_run(name, "data:2,fsdp:4"))
    large = [
        leaf for leaf in jax.tree.leaves(state) if leaf.size >= 1024 and any(n % 4 == 0 for n in leaf.shape)
    ]
    assert large, "the row's network is too small to test this"
    assert all(leaf.addressable_shards[0].data.size * 4 == leaf.size for leaf in large)


def draw(run, seed: int, num: int, batch_size: int):
    experiment, state = run.experiment, start(run)
    arguments = (experiment.objective, experiment.data, state.ema, state.extra, run.mesh)
    return draw_samples(*arguments, seed=seed, num=num, batch_size=batch_size)


def differing(a, b) -> float:
    """Share of samples that differ by more than rounding; a token or pixel may round to its neighbour."""
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (a, b))
    return float(np.mean(np.mean(~np.isclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max()), axis=1) > 0.02))


@row
def test_samples_are_a_function_of_seed_and_index_and_fit_the_data(name):
    """Of no other sample, of no batch size, and of no number of devices."""
    drawn, labels = draw(make_run(name), 0, 12, 8)
    again, _ = draw(make_run(name, "one"), 0, 14, 7)
    other, _ = draw(make_run(name), 1, 12, 8)
    assert differing(again[:12], drawn) == 0
    assert differing(other, drawn) > 0.5
    assert differing(drawn[1:], drawn[:-1]) > 0.5
    experiment = make_run(name).experiment
    data = experiment.data.load("test")[np.arange(4)]["x"]
    assert drawn.shape[1:] == data.shape[1:]
    assert drawn.dtype == data.dtype
    assert (labels is not None) == (experiment.objective.condition is not None)


@row
def test_log_prob_of_an_example_does_not_depend_on_its_batch(name):
    """Row i has the same log-probability in any batch, and `log_prob_kind` names its kind."""
    run = make_run(name, "one")
    objective, state = run.experiment.objective, start(run)
    if not isinstance(objective, HasLogProb):
        assert not hasattr(objective, "log_prob")
        return
    batch = run.experiment.data.forward(run.raw(0), jax.random.key(0), False)
    log_prob = jax.jit(lambda batch: objective.log_prob(state.params, state.extra, batch, jax.random.key(1)))
    if not objective.log_prob_kind:  # an objective configured without a likelihood
        with pytest.raises(UserError, match="no likelihood"):
            log_prob(batch)
        return
    changed = {key: rows.at[1:].set(rows[:-1]) for key, rows in batch.items()}
    values, others = log_prob(batch), log_prob(changed)
    np.testing.assert_allclose(values[0], others[0], rtol=1e-5)
    assert not np.allclose(values[1:], others[1:])
    assert any(word in objective.log_prob_kind for word in ("exact", "bound", "ODE estimate"))


@row
def test_description_restores_the_experiment(name):
    def find(reference):
        module, _, attribute = reference.partition(":")
        return getattr(__import__(module, fromlist=[attribute]), attribute)

    assert tree.restore(json.loads(json.dumps(tree.describe(ROWS[name]))), find) == ROWS[name]


def test_the_table_has_every_shipped_objective():
    """Each module of genjax.objectives that defines an objective has a row."""
    import importlib
    import pkgutil

    from genjax import objectives

    shipped = set()
    for module in pkgutil.walk_packages(objectives.__path__, "genjax.objectives."):
        names = vars(importlib.import_module(module.name))
        shipped |= {
            value
            for value in names.values()
            if isinstance(value, type)
            and value.__module__.startswith("genjax.objectives")
            and all(hasattr(value, name) for name in ("init", "players", "sample"))
        }
    assert shipped <= {type(experiment.objective) for experiment in ROWS.values()}
