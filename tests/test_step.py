"""The train step against a game and a regression computed by hand."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rows import on_one_device

from genjax.core.errors import UserError
from genjax.core.objective import Aux, Player
from genjax.core.sharding_rules import Rule
from genjax.data import Data, Table
from genjax.parallel.mesh import check_batch, make_mesh, shard_batch
from genjax.parallel.placement import state_sharding
from genjax.training import loop
from genjax.training.experiment import Experiment
from genjax.training.optimizers import SGD
from genjax.training.step import TrainState, ema_decay, init_state, make_eval_step, make_train_step

IDENTITY = lambda batch, key, train: batch
RATE = 0.1


@dataclasses.dataclass(frozen=True)
class Duel:
    """min_a (a - b x)^2 and min_b (b + a)^2, b updated every `every` steps; extra counts a's updates."""

    every: int = 1

    condition = None

    def init(self, key, batch):
        return {"a": {"w": jnp.ones(())}, "b": {"w": jnp.full((), 2.0)}}, {"count": jnp.zeros(())}

    def players(self):
        def first(params, extra, batch, ctx):
            loss = jnp.mean((params["a"]["w"] - params["b"]["w"] * batch["x"]) ** 2)
            return loss, Aux({"step": ctx.step.astype(jnp.float32)}, {"count": extra["count"] + 1.0})

        def second(params, extra, batch, ctx):
            return (params["b"]["w"] + params["a"]["w"]) ** 2, Aux({"count": extra["count"]})

        return {"a": Player(first), "b": Player(second, self.every)}

    def sample(self, params, extra, key, num, cond=None):
        return jnp.zeros((num, 1))


def by_hand(steps: int, every: int, x: np.ndarray) -> tuple[float, float]:
    a, b = 1.0, 2.0
    for step in range(steps):
        a -= RATE * np.mean(2 * (a - b * x))
        if step % every == 0:
            b -= RATE * 2 * (b + a)
    return a, b


@pytest.mark.parametrize("every", [1, 3])
def test_players_are_updated_in_order_and_see_the_latest_parameters(every):
    x = np.asarray([0.5, 1.5, -1.0, 2.0], np.float32)
    duel, optimizers = Duel(every), {name: optax.sgd(RATE) for name in ("a", "b")}
    step = jax.jit(make_train_step(duel, optimizers, IDENTITY, seed=0))
    state = init_state(duel, optimizers, IDENTITY, 0, {"x": jnp.asarray(x)})
    for number in range(5):
        state, metrics = step(state, {"x": jnp.asarray(x)})
        assert float(metrics["a/step"]) == number
        assert float(metrics.get("b/updated", 1.0)) == (number % every == 0)
    a, b = by_hand(5, every, x)
    np.testing.assert_allclose([state.params["a"]["w"], state.params["b"]["w"]], [a, b], rtol=1e-5)
    assert float(state.extra["count"]) == 5.0
    assert int(state.step) == 5


def test_metrics_are_averaged_over_the_steps_that_update_their_player():
    parts = [
        {"b/loss": np.float32(value), "b/updated": np.float32(updated), "a/loss": np.float32(1)}
        for value, updated in ((6, 1), (0, 0), (2, 1))
    ]
    assert loop.average(parts) == {"b/loss": 4.0, "a/loss": 1.0}
    assert loop.average(parts[1:2]) == {"a/loss": 1.0}
    stacked = [{"a/loss": np.asarray([1.0, 3.0])}, {"a/loss": np.asarray(8.0)}]
    assert loop.average(stacked) == {"a/loss": 4.0}


def test_ema_is_warmed_up():
    """ema_n by its recursion; after 400 steps the initial parameters have a weight below 1e-8."""
    duel, optimizers = Duel(), {name: optax.sgd(RATE) for name in ("a", "b")}
    step = jax.jit(make_train_step(duel, optimizers, IDENTITY, seed=0, ema=0.9))
    state = init_state(duel, optimizers, IDENTITY, 0, {"x": jnp.ones(2)})
    expected = 2.0
    for number in range(12):
        state, _ = step(state, {"x": jnp.ones(2)})
        decay = min(0.9, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * float(state.params["b"]["w"])
        np.testing.assert_allclose(state.ema["b"]["w"], expected, rtol=1e-5)
    left = np.prod([float(ema_decay(0.999, jnp.asarray(number))) for number in range(400)])
    assert left < 1e-8


@dataclasses.dataclass(frozen=True)
class Points:
    """Examples of two numbers."""

    kind = "points"
    shape = (2,)
    dtype = "float32"
    classes = 0
    levels = 0
    splits = ("train", "test")
    num: int = 64

    def load(self, split):
        return Table({"x": np.random.default_rng(0).normal(size=(self.num, 2)).astype(np.float32)})


@dataclasses.dataclass(frozen=True)
class Regression:
    """A deterministic loss: least squares of x[1] on 64 features of x[0]."""

    features: Callable = jnp.cos

    condition = None

    def init(self, key, batch):
        return {
            "net": {"w": jax.random.normal(key, (64, 32)) / 64, "v": jax.random.normal(key, (32,)) / 8}
        }, {}

    def players(self):
        def loss(params, extra, batch, ctx):
            x, y = batch["x"][:, :1], batch["x"][:, 1]
            hidden = jnp.tanh(self.features(x * jnp.arange(64.0)[None]) @ params["net"]["w"])
            return jnp.mean((hidden @ params["net"]["v"] - y) ** 2), Aux({"mean": jnp.mean(y)})

        return {"net": Player(loss)}

    def sample(self, params, extra, key, num, cond=None):
        return jnp.zeros((num, 2))


def train(steps: int = 5, one: bool = False, **changes):
    experiment = Experiment(Regression(), Data(Points()), SGD(learning_rate=0.1, momentum=0.9), batch_size=16)
    experiment = dataclasses.replace(experiment, **changes)
    run = on_one_device(experiment) if one else loop.prepare(experiment)
    state, metrics = run.make_state(), {}
    for number in range(steps):
        state, metrics = run.compiled(state, run.batch(number, 1), False)
    return jax.device_get((state.params, metrics, state.ema))


@pytest.mark.parametrize(
    "changes",
    [
        {"compile": "pmap"},
        {"mesh": "fsdp:8"},
        {"mesh": "data:4,fsdp:2"},
        {"accumulate": 2},
        {"mesh": "data:4,tensor:2", "rules": (Rule("net/w", (None, "tensor")),)},
    ],
    ids=str,
)
def test_all_ways_of_running_a_step_agree(changes):
    """pmap = jit, FSDP and tensor rules = replicated, micro-batches = one batch, 8 devices = 1."""
    reference, result = train(one=True), train(**changes)
    for ours, theirs in zip(jax.tree.leaves(result), jax.tree.leaves(reference), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_several_steps_in_one_call_equal_single_steps():
    run = loop.prepare(Experiment(Regression(), Data(Points()), SGD(momentum=0.9), batch_size=16))
    one, metrics = run.make_state(), []
    for number in range(3):
        one, now = run.compiled(one, run.batch(number, 1), False)
        metrics.append(now)
    many, stacked = run.compiled(run.make_state(), run.batch(0, 3), True)
    for ours, theirs in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    for key, values in stacked.items():
        np.testing.assert_allclose(values, [step[key] for step in metrics], rtol=1e-5)


def test_the_initial_state_does_not_depend_on_the_mesh():
    states = [train(0, one=True), train(0, mesh="fsdp:8"), train(0, mesh="data:8")]
    for other in states[1:]:
        for ours, theirs in zip(jax.tree.leaves(other), jax.tree.leaves(states[0]), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_pmap_scans_over_steps():
    experiment = Experiment(Regression(), Data(Points()), SGD(), batch_size=16, compile="pmap")
    run = loop.prepare(experiment)
    state, _ = run.compiled(run.make_state(), run.batch(0, 2), True)
    reference = train(steps=2, one=True, optimizer=SGD())
    np.testing.assert_allclose(state.params["net"]["w"], reference[0]["net"]["w"], rtol=1e-5, atol=1e-6)


def test_evaluation_runs_with_train_false_and_reports_all_metrics():
    seen = []

    @dataclasses.dataclass(frozen=True)
    class Recording(Regression):
        def players(self):
            player = super().players()["net"]

            def loss(params, extra, batch, ctx):
                seen.append(ctx.train)
                return player.loss(params, extra, batch, ctx)

            return {"net": Player(loss)}

    params, _ = Recording().init(jax.random.key(0), {"x": jnp.zeros((2, 2))})
    batch = {"x": jnp.asarray(np.random.default_rng(1).normal(size=(8, 2)), jnp.float32)}
    metrics = jax.jit(make_eval_step(Recording(), IDENTITY))(params, {}, batch, jax.random.key(0))
    assert seen == [False]
    expected = Regression().players()["net"].loss(params, {}, batch, None)[0]
    np.testing.assert_allclose(metrics["net/loss"].value, expected, rtol=1e-6)
    assert metrics["net/loss"].weight == 8
    assert set(metrics) == {"net/loss", "net/mean"}


def test_shardings_of_optimizer_state_follow_parameters():
    run = loop.prepare(
        Experiment(Regression(), Data(Points()), SGD(momentum=0.9), batch_size=16, mesh="data:2,fsdp:4")
    )
    placed = {
        jax.tree_util.keystr(path): leaf.spec
        for path, leaf in jax.tree_util.tree_leaves_with_path(run.shardings)
    }
    large = [spec for path, spec in placed.items() if "'w'" in path]
    assert len(large) == 3, "parameters, momentum, average"
    assert all(spec == large[0] and "fsdp" in spec for spec in large)
    assert isinstance(run.shardings, TrainState)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: make_mesh("dta:8"), "did you mean 'data'"),
        (lambda: make_mesh("data:3"), "does not fit 8 devices"),
        (lambda: make_mesh("data:x"), "not of the form"),
        (lambda: make_mesh("data:-1,fsdp:-1"), "does not fit"),
        (lambda: check_batch(12, make_mesh("data:8")), "use 8 or 16"),
        (lambda: check_batch(4, make_mesh("data:8")), "use 8"),
        (lambda: check_batch(24, make_mesh("data:8"), 2), "2 micro-batches: use 16 or 32"),
        (lambda: train(0, rules=(Rule("nothing", ("data",)),)), "matches no array"),
        (lambda: train(0, mesh="tensor:8", rules=(Rule("net/v", ("sequence",)),)), "cannot split"),
        (lambda: train(1, mesh="fsdp:8", compile="pmap"), "axis 'data' alone"),
        (lambda: train(0, optimizer={"nt": SGD()}), "'nt'"),
    ],
)
def test_invalid_meshes_rules_and_batches_raise(call, words):
    with pytest.raises(UserError, match=words):
        call()


def test_batches_become_global_arrays():
    mesh = make_mesh("data:4,fsdp:2")
    rows = np.arange(32.0, dtype=np.float32).reshape(16, 2)
    placed = shard_batch({"x": rows}, mesh)["x"]
    np.testing.assert_array_equal(placed, rows)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 2)}
    stacked = shard_batch({"x": np.stack([rows, rows])}, mesh, stacked=True)["x"]
    assert {shard.data.shape for shard in stacked.addressable_shards} == {(2, 2, 2)}
    assert state_sharding({"a": jnp.zeros(3)}, mesh)["a"].is_fully_replicated
