"""Means of an autoregressive objective with masks, and what is derived from combined means (`Mean.report`)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rows import on_one_device

from genjax.core.objective import Aux, Mean, Player
from genjax.data import Data, Table
from genjax.evaluation.held_out import held_out_losses
from genjax.networks.vector_quantizers import code_statistics, perplexity, usage
from genjax.objectives.autoregressive import Autoregressive
from genjax.training import loop
from genjax.training.experiment import Evaluation, Experiment
from genjax.training.optimizers import SGD
from genjax.training.step import init_state, make_train_step

VALUES, LENGTH = 5, 32
IDENTITY = lambda batch, key, train: batch


@dataclasses.dataclass(frozen=True)
class Bigram:
    """Logits of the next element from the last one."""

    def init(self, key, x, t, cond, *, out):
        return {"w": jax.random.normal(key, (VALUES + 1, VALUES))}

    def apply(self, params, x, t, cond, *, out, **_):
        return params["w"][x]


@dataclasses.dataclass(frozen=True)
class Counted(Autoregressive):
    """Reports statistics of the elements that count."""

    def players(self):
        def loss(params, extra, batch, ctx):
            value, aux = self.loss(params, extra, batch, ctx)
            mask = batch["mask"].astype(jnp.float32)
            shares = jnp.sum(jax.nn.one_hot(batch["x"], VALUES) * mask[..., None], (0, 1))
            total = jnp.sum(mask)
            codes = Mean(shares / jnp.maximum(total, 1.0), total, code_statistics)
            return value, dataclasses.replace(aux, metrics={**aux.metrics, "codes": codes})

        return {"net": Player(loss)}


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Rows of 0 to LENGTH elements that count."""

    kind = "text"
    shape = (LENGTH,)
    dtype = "int32"
    classes = 0
    levels = VALUES
    splits = ("train", "test")

    def load(self, split):
        num, rng = {"train": 64, "test": 11}[split], np.random.default_rng(len(split))
        x = rng.integers(0, VALUES, (num, LENGTH)).astype(np.int32) ** 2 % VALUES
        lengths = rng.integers(0, LENGTH + 1, num)
        lengths[0] = 0
        return Table({"x": x, "mask": np.arange(LENGTH)[None] < lengths[:, None]})


OBJECTIVE = Counted(Bigram(), (LENGTH,), VALUES)
EXPERIMENT = Experiment(OBJECTIVE, Data(Ragged()), SGD(learning_rate=0.5), batch_size=16)


def rows(split, num):
    return {name: jnp.asarray(array) for name, array in Ragged().load(split)[np.arange(num)].items()}


def whole_loss(params, batch):
    """-sum log p / number, over the elements that count."""
    before = jnp.pad(batch["x"], ((0, 0), (1, 0)), constant_values=VALUES)[:, :-1]
    log_p = jax.nn.log_softmax(params["net"]["w"][before])
    nats = -jnp.take_along_axis(log_p, batch["x"][..., None], -1)[..., 0]
    return jnp.sum(nats * batch["mask"]) / jnp.sum(batch["mask"])


def counts(batch):
    found = np.bincount(np.asarray(batch["x"])[np.asarray(batch["mask"])], minlength=VALUES)
    return jnp.asarray(found / found.sum(), jnp.float32)


@pytest.mark.parametrize("accumulate", [1, 2, 4, 8])
def test_accumulation_gives_one_loss_and_one_gradient_on_rows_of_unequal_length(accumulate):
    batch, rate = rows("train", 16), {"net": optax.sgd(1.0)}
    state = init_state(OBJECTIVE, rate, IDENTITY, 0, batch)
    step = jax.jit(make_train_step(OBJECTIVE, rate, IDENTITY, seed=0, accumulate=accumulate))
    after, metrics = step(state, batch)
    value, gradient = jax.value_and_grad(whole_loss)(state.params, batch)
    np.testing.assert_allclose(metrics["net/loss"], value, rtol=1e-6)
    moved = state.params["net"]["w"] - after.params["net"]["w"]
    np.testing.assert_allclose(moved, gradient["net"]["w"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["net/perplexity"], perplexity(counts(batch)), rtol=1e-5)
    assert float(metrics["net/used"]) == pytest.approx(3 / VALUES)


@pytest.mark.parametrize(
    "changes", [{"compile": "pmap"}, {"mesh": "data:8"}, {"mesh": "data:4,fsdp:2", "accumulate": 2}], ids=str
)
def test_devices_and_replicas_give_one_loss_and_one_gradient(changes):
    def step(run):
        state, metrics = run.compiled(run.make_state(), run.batch(0, 1), False)
        return {
            "w": state.params["net"]["w"],
            **{f"net/{k}": metrics[f"net/{k}"] for k in ("loss", "perplexity")},
        }

    one, many = (
        step(on_one_device(EXPERIMENT)),
        step(loop.prepare(dataclasses.replace(EXPERIMENT, **changes))),
    )
    for name, value in one.items():
        np.testing.assert_allclose(many[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("size", [2, 4, 12, 64])
def test_a_held_out_loss_counts_each_example_once_whatever_the_batch_size(size):
    experiment = dataclasses.replace(EXPERIMENT, evaluation=Evaluation(batch_size=size))
    run, batch = on_one_device(experiment), rows("test", 11)
    state = run.make_state()
    losses = held_out_losses(experiment, state, run.mesh)
    each = [jax.tree.map(lambda x, i=i: x[i : i + 1], batch) for i in range(11)]
    weights = np.array([row["mask"].sum() for row in each])
    values = [float(whole_loss(state.ema, row)) for row, weight in zip(each, weights, strict=True) if weight]
    expected = np.average(values, weights=weights[weights > 0])
    assert losses["net/loss"] == pytest.approx(expected, rel=1e-6)
    assert losses["net/perplexity"] == pytest.approx(float(perplexity(counts(batch))), rel=1e-5)
    assert "net/codes" not in losses


def test_a_mean_of_nothing_is_not_a_number():
    experiment = dataclasses.replace(EXPERIMENT, objective=Nothing(Bigram(), (LENGTH,), VALUES))
    run = on_one_device(experiment)
    found = held_out_losses(experiment, run.make_state(), run.mesh)
    assert np.isnan(found["net/none"])
    assert np.isfinite(found["net/loss"])


@dataclasses.dataclass(frozen=True)
class Nothing(Autoregressive):
    """Reports a mean over no elements."""

    def players(self):
        def loss(params, extra, batch, ctx):
            return self.loss(params, extra, batch, ctx)[0], Aux({"none": Mean(jnp.zeros(()), 0.0)})

        return {"net": Player(loss)}


def test_usage_of_equal_codes_is_one_code():
    assert float(code_statistics(usage(jnp.zeros((2, 3), jnp.int32), 4))["perplexity"]) == pytest.approx(1.0)
