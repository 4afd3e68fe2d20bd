"""Each filter against its definition, row by row in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.errors import UserError
from genjax.samplers.decoding import Decoding, filters

ROWS, WIDTH, PLACES = 40, 7, 9


def cases(seed):
    """Logits, tokens and lengths of many rows; a third of the logits occur twice."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(ROWS, WIDTH))
    logits[::3, 1] = logits[::3, 4]
    return (
        logits.astype(np.float32),
        rng.integers(0, WIDTH, (ROWS, PLACES)),
        rng.integers(0, PLACES + 1, ROWS),
    )


def softmax(logits):
    p = np.exp(logits - logits.max())
    return p / p.sum()


def kept_by_mass(score, p, mass):
    """The smallest set of tokens, by ascending score, of probability at least `mass`."""
    total, kept = 0.0, set()
    for token in np.argsort(score, kind="stable"):
        kept.add(int(token))
        total += p[token]
        if total >= mass:
            return kept
    return kept


def top_p(logits, tokens):
    return kept_by_mass(-logits, softmax(np.float64(logits)), 0.7)


def typical(logits, tokens):
    p = softmax(np.float64(logits))
    return kept_by_mass(np.abs(-np.log(p) + (p * np.log(p)).sum()), p, 0.6)


def top_k(logits, tokens):
    return {token for token in range(WIDTH) if (logits > logits[token]).sum() < 3}


def min_p(logits, tokens):
    p = softmax(np.float64(logits))
    return {token for token in range(WIDTH) if p[token] >= 0.2 * p.max()}


def no_repeat(logits, tokens, n=2):
    grams = {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}
    tail = tuple(tokens[len(tokens) - n + 1 :]) if len(tokens) >= n - 1 else None
    return {token for token in range(WIDTH) if tail is None or (*tail, token) not in grams}


def banned(logits, tokens):
    ends = lambda words: len(tokens) >= len(words) and list(tokens[len(tokens) - len(words) :]) == words
    out = {5} | ({2} if ends([1]) else set()) | ({3} if ends([4, 0]) else set())
    return set(range(WIDTH)) - out


def automaton(logits, tokens):
    """Even numbers of the symbol 0 before each 1, from the third place on."""
    return set(range(WIDTH)) - ({1} if list(tokens[2:]).count(0) % 2 else set())


TABLE = tuple(
    tuple((1 - state if token == 0 else -1 if state and token == 1 else state) for token in range(WIDTH))
    for state in (0, 1)
)

SETS = {
    "top-p": (filters.TopP(0.7), top_p),
    "typical": (filters.Typical(0.6), typical),
    "top-k": (filters.TopK(3), top_k),
    "min-p": (filters.MinP(0.2), min_p),
    "no 2-gram twice": (filters.NoRepeat(2), no_repeat),
    "no 3-gram twice": (filters.NoRepeat(3), lambda _, t: no_repeat(_, t, 3)),
    "no token twice": (filters.NoRepeat(1), lambda _, t: set(range(WIDTH)) - set(t)),
    "banned": (filters.Banned(((5,), (1, 2), (4, 0, 3))), banned),
    "forced": (
        filters.Forced(((3, 6), (0, 2))),
        lambda _, t: {0: {2}, 3: {6}}.get(len(t), set(range(WIDTH))),
    ),
    "not before": (
        filters.NotBefore((1, 6), 4),
        lambda _, t: set(range(WIDTH)) - ({1, 6} if len(t) < 4 else set()),
    ),
    "automaton": (filters.Automaton(TABLE, 2), automaton),
}


@pytest.mark.parametrize("name", SETS)
def test_filters_keep_the_tokens_of_their_definitions(name):
    keep, definition = SETS[name]
    sizes = set()
    for seed in range(3):
        logits, tokens, length = cases(seed)
        if name == "automaton":  # words that it accepts so far
            tokens = np.where(tokens == 1, 2, tokens)
        out = np.asarray(jax.jit(keep)(*map(jnp.asarray, (logits, tokens, length))))
        for before, row, count, after in zip(logits, tokens, length, out, strict=True):
            kept = set(np.flatnonzero(np.isfinite(after)).tolist())
            expected = definition(before, row[:count])
            assert (name == "top-p" and np.unique(before).size < WIDTH) or kept == expected
            if name != "forced":
                np.testing.assert_array_equal(after[list(kept)], before[list(kept)])
            sizes.add(len(kept))
    assert len(sizes) > 1


def test_penalties_are_their_equations():
    logits, tokens, length = cases(0)
    penalties = (filters.Repetition(1.5), filters.Presence(0.3, 0.2), filters.Temperature(0.5))
    found = [np.asarray(keep(*map(jnp.asarray, (logits, tokens, length)))) for keep in penalties]
    for row in range(ROWS):
        often = np.bincount(tokens[row, : length[row]], minlength=WIDTH)
        raw = logits[row]
        weaker = np.where(raw > 0, raw / 1.5, raw * 1.5)
        np.testing.assert_allclose(found[0][row], np.where(often > 0, weaker, raw), rtol=1e-6)
        np.testing.assert_allclose(found[1][row], raw - 0.3 * (often > 0) - 0.2 * often, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[2], logits * 2)


@pytest.mark.slow
def test_settings_become_filters_in_order():
    """Penalties see raw logits; custom filters come next, then temperature, and truncations last."""
    own = filters.Banned(((0,),))
    knobs = Decoding(0.5, 3, 0.9, 0.1, 0.8, 1.2, 0.1, 0.2, 2, (own,))
    kinds = [type(keep).__name__ for keep in knobs.filters]
    order = ["Repetition", "Presence", "NoRepeat", "Banned", "Temperature", "TopK", "TopP", "MinP", "Typical"]
    assert kinds == order
    assert Decoding().filters == ()
    logits, tokens, length = map(jnp.asarray, cases(1))
    expected = logits
    for keep in knobs.filters:
        expected = keep(expected, tokens, length)
    np.testing.assert_array_equal(knobs.filtered(logits, tokens, length), expected)


def test_draws_have_the_filtered_probabilities_and_greedy_takes_the_most_likely():
    logits = jnp.log(jnp.asarray([0.5, 0.3, 0.15, 0.05]))
    draw = jax.jit(lambda keys: jax.vmap(lambda key: Decoding().choose(key, logits[None])[0])(keys))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 20_000)))
    expected = 20_000 * np.exp(np.asarray(logits))
    assert ((np.bincount(drawn, minlength=4) - expected) ** 2 / expected).sum() < 3 + 4 * 6**0.5
    assert Decoding(temperature=0.0).choose(jax.random.key(0), logits[None]).tolist() == [0]


def test_an_automaton_for_another_vocabulary_raises():
    with pytest.raises(UserError, match="has 7 tokens, the model 3"):
        filters.Automaton(TABLE)(jnp.zeros((1, 3)), jnp.zeros((1, 4), jnp.int32), jnp.zeros(1, jnp.int32))


def test_every_filter_of_the_module_is_tested():
    shipped = {
        kind
        for kind in vars(filters).values()
        if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__")
    }
    tested = {type(keep) for keep, _ in SETS.values()} | {
        filters.Repetition,
        filters.Presence,
        filters.Temperature,
    }
    assert {kind for kind in shipped if kind is not filters.Filter} == tested
