"""Autoregressive models are distributions: sums to one, causality, and samples that follow the probabilities."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_networks import filled

from genjax.conditioning.labels import Labels
from genjax.core.errors import UserError
from genjax.core.objective import Context
from genjax.networks import PixelCNN, PixelCNNPP, PixelRNN, Recurrent, TokenTransformer, WaveNet
from genjax.networks.transformers.experts import Mixture
from genjax.objectives.autoregressive import Autoregressive
from genjax.samplers.decoding import Decoding
from genjax.samplers.decoding.generate import start

NETS = {
    "learned": TokenTransformer(width=8, depth=2, heads=2, causal=True, position="learned"),
    "llama": TokenTransformer(
        width=8,
        depth=2,
        heads=2,
        groups=1,
        causal=True,
        position="rotary",
        norm="rms",
        mlp="swiglu",
        bias=False,
    ),
    "tied, window": TokenTransformer(width=8, depth=2, heads=2, causal=True, window=2, tied=True),
    "experts": TokenTransformer(width=8, depth=2, heads=2, causal=True, mlp_ratio=1.0, experts=Mixture(3, 2)),
    "lstm": Recurrent(width=6, depth=2),
    "gru": Recurrent(width=6, depth=1, cell="gru"),
    "wavenet": WaveNet(width=6, gate=6, skip=6, kernel=3, layers=2, cycles=2),
    "pixelcnn": PixelCNN(width=6, depth=3, hidden=6, levels=3),
    "pixelcnn++": PixelCNNPP(width=4, blocks=1, scales=2, levels=3),
    "pixelrnn": PixelRNN(width=4, depth=2, reach=2, hidden=6, levels=3),
}
IMAGES = {"pixelcnn", "pixelcnn++", "pixelrnn"}
OTHERS = {
    "llama",
    "gru",
    "learned",
    "pixelrnn",
    "experts",
}  # similar to another one in what is tested: `-m slow`
LATER = OTHERS | {"pixelcnn++"}  # or in test_pixels.py
EACH = [pytest.param(name, marks=pytest.mark.slow) if name in LATER else name for name in NETS]
VALUES = 3
KEY = jax.random.key(0)


def model(net, shape=(4,), **options):
    """An objective, and parameters without zeros."""
    objective = Autoregressive(NETS[net], shape, VALUES, **options)
    x = jnp.zeros((1, *shape), jnp.int32)
    batch = {"x": x} | ({"label": jnp.zeros(1, jnp.int32)} if objective.condition else {})
    params = {
        "net": filled(NETS[net], objective._shifted(x), None, conditions(objective), out=objective._out)
    }
    assert jax.tree.structure(params) == jax.tree.structure(jax.eval_shape(objective.init, KEY, batch)[0])
    return objective, params


def logits_of(objective, params, x):
    """[b, places, values] of categorical elements."""
    return objective.outputs(params, x)[:, :, 0]


def conditions(objective):
    return jnp.eye(objective.condition.classes)[:1] if objective.condition else None


def all_sequences(shape, given=None):
    """All sequences of `VALUES` symbols, or those with the given first element."""
    rows = np.array(list(itertools.product(range(VALUES), repeat=int(np.prod(shape)))))
    return jnp.asarray(rows[rows[:, 0] == given] if given is not None else rows).reshape(-1, *shape)


SHAPES = [((4,), True), ((4,), False), ((2, 1, 2), True), ((2, 2, 1), True)]


@pytest.mark.parametrize(
    ("net", "shape", "start"),
    [
        pytest.param(net, *case, marks=[pytest.mark.slow] * (net in OTHERS))
        for net in NETS
        for case in SHAPES
        if (net in IMAGES) == (case == SHAPES[-1]) or net == "learned"
    ],
)
def test_probabilities_of_all_sequences_sum_to_one(net, shape, start):
    objective, params = model(net, shape, start=start)
    x = all_sequences(shape, None if start else 1)
    log_p = jax.jit(lambda x: objective.log_prob(params, {}, {"x": x}, KEY))(x)
    assert abs(float(jnp.exp(log_p).sum()) - 1) < 1e-5
    assert float(jnp.ptp(log_p)) > 0.1


TRANSFORMERS = ["learned", "llama", "tied, window", pytest.param("experts", marks=pytest.mark.slow)]


@pytest.mark.parametrize("net", TRANSFORMERS)
def test_logits_depend_on_earlier_elements_only(net):
    """Exact zeros: the gradient of logits i in the inputs' embeddings at places j > i."""
    _, params = model(net)
    one_hot = jax.nn.one_hot(jnp.asarray([[3, 1, 0, 2]]), VALUES + 1)
    apply = lambda x: NETS[net].apply(params["net"], x, out=VALUES)[0]
    size = np.abs(jax.jit(jax.jacrev(lambda x: jnp.sin(apply(x)).sum(-1)))(one_hot)[:, 0]).max(-1)
    np.testing.assert_array_equal(size[np.triu_indices(4, 1)], 0.0)
    reach = NETS[net].depth * (NETS[net].window - 1) if NETS[net].window else 4
    assert np.all((size > 1e-7) == (np.tri(4) * (1 - np.tri(4, k=-reach - 1))).astype(bool))


@pytest.mark.parametrize("shape", [(9,), (3, 3, 1)])
@pytest.mark.parametrize("net", EACH)
def test_logits_change_with_each_earlier_element_in_reach_and_with_no_later_one(net, shape):
    """Every element of one sequence is changed, one at a time: bit for bit the same logits up to it.

    One sequence at a time, since the rows of a batch may be rounded differently.
    """
    if net in IMAGES and len(shape) == 1:
        shape = (1, 9, 1)
    objective, params = model(net, shape)
    x = jnp.asarray(np.random.default_rng(0).integers(0, VALUES, 9))
    changed = jnp.stack([x, *(x.at[i].set((x[i] + 1) % VALUES) for i in range(9))])
    one = lambda x: logits_of(objective, params, x[None])[0]
    logits = np.asarray(jax.jit(lambda x: jax.lax.map(one, x))(changed.reshape(10, *shape)))
    moved = np.abs(logits[1:] - logits[:1]).max(-1)  # [changed, place]
    assert not moved[np.tril_indices(9)].any()
    distance = np.arange(9)[None] - np.arange(9)[:, None]
    reaches = {
        "tied, window": 3,
        "wavenet": NETS["wavenet"].receptive_field,
        "pixelcnn": 3 * 2 + 1,
        "pixelrnn": 4,
    }
    reach = 9 if len(shape) == 3 and shape[0] > 1 and net in IMAGES else reaches.get(net, 9)
    assert np.all(moved[(distance > 0) & (distance <= reach)] > 1e-7), "a blind spot"
    assert not moved[distance > reach].any()


@pytest.mark.parametrize("cached", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "net",
    ["tied, window", *(pytest.param(net, marks=pytest.mark.slow) for net in ("learned", "lstm", "wavenet"))],
)
def test_samples_follow_the_probabilities(net, cached):
    """All 27 sequences of three symbols, 4,000 draws, by a chi-square test; and their reported log-probability."""
    objective, params = model(net, (3,), cached=cached)
    x = all_sequences((3,))
    expected = 4000 * np.exp(np.asarray(objective.log_prob(params, {}, {"x": x}, KEY)))
    done = jax.jit(lambda key: objective.generate(params, key, 4000))(jax.random.key(5))
    code = np.asarray(done.tokens) @ np.array([9, 3, 1])
    found = np.bincount(code, minlength=27)
    # mean 26 and standard deviation 7.2 under the null hypothesis
    assert ((found - expected) ** 2 / expected).sum() < 26 + 4 * 7.2
    reported = np.asarray(done.log_prob.sum(1))
    np.testing.assert_allclose(reported, np.log(expected / 4000)[code], atol=1e-5)
    np.testing.assert_allclose(done.chosen_log_prob, done.log_prob, atol=1e-6)


@pytest.mark.parametrize(
    "net",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("tied, window", "pixelcnn")))
        for name in NETS
    ],
)
def test_incremental_decoding_draws_the_same_samples_as_recomputation(net):
    """With labels, guidance, images, prompts of three lengths: sample for sample."""
    options = {"condition": Labels(2), "guidance": 4.0, "decoding": Decoding(temperature=0.7, top_k=2)}
    objective, params = model(net, (3, 2, 1), **options)
    cond = {
        "label": jnp.asarray([0, 1, 1, 0]),
        "prompt": jnp.asarray([[1, 2, 0], [0, 0, 0], [2, 2, 2], [1, 0, 1]]),
        "count": jnp.asarray([3, 0, 1, 2]),
    }
    draw = lambda objective: jax.jit(lambda key: objective.sample(params, {}, key, 4, cond))(KEY)
    incremental = draw(objective)
    np.testing.assert_array_equal(incremental, draw(model(net, (3, 2, 1), cached=False, **options)[0]))
    assert incremental.reshape(4, 6)[0, :3].tolist() == [1, 2, 0]


@pytest.mark.slow
def test_guidance_is_its_equation():
    """Scale 1 is the conditional model, 0 the unconditional one, and 3 extrapolates."""
    objective, params = model("llama", condition=Labels(2))
    cond = {"label": jnp.ones(5, jnp.int32)}

    def first(scale, given):
        guided = dataclasses.replace(objective, guidance=scale)
        tokens, count = jnp.asarray([[0], [1], [2], [0], [1]]), jnp.ones(5, jnp.int32)
        state = start(guided.model(params, 5, given), tokens, count, 4)
        return jax.nn.log_softmax(state.logits)

    scales = jax.jit(lambda: [first(1.0, cond), first(0.0, cond), first(3.0, cond), first(1.0, None)])()
    conditional, none, far, unconditional = map(np.asarray, scales)
    np.testing.assert_allclose(none, unconditional, atol=1e-6)
    beyond = unconditional + 3 * (conditional - unconditional)
    np.testing.assert_allclose(far, np.asarray(jax.nn.log_softmax(jnp.asarray(beyond))), atol=1e-5)
    assert np.abs(conditional - unconditional).max() > 0.1


def test_the_loss_is_the_mean_of_the_elements_that_count():
    """By hand from log_prob; with a mask, with smoothing and the z-loss against their definitions."""
    objective, params = model("llama", smoothing=0.2, z_loss=0.01)
    x = jnp.asarray([[0, 1, 2, 1], [2, 2, 0, 1]])
    mask = jnp.asarray([[1, 1, 0, 1], [1, 0, 0, 0]])
    log_p = np.asarray(jax.nn.log_softmax(logits_of(objective, params, x)), np.float64)
    target = 0.8 * np.eye(3)[np.asarray(x)] + 0.2 / 3
    z = np.asarray(jax.nn.logsumexp(logits_of(objective, params, x), axis=-1), np.float64) ** 2
    weight = np.asarray(mask) / 4
    batch = {"x": x, "mask": mask}
    rows = [jax.tree.map(lambda rows, i=i: rows[i : i + 1], batch) for i in range(2)]

    @jax.jit
    def losses():
        train, held_out = (Context(KEY, jnp.int32(0), train) for train in (True, False))
        trained = [objective.loss(params, {}, part, train) for part in (batch, *rows)]
        exact = -objective.log_prob(params, {}, {"x": x}, KEY).mean() / 4
        return trained, objective.loss(params, {}, {"x": x}, held_out), exact

    ((loss, _), *parts), (held_out, aux), exact = losses()
    assert abs(float(loss) - (weight * (-(target * log_p).sum(-1) + 0.01 * z)).sum()) < 1e-5
    counts = [float(aux.weight) for _, aux in parts]  # by which micro-batches are combined
    assert counts == [3.0, 1.0]
    assert abs(float(loss) - np.average([float(part) for part, _ in parts], weights=counts)) < 1e-6
    assert abs(float(held_out - exact)) < 1e-6
    assert float(aux.metrics["nats"]) == float(held_out)


@pytest.mark.slow
def test_samples_end_at_a_stop_element():
    objective, params = model("llama", (8,), stop=(2,))
    done = jax.jit(lambda key: objective.generate(params, key, 50))(jax.random.key(3))
    for row, length in zip(np.asarray(done.tokens), np.asarray(done.length), strict=True):
        stops = np.flatnonzero(row[:length] == 2)
        assert stops.tolist() == ([length - 1] if length < 8 else stops[stops == 7].tolist())
    sample = np.asarray(objective.sample(params, {}, jax.random.key(3), 50))
    assert not sample[np.arange(8)[None] >= np.asarray(done.length)[:, None]].any()
    assert len(set(np.asarray(done.length).tolist())) > 2


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("integer data", lambda: Autoregressive(NETS["llama"], (2,), 3).init(KEY, {"x": jnp.zeros((1, 2))})),
        ("sequences only", lambda: Autoregressive(NETS["llama"], (2, 2, 1), 3, start=False)),
        ("out of its range", lambda: Decoding(top_p=0.0)),
        ("causal=True", lambda: TokenTransformer().incremental({}, (3,), out=3)),
    ],
)
def test_invalid_settings_raise(words, call):
    with pytest.raises(UserError, match=words):
        call()
