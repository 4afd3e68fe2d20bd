"""Conditions: one-hot labels, hidden in training with the stated probability and never in evaluation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.conditioning.labels import Labels, condition_vector, training_vector
from genjax.core.errors import UserError
from genjax.core.objective import Conditioner, Context, num_classes
from genjax.networks import MLP, TokenTransformer
from genjax.objectives.autoregressive import Autoregressive
from genjax.objectives.diffusion.diffusion import Diffusion

BATCH = {"x": jnp.zeros((6, 2)), "label": jnp.asarray([0, 1, 2, 0, 1, 2])}
CTX = Context(jax.random.key(0), jnp.zeros((), jnp.int32))
EVALUATION = dataclasses.replace(CTX, train=False)


def test_labels_are_one_hot_and_nothing_is_zeros():
    labels = Labels(3)
    assert isinstance(labels, Conditioner)
    np.testing.assert_array_equal(condition_vector(labels, BATCH, 6), np.eye(3)[[0, 1, 2, 0, 1, 2]])
    np.testing.assert_array_equal(condition_vector(labels, None, 2), np.zeros((2, 3)))
    np.testing.assert_array_equal(condition_vector(labels, {"x": BATCH["x"]}, 6), np.zeros((6, 3)))
    assert condition_vector(None, BATCH, 6) is None
    assert training_vector(None, BATCH, CTX) is None


def test_training_hides_labels_at_the_stated_rate_and_evaluation_none():
    num = 4000
    batch = {"x": jnp.zeros((num, 1)), "label": jnp.ones(num, jnp.int32)}
    for rate in (0.0, 0.25, 1.0):
        hidden = 1.0 - jnp.sum(training_vector(Labels(2, rate), batch, CTX), axis=1)
        assert set(np.unique(hidden)) <= {0.0, 1.0}
        assert abs(float(jnp.mean(hidden)) - rate) < 4 * (rate * (1 - rate) / num) ** 0.5 + 1e-9
        shown = training_vector(Labels(2, rate), batch, EVALUATION)
        np.testing.assert_array_equal(shown, condition_vector(Labels(2, rate), batch, num))


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(UserError, match="the data have no labels"):
        Labels(3).check({"x": BATCH["x"]})
    with pytest.raises(UserError, match="classes=0 must be at least 1"):
        Labels(0)
    with pytest.raises(UserError, match=r"dropout=1\.5 .* must be in \[0, 1\]"):
        Labels(3, 1.5)


def _models(dropout):
    labels, net = Labels(3, dropout), MLP(width=8, depth=1, zero_out=False)
    tokens = TokenTransformer(width=8, depth=1, heads=2)
    return {
        "diffusion": (Diffusion(net, (2,), labels), BATCH),
        "autoregressive": (Autoregressive(tokens, (4,), 5, condition=labels), _tokens()),
    }


def _tokens():
    return {**BATCH, "x": jnp.asarray(np.random.default_rng(0).integers(0, 5, (6, 4)), jnp.int32)}


@pytest.mark.parametrize("name", ["diffusion", "autoregressive"])
def test_an_evaluation_loss_does_not_depend_on_label_dropout(name):
    """With the same parameters; a training loss does."""
    evaluation, training = [], []
    for dropout in (0.0, 1.0):
        model, batch = _models(dropout)[name]
        params, extra = model.init(jax.random.key(1), batch)
        noise = lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(2), leaf.shape)
        params = jax.tree.map(noise, params)  # layers that begin at zero hide the labels, too
        evaluation.append(float(model.loss(params, extra, batch, EVALUATION)[0]))
        training.append(float(model.loss(params, extra, batch, CTX)[0]))
    assert evaluation[0] == evaluation[1]
    assert training[0] != training[1]


def test_number_of_classes():
    net = MLP(width=4, depth=1)
    assert num_classes(Diffusion(net, (2,), Labels(7))) == 7
    assert num_classes(Diffusion(net, (2,))) == 0
