"""No key is used twice: the random draws of every loss, read from its traced program without running it."""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rows import ROWS

from genjax.core.objective import Context, HasLogProb, Samples
from genjax.core.types import named

INLINE = (
    "pjit",
    "jit",
    "closed_call",
    "core_call",
    "remat2",
    "checkpoint",
    "custom_jvp_call",
    "custom_vjp_call",
)


# Losses that compute the same draws again on purpose: terms of the bound for another part of the schedule; the
# discriminator, as augmented, for its penalty; images of the same noise for the gradient of the path length.
REPEATED = {("vdm-points", "schedule"), ("gan-digits", "discriminator"), ("stylegan-digits", "generator")}
LATER = (
    "lora-points",
    "lora-gan-points",
    "vae-vamp-points",
    "vqgan-points",
)  # they wrap what other rows have
NOW = [name for name in ROWS if name.endswith("points") or name.startswith("tokens")]
EACH = [
    name if name in NOW and name not in LATER else pytest.param(name, marks=pytest.mark.slow) for name in ROWS
]


class Draws:
    """Numbers every value of a program by how it is computed, and counts the draws from each key.

    Equal numbers mean equal values. Values that change with the iterations of a loop are told apart, so that a key
    that stays the same in a loop is reused, too.
    """

    def __init__(self):
        self.numbers, self.fresh = {}, itertools.count()
        self.changing: set[int] = set()
        self.counts = collections.Counter()
        self.reused: list[str] = []

    def number(self, how, parts=()) -> int:
        found = self.numbers.setdefault(how, len(self.numbers))
        if any(part in self.changing for part in parts):
            self.changing.add(found)
        return found

    def new(self, changing=False) -> int:
        found = self.number(("new", next(self.fresh)))
        if changing:
            self.changing.add(found)
        return found

    def constant(self, value) -> int:
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        array = np.asarray(value)
        return self.number(("constant", array.tobytes(), array.shape, str(array.dtype)))

    def read(self, closed, inputs, loop=False) -> list[int]:
        """The numbers of a program's results, given those of its inputs."""
        jaxpr = closed.jaxpr if hasattr(closed, "jaxpr") else closed
        seen = dict(zip(jaxpr.invars, inputs, strict=True))
        seen |= {
            v: self.constant(c) for v, c in zip(jaxpr.constvars, getattr(closed, "consts", ()), strict=True)
        }
        get = lambda v: self.constant(v.val) if hasattr(v, "val") else seen[v]
        for eqn in jaxpr.eqns:
            given = [get(v) for v in eqn.invars]
            seen |= dict(zip(eqn.outvars, self.results(eqn, given, loop), strict=True))
        return [get(v) for v in jaxpr.outvars]

    def results(self, eqn, given, loop) -> list[int]:
        name, params = eqn.primitive.name, eqn.params
        if name == "random_bits":
            self.counts[given[0]] += 1
            if self.counts[given[0]] > 1 or (loop and given[0] not in self.changing):
                self.reused.append(str(eqn))
        if name == "scan":
            held = params["num_consts"]
            each = [*given[:held], *(self.new(True) for _ in given[held:])]
            self.read(params["jaxpr"], each, True)
            return [self.new() for _ in eqn.outvars]
        if name == "while":
            held = params["cond_nconsts"]
            body = given[held : held + params["body_nconsts"]]
            rest = given[held + params["body_nconsts"] :]
            self.read(params["body_jaxpr"], [*body, *(self.new(True) for _ in rest)], True)
            return [self.new() for _ in eqn.outvars]
        if name == "cond":
            before, most = self.counts.copy(), self.counts.copy()
            for branch in params["branches"]:
                self.counts = before.copy()
                self.read(branch, given[1:], loop)
                most |= self.counts
            self.counts = most
            return [self.new() for _ in eqn.outvars]
        inner = next((params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in params), None)
        if name in INLINE and inner is not None:
            return self.read(inner, given, loop)
        how = (name, str(params), tuple(given))
        return [self.number((*how, index), given) for index in range(len(eqn.outvars))]


def reused(function, *arguments) -> list[str]:
    """The draws from keys that were drawn from before, as they stand in the program."""
    closed = jax.make_jaxpr(function)(*arguments)
    draws = Draws()
    draws.read(closed, [draws.new() for _ in closed.jaxpr.invars])
    return draws.reused


def test_reuse_is_found():
    key, normal = jax.random.key(0), jax.random.normal
    twice = lambda key: normal(named(key, "a")) + jax.random.uniform(named(key, "a"))
    apart = lambda key: normal(named(key, "a")) + normal(named(key, "b"))
    fold = jax.random.fold_in
    scan = lambda step: lambda key: jax.lax.scan(lambda x, i: (x + step(key, i), None), 0.0, jnp.arange(3))
    assert reused(twice, key)
    assert not reused(apart, key)
    assert reused(scan(lambda key, i: normal(key)), key)
    assert not reused(scan(lambda key, i: normal(fold(key, i))), key)
    branches = lambda key: jax.lax.cond(jnp.sum(jax.random.key_data(key)) > 0, normal, normal, key)
    assert not reused(branches, key)


@pytest.mark.parametrize("name", EACH)
def test_each_draw_of_a_loss_and_of_a_sample_has_its_own_key(name):
    objective, data = ROWS[name].objective, ROWS[name].data
    rows = {k: jnp.asarray(v) for k, v in data.load("train")[np.arange(4)].items()}
    batch = data.forward(rows, jax.random.key(0), True)
    params, extra = jax.eval_shape(objective.init, jax.random.key(0), batch)
    for player, one in objective.players().items():
        loss = lambda params, extra, key, step, one=one: one.loss(params, extra, batch, Context(key, step))
        found = reused(loss, params, extra, jax.random.key(1), jnp.int32(0))
        assert bool(found) == ((name, player) in REPEATED), (player, found)
    if isinstance(objective, Samples) and not hasattr(objective, "translate"):
        cond = {"label": batch["label"]} if "label" in batch else None
        sample = lambda params, extra, key: objective.sample(params, extra, key, 4, cond)
        assert not reused(sample, params, extra, jax.random.key(1)), "sample"
    if isinstance(objective, HasLogProb) and objective.log_prob_kind:
        log_prob = lambda params, extra, key: objective.log_prob(params, extra, batch, key)
        assert not reused(log_prob, params, extra, jax.random.key(1)), "log_prob"
