"""Micro-batches, replicas and held-out batches: each its own noise, and one mean over all that they count."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rows import on_one_device

from genjax.core.errors import UserError
from genjax.core.objective import Aux, Context, Mean, Player
from genjax.data import Data, Table
from genjax.evaluation.held_out import held_out_losses
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import SGD
from genjax.training.step import init_state, make_eval_step, make_train_step

RATE, COUNT = 0.1, 4
IDENTITY = lambda batch, key, train: batch


@dataclasses.dataclass(frozen=True)
class Noise:
    """min_w w e, e drawn from the key of each loss; `extra` keeps the draws: the last ones, or those of replicas."""

    axis: str | None = None

    condition = None

    def init(self, key, batch):
        draws = {f"draws_{name}": jnp.zeros(2 * COUNT) for name in "ab"}
        return {name: {"w": jnp.zeros(())} for name in "ab"}, draws

    def players(self):
        def loss_of(name):
            def loss(params, extra, batch, ctx):
                draw, past = jax.random.normal(ctx.key), extra[f"draws_{name}"]
                if self.axis:
                    now = jnp.zeros_like(past).at[jax.lax.axis_index(self.axis)].set(draw)
                else:
                    now = jnp.append(past[1:], draw)
                return params[name]["w"] * draw, Aux({"draw": draw}, {f"draws_{name}": now})

            return Player(loss)

        return {name: loss_of(name) for name in "ab"}


def steps_of(objective, batch, count=1, **options):
    """The last state and the metrics after steps on one batch, by SGD; over 4 replicas if an axis is given."""
    batch = jax.tree.map(jnp.asarray, batch)
    optimizers = {name: optax.sgd(RATE) for name in objective.players()}
    step = make_train_step(objective, optimizers, IDENTITY, seed=0, **options)
    state = init_state(objective, optimizers, IDENTITY, 0, batch)
    run = jax.jit(step)
    if "axis" in options:
        split = lambda x: x.reshape(COUNT, -1, *x.shape[1:])
        run = jax.pmap(step, options["axis"], devices=jax.devices()[:COUNT])
        state = jax.tree.map(lambda x: jnp.stack([x] * COUNT), state)
        batch = jax.tree.map(split, batch)
    for _ in range(count):
        state, metrics = run(state, batch)
    return jax.device_get((state, metrics))


def test_each_micro_batch_player_and_step_has_its_own_noise():
    """All draws of two steps differ; each micro-batch sees the extra state that the one before it left."""
    state, metrics = steps_of(Noise(), {"x": jnp.zeros(8)}, 2, accumulate=COUNT)
    draws = np.stack([state.extra["draws_a"], state.extra["draws_b"]])
    assert len(np.unique(draws)) == draws.size == 4 * COUNT
    for name, own in zip("ab", draws, strict=True):
        np.testing.assert_allclose(metrics[f"{name}/draw"], own[COUNT:].mean(), rtol=1e-5)
        np.testing.assert_allclose(state.params[name]["w"], -2 * RATE * own.mean(), rtol=1e-5)


def test_each_replica_has_its_own_noise():
    """And all replicas end with the same state: the means over them."""
    state, metrics = steps_of(Noise("data"), {"x": jnp.zeros(8)}, axis="data")
    for name in "ab":
        for leaf in (state.params[name]["w"], state.extra[f"draws_{name}"], metrics[f"{name}/draw"]):
            np.testing.assert_array_equal(leaf, leaf[:1].repeat(COUNT, axis=0))
        draws = COUNT * state.extra[f"draws_{name}"][0][:COUNT]
        assert len(np.unique(draws)) == COUNT
        np.testing.assert_allclose(state.params[name]["w"][0], -RATE * draws.mean(), rtol=1e-5)
        np.testing.assert_allclose(metrics[f"{name}/draw"][0], draws.mean(), rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Masked:
    """Least squares of a constant over the elements that count, with a metric over the positive ones."""

    condition = None

    def init(self, key, batch):
        return {"net": {"w": jnp.ones(())}}, {}

    def players(self):
        def loss(params, extra, batch, ctx):
            x, mask = batch["x"], batch["mask"]
            mean = lambda values, mask: jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1.0)
            positive = mask * (x > 0)
            metrics = {"error": mean(x, mask), "positive": Mean(mean(x, positive), jnp.sum(positive))}
            return mean((params["net"]["w"] - x) ** 2, mask), Aux(metrics, weight=jnp.sum(mask))

        return {"net": Player(loss)}


def unequal(rows: int) -> dict[str, np.ndarray]:
    """Rows of 0 to 3 elements that count."""
    x = np.random.default_rng(0).normal(1.0, 2.0, size=(rows, 3)).astype(np.float32)
    return {"x": x, "mask": (np.arange(3)[None] < np.arange(rows)[:, None] % 4).astype(np.float32)}


def by_hand(batch):
    x = batch["x"][batch["mask"] > 0].astype(np.float64)
    return {"loss": np.mean((1.0 - x) ** 2), "error": x.mean(), "positive": x[x > 0].mean()}


@pytest.mark.parametrize("options", [{"accumulate": n} for n in (1, 2, 4, 8)] + [{"axis": "data"}], ids=str)
def test_rows_of_unequal_length_give_one_loss_and_one_gradient(options):
    """Micro-batch or replica i holds rows of its own number of elements, some of none."""
    batch = unequal(8)
    state, metrics = steps_of(Masked(), batch, **options)
    x = batch["x"][batch["mask"] > 0]
    first = lambda value: np.ravel(value)[0]  # of all replicas
    np.testing.assert_allclose(first(state.params["net"]["w"]), 1 - 2 * RATE * np.mean(1 - x), rtol=1e-5)
    for name, value in by_hand(batch).items():
        np.testing.assert_allclose(first(metrics[f"net/{name}"]), value, rtol=1e-5)


def test_a_mean_over_nothing_is_zero():
    batch = {"x": -np.ones((4, 3), np.float32), "mask": np.ones((4, 3), np.float32)}
    _, metrics = steps_of(Masked(), batch, accumulate=2)
    assert metrics["net/positive"] == 0.0
    np.testing.assert_allclose(metrics["net/loss"], 4.0)


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of unequal length."""

    kind = "points"
    shape = (3,)
    dtype = "float32"
    classes = 0
    levels = 0
    splits = ("train", "test")

    def load(self, split):
        return Table(unequal(11))


@dataclasses.dataclass(frozen=True)
class Spoiling:
    """An augmentation that no evaluation may see."""

    def forward(self, batch, key, train):
        return {**batch, "x": batch["x"] + 100.0} if train else batch

    def inverse(self, x):
        return x

    def log_det(self, shape):
        return 0.0


def test_a_held_out_loss_counts_each_element_once_and_without_augmentation():
    """11 rows in batches of 4, the last with 3: the same as one batch of all."""
    experiment = Experiment(Masked(), Data(Rows(), (Spoiling(),)), SGD(), batch_size=8)
    expected = by_hand(unequal(11))
    for size in (4, 11):
        sized = dataclasses.replace(experiment, evaluation=Evaluation(batch_size=size))
        run = on_one_device(sized)
        found = held_out_losses(sized, run.make_state(), run.mesh)
        assert found == pytest.approx({f"net/{name}": value for name, value in expected.items()}, rel=1e-5)


def test_training_sees_the_augmented_batch_and_evaluation_does_not():
    spoiling = Spoiling().forward
    optimizers = {"net": optax.sgd(RATE)}
    batch = jax.tree.map(jnp.asarray, unequal(8))
    state = init_state(Masked(), optimizers, spoiling, 0, batch)
    _, metrics = jax.jit(make_train_step(Masked(), optimizers, spoiling, seed=0))(state, batch)
    shown = make_eval_step(Masked(), spoiling)(state.params, {}, batch, jax.random.key(0))
    assert float(metrics["net/error"]) == pytest.approx(100.0 + float(shown["net/error"].value), rel=1e-4)


@dataclasses.dataclass(frozen=True)
class Counted:
    """A player in closed form: the mean of the batch. Its key and mode are kept for inspection."""

    seen: ClassVar[list] = []

    condition = None

    def init(self, key, batch):
        return {"mean": {"m": jnp.zeros(())}}, {"calls": jnp.zeros(())}

    def players(self):
        def update(params, extra, batch, ctx: Context):
            self.seen.append(ctx.train)
            mean = jnp.mean(batch["x"])
            return {"m": mean}, Aux(
                {"gap": jnp.abs(mean - params["mean"]["m"])}, {"calls": extra["calls"] + 1}
            )

        return {"mean": Player(update=update)}


def test_closed_form_updates_replace_parameters_and_need_the_whole_batch():
    batch, optimizers = {"x": jnp.arange(4.0)}, {"mean": optax.identity()}
    step = make_train_step(Counted(), optimizers, IDENTITY, seed=0)
    state, metrics = step(init_state(Counted(), optimizers, IDENTITY, 0, batch), batch)
    assert (float(state.params["mean"]["m"]), float(state.extra["calls"])) == (1.5, 1.0)
    assert float(metrics["mean/gap"]) == 1.5
    shown = make_eval_step(Counted(), IDENTITY)(state.params, state.extra, batch, jax.random.key(0))
    assert float(shown["mean/gap"].value) == 0.0
    assert Counted.seen == [True, False]
    for options in ({"accumulate": 2}, {"axis": "data"}):
        with pytest.raises(UserError, match="player 'mean' is updated in closed form"):
            make_train_step(Counted(), optimizers, IDENTITY, seed=0, **options)
