"""The objective's estimates against enumeration with its network, and its layout of tokens."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles_tokens import enumerated, sequences

from genjax.core.errors import UserError
from genjax.core.objective import Context
from genjax.diffusion.discrete import Absorbing, UniformNoise, log_at
from genjax.diffusion.token_bounds import ContinuousTime, DiscreteTime
from genjax.networks import MLP
from genjax.objectives.diffusion.token_diffusion import TokenDiffusion

NET = MLP(width=16, depth=1)
COPIES = 400


@dataclass(frozen=True)
class CrossEntropy:
    """-log p(x_0 | x_t) of all tokens, with the interface of a bound."""

    steps: int

    def nats(self, process, x0, x, t, log_p):
        """[b]."""
        return -jnp.sum(log_at(log_p, x0), axis=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process", "bound", "nodes"),
    [
        (Absorbing(3), ContinuousTime(), 40),
        pytest.param(UniformNoise(3), DiscreteTime(4), 0, marks=pytest.mark.slow),
    ],
    ids=["mdlm", "d3pm"],
)
def test_loss_and_log_prob_are_unbiased(process, bound, nodes):
    """Means of many draws at every sequence, within five standard errors of the enumerated bound."""
    clean = sequences(3, 2)
    objective = TokenDiffusion(NET, (2,), process, bound, hybrid=0.3, draws=8)
    batch = {"x": jnp.asarray(np.repeat(clean, COPIES, axis=0))}
    params, extra = objective.init(jax.random.key(0), batch)
    params = jax.tree.map(lambda leaf: 1.5 * leaf, params)
    noisy, denoise = jnp.asarray(sequences(process.symbols, 2)), jax.jit(objective.denoise(params))
    log_p = lambda t: np.asarray(denoise(noisy, jnp.asarray(t, jnp.float32)))
    exact = enumerated(bound, process, log_p, clean, nodes)
    cross = enumerated(CrossEntropy(4), process, log_p, clean, nodes)
    assert np.exp(-exact).sum() < 1.0

    values = np.asarray(jax.jit(objective.log_prob)(params, extra, batch, jax.random.key(1)))
    values = values.reshape(len(clean), COPIES)
    error = values.std(axis=1, ddof=1) / np.sqrt(COPIES)
    assert (error < 0.1 * exact).all()
    assert (np.abs(values.mean(axis=1) + exact) < 5 * error).all()

    shuffled = {"x": batch["x"][jax.random.permutation(jax.random.key(2), len(batch["x"]))]}
    loss = jax.jit(lambda key: objective.loss(params, extra, shuffled, Context(key, jnp.asarray(0))))
    losses, auxes = zip(*(loss(jax.random.key(i)) for i in range(8)), strict=True)
    wanted = {"bound": exact.mean(), "cross_entropy": cross.mean()}
    for name, value in wanted.items():
        drawn = np.array([aux.metrics[name] for aux in auxes])
        assert abs(drawn.mean() - value) < 0.02 * value
    for total, aux in zip(losses, auxes, strict=True):
        np.testing.assert_allclose(
            total, aux.metrics["bound"] + 0.3 * aux.metrics["cross_entropy"], rtol=1e-5
        )


@dataclass(frozen=True)
class Copy:
    """A network that returns 3 times its input, and records its inputs."""

    def init(self, key, x, t, cond, *, out):
        """No parameters."""
        return {}

    def apply(self, params, x, t, cond, *, out, train=False, rngs=None):
        """[b, *out]."""
        assert x.shape[1:] == out
        return 3.0 * x


@pytest.mark.parametrize("shape", [(5,), (2, 3, 2)])
def test_logits_match_their_position_and_channel(shape):
    process = UniformNoise(4)
    objective = TokenDiffusion(Copy(), shape, process, DiscreteTime(3))
    x = jax.random.randint(jax.random.key(0), (7, *shape), 0, 4)
    log_p = objective.denoise({"net": {}})(x, jnp.asarray(0.5))
    assert log_p.shape == (7, *shape, 4)
    np.testing.assert_array_equal(log_p.argmax(-1), x)
    np.testing.assert_allclose(jnp.exp(log_p).sum(-1), 1.0, rtol=1e-5)


@dataclass(frozen=True)
class Clock(DiscreteTime):
    """A bound whose terms are the times."""

    def nats(self, process, x0, x, t, log_p):
        """[b]."""
        return t


def test_each_discrete_time_is_drawn_once():
    """In `log_prob` for every example, and in the loss over a batch: the mean of 1/T ... 1 is (T + 1) / 2T."""
    objective = TokenDiffusion(Copy(), (2,), UniformNoise(4), Clock(8), draws=8)
    batch, ctx = {"x": jnp.zeros((8, 2), jnp.int32)}, Context(jax.random.key(0), jnp.asarray(0))
    np.testing.assert_allclose(
        objective.log_prob({"net": {}}, {}, batch, jax.random.key(0)), -9 / 16, rtol=1e-6
    )
    np.testing.assert_allclose(objective.loss({"net": {}}, {}, batch, ctx)[0], 9 / 16, rtol=1e-6)


def test_log_prob_kind_and_invalid_settings():
    objective = TokenDiffusion(NET, (2,), Absorbing(3))
    assert objective.log_prob_kind == "lower bound (ELBO, continuous time, 16 times)"
    assert TokenDiffusion(NET, (2,), Absorbing(3), draws=0).log_prob_kind == ""
    with pytest.raises(UserError, match="integer data"):
        objective.init(jax.random.key(0), {"x": jnp.zeros((4, 2))})
    with pytest.raises(UserError, match=r"objective\.shape=3"):
        objective.init(jax.random.key(0), {"x": jnp.zeros((4, 3), jnp.int32)})
