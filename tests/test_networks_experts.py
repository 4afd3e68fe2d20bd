"""Mixtures of experts: equality with a loop over tokens, dropping, and the balance penalty."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from rows import make_run, start
from test_networks import KEY, filled, normal

from genjax.core.errors import UserError
from genjax.core.objective import Context, Penalised
from genjax.core.sharding_rules import Rule
from genjax.networks import TokenTransformer
from genjax.networks.transformers.experts import Experts, Mixture, Perceptron, penalised
from genjax.objectives.autoregressive import Autoregressive
from genjax.training.optimizers import Muon

pytestmark = pytest.mark.xdist_group("networks_experts")

X = normal(0, 2, 6, 4)
AMPLE = 100.0


def parts(mixture, mlp="gelu"):
    """The module, its parameters, and the output of each expert for each token of X, [e, b, n, c]."""
    module = Experts(hidden=5, mlp=mlp, mixture=mixture)
    params = filled(module, X)
    lone = Perceptron(hidden=5, mlp=mlp)
    each = jax.jit(lambda own: jax.lax.map(lambda one: lone.apply({"params": one}, X), own))
    return module, params, np.asarray(each(params["params"]["each"]))


@pytest.mark.parametrize(
    ("active", "capacity", "mlp"),
    [(2, AMPLE, "gelu"), (1, 0.5, "swiglu"), pytest.param(2, 0.7, "gelu", marks=pytest.mark.slow)],
)
def test_a_mixture_is_the_loop_over_its_tokens(active, capacity, mlp):
    """Tokens are assigned to their experts one by one, the earliest first; a full expert adds nothing."""
    mixture = Mixture(3, active, capacity)
    module, params, made = parts(mixture, mlp)
    logits = np.float64(X) @ np.float64(params["params"]["router"]["kernel"])
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for train, slots in ((True, min(6, int(np.ceil(capacity * active * 6 / 3)))), (False, 6)):
        expected, dropped = np.zeros(X.shape), 0
        for row in range(2):
            taken = np.zeros(3, int)
            for place in range(6):
                chosen = np.argsort(-logits[row, place])[:active]
                gates = p[row, place, chosen] / (p[row, place, chosen].sum() if active > 1 else 1.0)
                for number, gate in zip(chosen, gates, strict=True):
                    if taken[number] < slots:
                        expected[row, place] += gate * made[number, row, place]
                    dropped += taken[number] >= slots
                    taken[number] += 1
        y, _, said = jax.jit(lambda train=train: penalised(module, params, X, train=train))()
        np.testing.assert_allclose(y, expected, atol=2e-5)
        assert float(said["dropped"]) == pytest.approx(dropped / (12 * active))
        assert (dropped > 0) == (train and capacity != AMPLE)


def test_one_expert_is_the_dense_perceptron():
    """With the same parameters, to the rounding of a product."""
    module, params, made = parts(Mixture(1, 1))
    np.testing.assert_allclose(jax.jit(lambda: module.apply(params, X, train=True))(), made[0], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
def test_a_network_of_one_expert_is_the_dense_network(mlp):
    """With the same parameters: values and gradients."""
    options = {"width": 8, "depth": 2, "heads": 2, "causal": True, "mlp": mlp, "mlp_ratio": 2.0}
    dense, x = TokenTransformer(**options), jnp.asarray([[0, 2, 1, 1]])
    mixed, params = TokenTransformer(**options, experts=Mixture(1, 1)), filled(dense, x, out=3)

    def wrap(params):
        rest = dict(params["params"]["blocks"])
        stacked = {name: jax.tree.map(lambda a: a[:, None], rest.pop(name)) for name in ("mlp_in", "mlp_out")}
        experts = {"each": stacked, "router": {"kernel": jnp.ones((2, 8, 1))}}
        return {"params": {**params["params"], "blocks": {**rest, "experts": experts}}}

    def run(net, change):
        loss = lambda params: jnp.sin(net.apply(change(params), x, out=3, train=True)).sum()
        return jax.jit(jax.value_and_grad(loss))(params)

    (one, own), (other, theirs) = run(dense, lambda params: params), run(mixed, wrap)
    np.testing.assert_allclose(one, other, rtol=1e-6)
    for a, e in zip(jax.tree.leaves(theirs), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(a, e, atol=2e-5)


@pytest.mark.parametrize("active", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_balance_penalty_is_alpha_if_uniform_and_largest_if_one_has_all(active):
    mixture = Mixture(4, active, AMPLE, balance=0.3, router_z=0.01)
    module = Experts(hidden=2, mixture=mixture)
    x = jnp.tile(jnp.eye(4)[None], (2, 2, 1))  # each of four directions twice
    cycle = jnp.eye(4) + jnp.roll(jnp.eye(4), 1, 1) * (active - 1) * 0.999
    one = jnp.zeros((4, 4)).at[:, 0].set(1.0).at[:, 1].set(0.5)
    ask = jax.jit(lambda params: penalised(module, params, x))
    for router, expected in ((cycle, 1.0), (one, 4.0 / active)):
        params = jax.tree.map(lambda a: a, filled(module, x))
        params["params"]["router"]["kernel"] = 60.0 * router
        _, penalty, said = ask(params)
        z = float(jnp.mean(jax.nn.logsumexp(60.0 * router, axis=1) ** 2))
        assert float(said["balance"]) == pytest.approx(expected, abs=1e-3)
        assert float(said["load"]) == pytest.approx(4.0 / active if expected > 1 else 1.0)
        assert float(said["router_z"]) == pytest.approx(z, rel=1e-5)
        assert float(penalty) == pytest.approx(0.3 * expected + 0.01 * z, rel=1e-3)
    uniform = {"params": {**params["params"], "router": {"kernel": jnp.zeros((4, 4))}}}
    assert float(ask(uniform)[2]["balance"]) == pytest.approx(1.0)


def test_a_dropped_token_keeps_only_the_residual():
    """All choose the first expert, which has one slot: it changes only the first place of each sequence."""
    module = Experts(hidden=5, mixture=Mixture(4, 1, 0.5))
    params = filled(module, X)
    params["params"]["router"]["kernel"] = jnp.zeros((4, 4)).at[:, 0].set(1e3)
    y = np.asarray(jax.jit(lambda x: module.apply(params, x, train=True))(jnp.abs(X)))
    assert Mixture(4, 1, 0.5).slots(6) == 1
    assert np.all(np.abs(y[:, 0]).max(-1) > 1e-3)
    assert not y[:, 1:].any()


@pytest.mark.slow
def test_dropping_keeps_logits_causal_and_sequences_independent():
    """Capacity for half: gradients of logits i at places j > i, and in other sequences, are exact zeros."""
    net = TokenTransformer(width=8, depth=2, heads=2, causal=True, experts=Mixture(4, 2, 0.5))
    weights = normal(3, 2, 8, 4)
    params = filled(net, weights, out=3)

    def logits(x):
        out, _, said = net.penalised(params, x, out=3, train=True)
        return jnp.sin(out).sum(-1), said

    jacobian, said = jax.jit(jax.jacrev(logits, has_aux=True))(weights)
    assert 0.2 < float(said["dropped"]) < 0.8
    size = np.abs(jacobian).max(-1)  # [b, i, b, j]
    for row in range(2):
        assert not size[row, :, 1 - row].any()
        assert not size[row, :, row][np.triu_indices(8, 1)].any()
        assert np.all(size[row, :, row][np.tril_indices(8)] > 0)
    # dropping has no gradient: later places that all choose one expert change no earlier logit
    moved = weights.at[:, 5:].set(weights[:, :1] * 9.0)
    before, after = (np.asarray(jax.jit(logits)(x)[0]) for x in (weights, moved))
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert np.abs(before - after)[:, 5:].max() > 1e-3


@pytest.mark.slow
def test_training_adds_the_penalty_and_evaluation_only_reports_it():
    net = TokenTransformer(width=8, depth=2, heads=2, causal=True, experts=Mixture(3, 1, 1.0, 0.5, 0.1))
    objective = Autoregressive(net, (4,), 3)
    batch = {"x": jnp.asarray([[0, 1, 2, 1], [2, 2, 0, 1]])}
    params = objective.init(KEY, batch)[0]
    assert isinstance(net, Penalised)
    loss = lambda train: objective.loss(params, {}, batch, Context(KEY, jnp.int32(0), train))
    (trained, aux), (held_out, said) = jax.jit(lambda: (loss(True), loss(False)))()
    costs = 2 * (0.5 * aux.metrics["balance"] + 0.1 * aux.metrics["router_z"])  # both layers
    assert float(trained - aux.metrics["nats"]) == pytest.approx(float(costs), rel=1e-5)
    assert float(held_out) == float(said.metrics["nats"])
    assert float(said.metrics["dropped"]) == 0 < float(aux.metrics["dropped"])
    assert {"balance", "dropped", "load", "router_z", "nats"} == aux.metrics.keys() == said.metrics.keys()


@pytest.mark.slow
def test_muon_takes_each_expert_as_a_matrix_of_its_own():
    gradient = normal(1, 2, 3, 4, 4)
    tx = Muon(1.0, beta=0.0).build(1)
    whole = {"experts": {"kernel": gradient}}
    moved = tx.update(whole, tx.init(whole), whole)[0]["experts"]["kernel"]
    lone = {"kernel": gradient[1, 2]}
    own = tx.update(lone, tx.init(lone), lone)[0]["kernel"]
    np.testing.assert_allclose(moved[1, 2], own, atol=1e-5)


@pytest.mark.parametrize("options", [{"active": 0}, {"experts": 2, "active": 3}, {"capacity": -1.0}])
def test_invalid_mixtures_raise(options):
    with pytest.raises(UserError, match=next(reversed(options))):
        Mixture(**options)


@pytest.mark.slow
def test_a_batch_over_devices_is_never_gathered():
    """The gradient of a network of experts, the batch over eight devices, as of any other network."""
    net, x = TokenTransformer(width=8, depth=1, heads=2, causal=True, experts=Mixture(4)), normal(0, 8, 5, 4)
    params = filled(net, x, out=3)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    over, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())

    def gradient(params, x):
        def loss(params):
            out, penalty, _ = net.penalised(params, x, out=3, train=True)
            return jnp.sin(out).mean() + penalty

        return jax.grad(loss)(params)

    compiled = jax.jit(gradient, in_shardings=(everywhere, over), out_shardings=everywhere)
    text = compiled.lower(params, x).compile().as_text()
    assert "all-reduce" in text
    for word in ("all-gather", "all-to-all", "collective-permute"):
        assert word not in text


@pytest.mark.slow
def test_experts_on_separate_devices_take_the_same_steps():
    """Four experts over four devices, the batch over two: as on one device."""
    rule = Rule("experts/each/.*kernel", ("tensor", None, None))
    runs = make_run("experts-digits", "one"), make_run("experts-digits", "data:2,tensor:4", rules=(rule,))
    begun, losses, states = jax.device_get(start(runs[0])), [], []
    for run in runs:
        state = jax.tree.map(jax.device_put, begun, run.shardings)
        for number in range(2):
            state, metrics = run.compiled(state, run.batch(number, 1), False)
        losses.append(float(metrics["net/loss"]))
        states.append(state)
    kernel = states[1].params["net"]["params"]["blocks"]["experts"]["each"]["mlp_in"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (2, 1, *kernel.shape[2:])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for ours, theirs in zip(*map(jax.tree.leaves, (states[1].params, states[0].params)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4)
