"""Optimizers against their papers in float64, schedules at known points, properties of clipping and decay."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.core.errors import UserError
from genjax.training.optimizers import SGD, Adam, AdamW, Constant, Cosine, Linear, Lion, Muon, WeightClip

STEPS = 7
SHAPES = {"dense": {"kernel": (3, 5), "bias": (5,)}, "conv": (2, 2, 3, 4), "scale": ()}
RNG = np.random.default_rng(0)
draw = lambda: jax.tree.map(
    lambda shape: RNG.normal(size=shape).astype(np.float32), SHAPES, is_leaf=lambda s: isinstance(s, tuple)
)
PARAMS, GRADS = draw(), [draw() for _ in range(STEPS)]


def trajectory(optimizer, params=PARAMS, grads=GRADS):
    """Parameters after each step, and the final optimizer state."""
    tx = optimizer.build(STEPS)
    state, path = tx.init(params), []
    update = jax.jit(tx.update)
    for g in grads:
        updates, state = update(g, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path, state


def adam(g, m, theta, k, b1, b2, eps, decay):
    m = m or (0.0, 0.0)
    m = b1 * m[0] + (1 - b1) * g, b2 * m[1] + (1 - b2) * g**2
    direction = m[0] / (1 - b1**k) / (np.sqrt(m[1] / (1 - b2**k)) + eps)
    return direction + decay * theta * (g.ndim >= 2), m


def lion(g, m, theta, k, b1, b2, decay):
    m = 0.0 if m is None else m
    return np.sign(b1 * m + (1 - b1) * g) + decay * theta * (g.ndim >= 2), b2 * m + (1 - b2) * g


def sgd(g, m, theta, k, momentum, nesterov):
    m = g if m is None else momentum * m + g
    return (g + momentum * m if nesterov else m), m


def newton_schulz(x):
    x = x / np.linalg.norm(x)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return x


def muon(g, m, theta, k, beta, decay):
    """Nesterov momentum with the bias correction of NAdam (Dozat 2016), then Newton-Schulz."""
    m = (0.0 if m is None else m) * beta + (1 - beta) * g
    ahead = beta * m / (1 - beta ** (k + 1)) + (1 - beta) * g / (1 - beta**k)
    matrix = ahead.reshape(-1, g.shape[-1])
    ratio = np.sqrt(max(1, matrix.shape[1] / matrix.shape[0]))
    return (newton_schulz(matrix) * ratio).reshape(g.shape) + decay * theta, m


ADAM = functools.partial(adam, b1=0.8, b2=0.95, eps=1e-3)
REFERENCES = {
    "adam": (Adam(0.1, 0.8, 0.95, 1e-3), functools.partial(ADAM, decay=0.0)),
    "adamw": (AdamW(0.1, 0.8, 0.95, 1e-3, weight_decay=0.3), functools.partial(ADAM, decay=0.3)),
    "lion": (Lion(0.1, 0.8, 0.95, weight_decay=0.3), functools.partial(lion, b1=0.8, b2=0.95, decay=0.3)),
    "sgd": (SGD(0.1), functools.partial(sgd, momentum=0.0, nesterov=False)),
    "heavy ball": (SGD(0.1, 0.7), functools.partial(sgd, momentum=0.7, nesterov=False)),
    "nesterov": (SGD(0.1, 0.7, nesterov=True), functools.partial(sgd, momentum=0.7, nesterov=True)),
}


def reference_trajectory(rule, theta, grads, rate):
    """The trajectory of one array in float64; `rate` is a function of the step k = 0, 1, ..."""
    theta, memory, path = np.asarray(theta, np.float64), None, []
    for k, g in enumerate(grads):
        direction, memory = rule(np.asarray(g, np.float64), memory, theta, k + 1)
        theta = theta - rate(k) * direction
        path.append(theta)
    return path


@pytest.mark.parametrize("name", REFERENCES)
def test_equals_the_reference(name):
    optimizer, rule = REFERENCES[name]
    path, _ = trajectory(optimizer)
    leaves = [jax.tree.leaves(p) for p in path]
    grads = [jax.tree.leaves(g) for g in GRADS]
    for i, theta in enumerate(jax.tree.leaves(PARAMS)):
        expected = reference_trajectory(rule, theta, [g[i] for g in grads], lambda k: 0.1)
        for k in range(STEPS):
            np.testing.assert_allclose(leaves[k][i], expected[k], rtol=1e-5, atol=2e-6)


def test_the_schedule_is_evaluated_at_the_current_step():
    linear = Linear(warmup=2, final=0.1)
    path, _ = trajectory(SGD(0.1, schedule=linear))
    rates = [0.1 / 3, 0.2 / 3] + [0.1 * (1 - 0.9 * (k - 2) / (STEPS - 2)) for k in range(2, STEPS)]
    rule = REFERENCES["sgd"][1]
    expected = reference_trajectory(rule, PARAMS["conv"], [g["conv"] for g in GRADS], lambda k: rates[k])
    np.testing.assert_allclose(path[-1]["conv"], expected[-1], rtol=1e-5, atol=1e-6)


def test_muon_equals_its_reference_on_matrices_and_adam_elsewhere():
    shapes = {
        "dense": (3, 5),
        "tall": (6, 2),
        "conv": (2, 2, 3, 4),
        "stack": (2, 3, 5),
        "embed": (4, 3),
        "bias": (5,),
    }
    params = {n: RNG.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    grads = [{n: RNG.normal(size=s).astype(np.float32) for n, s in shapes.items()} for _ in range(STEPS)]
    path, _ = trajectory(Muon(0.1, 0.9, weight_decay=0.2, adam_learning_rate=0.03), params, grads)
    matrix = functools.partial(muon, beta=0.9, decay=0.2)
    rest = functools.partial(adam, b1=0.9, b2=0.999, eps=1e-8, decay=0.0)
    for name, got in path[-1].items():
        rule, rate = (rest, 0.03) if name in ("embed", "bias") else (matrix, 0.1)
        parts = [(params[name], [g[name] for g in grads], got)]
        if name == "stack":  # layer by layer
            parts = [(params[name][i], [g[name][i] for g in grads], got[i]) for i in range(2)]
        for theta, gs, moved in parts:
            expected = reference_trajectory(rule, theta, gs, lambda k, rate=rate: rate)[-1]
            np.testing.assert_allclose(moved, expected, rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (Constant(), {0: 1.0, 50: 1.0, 200: 1.0}),
        (Constant(warmup=4), {0: 0.2, 1: 0.4, 4: 1.0, 100: 1.0}),
        (Cosine(), {0: 1.0, 50: 0.5, 100: 0.0, 150: 0.0}),
        (Cosine(warmup=20, final=0.1), {0: 1 / 21, 20: 1.0, 60: 0.55, 40: 0.55 + 0.45 * 0.5**0.5, 100: 0.1}),
        (Linear(warmup=20, final=0.2), {19: 20 / 21, 20: 1.0, 60: 0.6, 100: 0.2, 300: 0.2}),
        (Linear(final=0.0, hold=0.8), {0: 1.0, 80: 1.0, 90: 0.5, 100: 0.0}),
        (Cosine(warmup=1000), {0: 1 / 1001, 99: 100 / 1001}),  # a run that ends during warm-up
    ],
)
def test_schedule_values(schedule, points):
    eta = schedule.build(0.25, 100)
    for k, factor in points.items():
        np.testing.assert_allclose(eta(k), 0.25 * factor, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(jax.jit(eta)(jnp.int32(k)), 0.25 * factor, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("clip", [0.5, 3.0, 1e4])
def test_clip_bounds_the_norm_of_all_arrays_together(clip):
    tx = SGD(1.0, clip=clip).build(1)
    updates, _ = tx.update(GRADS[0], tx.init(PARAMS), PARAMS)
    flat = lambda tree: np.concatenate([np.ravel(a).astype(np.float64) for a in jax.tree.leaves(tree)])
    norm = np.linalg.norm(flat(GRADS[0]))
    np.testing.assert_allclose(flat(updates), -flat(GRADS[0]) * min(1, clip / norm), rtol=1e-5)


def test_zero_clip_is_off():
    huge = jax.tree.map(lambda g: g * 1e6, GRADS[0])
    tx = SGD(1.0, clip=0.0).build(1)
    jax.tree.map(
        np.testing.assert_array_equal,
        tx.update(huge, tx.init(PARAMS), PARAMS)[0],
        jax.tree.map(np.negative, huge),
    )


@pytest.mark.parametrize(
    "optimizer", [AdamW(0.1, weight_decay=0.5), Lion(0.1, weight_decay=0.5), Muon(0.1, weight_decay=0.5)]
)
def test_decay_shrinks_matrices_only(optimizer):
    still = jax.tree.map(np.zeros_like, PARAMS)
    path, _ = trajectory(optimizer, grads=[still])
    factor = jax.tree.map(lambda p: 0.95 if p.ndim >= 2 else 1.0, PARAMS)
    jax.tree.map(lambda got, p, f: np.testing.assert_allclose(got, f * p, rtol=1e-6), path[0], PARAMS, factor)


def test_vectors_stacked_over_layers_are_not_decayed():
    params = {
        "blocks": {
            "norm": {"scale": np.ones((3, 4))},
            "qkv": {"kernel": np.ones((3, 4, 4)), "bias": np.ones((3, 4))},
        }
    }
    tx = AdamW(1.0, weight_decay=0.5).build(3)
    moved = tx.update(jax.tree.map(np.zeros_like, params), tx.init(params), params)[0]["blocks"]
    assert np.all(moved["qkv"]["kernel"] == -0.5)
    assert not np.any(moved["norm"]["scale"])
    assert not np.any(moved["qkv"]["bias"])


EVERY = [Adam(0.1), AdamW(0.1), Lion(0.1), SGD(0.1, 0.5), Muon(0.1, adam_learning_rate=0.1)]


@pytest.mark.parametrize("optimizer", EVERY, ids=lambda o: type(o).__name__)
def test_half_precision_parameters_are_updated_in_float32(optimizer):
    half = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), tree)
    full = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree)
    tx = optimizer.build(STEPS)
    update = jax.jit(tx.update)
    params, state = half(PARAMS), tx.init(half(PARAMS))
    exact = tx.init(full(params))
    for g in GRADS:
        updates, state = update(half(g), state, params)
        expected, exact = update(full(half(g)), exact, full(params))
        close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
        jax.tree.map(close, updates, expected)
    floats = [a.dtype for a in jax.tree.leaves((state, updates)) if jnp.issubdtype(a.dtype, jnp.floating)]
    assert set(floats) == {jnp.dtype("float32")}
    assert jax.tree.map(lambda a: a.dtype, state) == jax.tree.map(lambda a: a.dtype, tx.init(params))


@pytest.mark.parametrize("optimizer", EVERY, ids=lambda o: type(o).__name__)
def test_does_not_recompile_and_is_pure(optimizer):
    tx = optimizer.build(STEPS)
    update = jax.jit(tx.update)
    _, state = update(GRADS[0], tx.init(PARAMS), PARAMS)
    first, _ = update(GRADS[1], state, PARAMS)
    again, _ = update(GRADS[1], state, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert update._cache_size() == 1


@pytest.mark.parametrize(
    "optimizer",
    [
        Adam(0.3, schedule=Cosine(warmup=10)),
        AdamW(0.3, weight_decay=0.0, schedule=Cosine()),
        Lion(0.1, weight_decay=0.0, schedule=Linear()),
        SGD(0.05, 0.9, schedule=Linear(hold=0.5)),
        Muon(0.3, adam_learning_rate=0.3, schedule=Linear()),
    ],
    ids=lambda o: type(o).__name__,
)
def test_finds_the_minimum_of_a_quadratic(optimizer):
    aim = {"w": jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32), "b": jnp.asarray([1.0, -2.0])}
    stiff = {"w": jnp.linspace(0.5, 2.0, 12).reshape(3, 4), "b": jnp.asarray([0.5, 3.0])}
    loss = lambda p: sum(jnp.sum(stiff[n] * (p[n] - aim[n]) ** 2) for n in aim)
    tx = optimizer.build(300)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    start = jax.tree.map(jnp.zeros_like, aim)
    (end, _), _ = jax.lax.scan(step, (start, tx.init(start)), length=300)
    assert loss(end) < 1e-3 * loss(start)


def test_state_names_the_links():
    _, state = trajectory(AdamW(clip=1.0), grads=GRADS[:1])
    assert set(state) == {"clip", "moments", "decay", "rate"}
    assert set(trajectory(SGD(), grads=GRADS[:1])[1]) == {"moments", "rate"}


@pytest.mark.parametrize(
    "build",
    [
        lambda: SGD(clip=-1.0).build(3),
        lambda: AdamW(weight_decay=-0.1).build(3),
        lambda: Adam(schedule=Cosine(warmup=-1)).build(3),
        lambda: Adam(schedule=Linear(hold=1.0)).build(3),
    ],
)
def test_invalid_hyperparameters_raise(build):
    with pytest.raises(UserError, match="got") as error:
        build()
    assert "\n" not in str(error.value)


def test_weight_clipping_projects_every_update_onto_the_box():
    """Each step is the inner optimizer's, then a projection onto the box, for matching paths only."""
    limit, inner = 0.4, SGD(learning_rate=0.1)
    path, _ = trajectory(WeightClip(inner, limit))
    before = PARAMS
    for params, g in zip(path, GRADS, strict=True):
        nearest = jax.tree.map(lambda p, g: np.clip(p - 0.1 * g, -limit, limit), before, g)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, nearest)
        before = params
    some, _ = trajectory(WeightClip(inner, limit, "dense/kernel"))
    free, _ = trajectory(inner)
    np.testing.assert_array_equal(some[-1]["conv"], free[-1]["conv"])
    np.testing.assert_array_equal(some[-1]["dense"]["kernel"], path[-1]["dense"]["kernel"])
    with pytest.raises(UserError, match="limit"):
        WeightClip(inner, 0.0).build(STEPS)
