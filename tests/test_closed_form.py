"""Players updated in closed form: they see the whole batch, no optimizer, and the others' latest parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_step import IDENTITY

from genjax.core.errors import UserError
from genjax.core.objective import Aux, Mean, Player
from genjax.data import Data, Table
from genjax.training.experiment import Experiment
from genjax.training.optimizers import SGD
from genjax.training.step import init_state, make_eval_step, make_train_step


@dataclasses.dataclass(frozen=True)
class Standardised:
    """N(mean, scale^2): the mean is the batch's, in closed form; log scale follows the gradient given that mean."""

    every: int = 1
    condition = None

    def init(self, key, batch):
        return {"mean": jnp.zeros(batch["x"].shape[1]), "scale": jnp.zeros(())}, {}

    def players(self):
        return {"mean": Player(update=self.update, every=self.every), "scale": Player(self.loss)}

    def update(self, params, extra, batch, ctx):
        mean = jnp.mean(batch["x"], axis=0)
        moved = jnp.sqrt(jnp.sum((mean - params["mean"]) ** 2))
        return mean, Aux({"moved": Mean(moved, jnp.ones(()))})

    def loss(self, params, extra, batch, ctx):
        z = (batch["x"] - params["mean"][None]) * jnp.exp(-params["scale"])
        return jnp.mean(0.5 * z**2) + params["scale"], Aux()


BATCH = {"x": jnp.asarray(np.random.default_rng(0).normal(3.0, 2.0, (16, 2)), jnp.float32)}


def _run(objective, steps):
    optimizers = Experiment(objective, Data(_Points()), SGD(0.1), steps=steps, batch_size=16).optimizers()
    state = init_state(objective, optimizers, IDENTITY, 0, BATCH)
    step = jax.jit(make_train_step(objective, optimizers, IDENTITY, seed=0))
    for _ in range(steps):
        state, metrics = step(state, BATCH)
    return state, metrics


@dataclasses.dataclass(frozen=True)
class _Points:
    kind = "points"
    shape = (2,)
    dtype = "float32"
    classes = 0
    levels = 0
    splits = ("train", "test")

    def load(self, split):
        return Table({"x": np.asarray(BATCH["x"])})


def test_it_is_the_closed_form_and_the_next_player_sees_it():
    state, metrics = _run(Standardised(), 1)
    mean = np.mean(np.asarray(BATCH["x"]), axis=0)
    np.testing.assert_allclose(state.params["mean"], mean, rtol=1e-6)
    np.testing.assert_allclose(metrics["mean/moved"], np.linalg.norm(mean), rtol=1e-6)
    gradient = 1.0 - np.mean((np.asarray(BATCH["x"]) - mean) ** 2)  # at the new mean, not at 0
    np.testing.assert_allclose(state.params["scale"], -0.1 * gradient, rtol=1e-5)
    assert jax.tree.leaves(state.opt_state["mean"]) == []
    assert set(metrics) == {"mean/moved", "scale/loss", "scale/grad_norm"}


def test_its_interval_is_kept():
    state, metrics = _run(Standardised(every=2), 2)
    assert metrics["mean/updated"] == 0
    np.testing.assert_allclose(state.params["mean"], np.mean(np.asarray(BATCH["x"]), axis=0), rtol=1e-6)


def test_evaluation_reports_its_metrics_and_changes_nothing():
    state, _ = _run(Standardised(), 1)
    found = jax.jit(make_eval_step(Standardised(), IDENTITY))(state.params, {}, BATCH, jax.random.key(0))
    assert set(found) == {"mean/moved", "scale/loss"}
    np.testing.assert_allclose(found["mean/moved"].value, 0.0, atol=1e-6)


def test_micro_batches_and_players_without_loss_or_update_are_refused():
    optimizers = Experiment(Standardised(), Data(_Points()), SGD(0.1), batch_size=16).optimizers()
    with pytest.raises(UserError, match="'mean' is updated in closed form from the whole batch"):
        make_train_step(Standardised(), optimizers, IDENTITY, seed=0, accumulate=2)
    for wrong in ({}, {"loss": Standardised().loss, "update": Standardised().update}):
        with pytest.raises(UserError, match="either a loss or an update"):
            Player(**wrong)
