"""Beam search against exhaustive search, and speculative decoding against the large model's own distribution."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_autoregressive import KEY, all_sequences, logits_of, model

from genjax.core.errors import UserError
from genjax.samplers.decoding import Decoding, generate
from genjax.samplers.decoding.beam import Beam, beam_search
from genjax.samplers.decoding.model import Model
from genjax.samplers.decoding.speculative import probabilities, speculate, verify

NONE = jnp.zeros((1, 0), jnp.int32), jnp.zeros(1, jnp.int32)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_beam_over_a_markov_chain_finds_its_best_sequences(penalty):
    """All sequences of at most three symbols, 2 ending them, by their mean log-probability or their sum."""
    table = np.log(np.random.default_rng(0).dirichlet(np.ones(3), size=4)).astype(
        np.float32
    )  # 3 is the start
    rows = jnp.asarray(table)
    chain = Model(
        lambda num: (jnp.broadcast_to(rows[3], (num, 3)), jnp.zeros((num, 1))),
        lambda memory, tokens, count, last: (rows[tokens], memory),
    )
    search = lambda: beam_search(chain, Beam(27, penalty, "never"), Decoding(), *NONE, new=3, stop=(2,))
    found = jax.jit(search)()
    scores = {}
    for full in itertools.product(range(3), repeat=3):
        own = full[: full.index(2) + 1] if 2 in full else full
        total = sum(table[before, token] for before, token in zip((3, *own), own, strict=False))
        scores[own] = total / len(own) ** penalty
    expected = sorted(scores, key=lambda own: -scores[own])
    for place, own in enumerate(expected):
        assert tuple(np.asarray(found.tokens)[0, place, : len(own)].tolist()) == own
        assert float(found.score[0, place]) == pytest.approx(scores[own], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("net", ["learned", "tied, window"])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all_sequences(net, penalty):
    """27 beams, three places, 2 ends a sequence: the n-best list is the sorted list of all."""
    objective, params = model(net, (3,))
    search = lambda: beam_search(
        objective.model(params, 27), Beam(27, penalty, "never"), Decoding(), *NONE, new=3, stop=(2,)
    )
    found = jax.jit(search)()
    log_p = dict(
        zip(
            map(tuple, all_sequences((3,)).tolist()),
            np.asarray(jax.nn.log_softmax(logits_of(objective, params, all_sequences((3,))))).tolist(),
            strict=True,
        )
    )
    scores = {}
    for sequence, rows in log_p.items():
        length = sequence.index(2) + 1 if 2 in sequence else 3
        total = sum(rows[i][sequence[i]] for i in range(length))
        scores[sequence[:length]] = total / length**penalty
    expected = sorted(scores.items(), key=lambda item: -item[1])
    got = [
        (tuple(tokens[:length].tolist()), score)
        for tokens, length, score in zip(
            np.asarray(found.tokens)[0], np.asarray(found.length)[0], np.asarray(found.score)[0], strict=True
        )
        if length
    ]
    assert [sequence for sequence, _ in got] == [sequence for sequence, _ in expected][: len(got)]
    assert len(got) == len(expected) == 15
    np.testing.assert_allclose([s for _, s in got], [s for _, s in expected], atol=1e-5)


@pytest.mark.slow
def test_one_beam_is_greedy_and_prompts_are_independent():
    objective, params = model("llama", (6,))
    prompts, count = jnp.asarray([[1, 0], [2, 2], [0, 0]]), jnp.asarray([2, 1, 0])
    search = lambda width, prompt, count: beam_search(
        objective.model(params, width * len(count)), Beam(width), Decoding(), prompt, count, new=4
    )
    greedy = generate(objective.model(params, 3), Decoding(temperature=0.0), KEY, prompts, count, 6).tokens
    one = jax.jit(lambda: search(1, prompts, count))()
    for row, (start, tokens) in enumerate(zip(count.tolist(), np.asarray(one.tokens)[:, 0], strict=True)):
        assert tokens.tolist() == np.asarray(greedy)[row, start : start + 4].tolist()
    together = jax.jit(lambda: search(3, prompts, count))()
    alone = jax.jit(lambda prompt, count: search(3, prompt, count))
    for row in range(3):
        found = alone(prompts[row : row + 1], count[row : row + 1])
        np.testing.assert_array_equal(together.tokens[row], found.tokens[0])
        np.testing.assert_allclose(together.score[row], found.score[0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{}, pytest.param({"top_k": 2, "temperature": 0.6}, marks=pytest.mark.slow)]
)
def test_speculative_draws_have_the_large_models_distribution(settings):
    """4,000 draws of four symbols with another model's drafts, by a chi-square test over all sequences."""
    (objective, params), (other, small) = model("llama", (4,)), model("tied, window", (4,))
    decoding = Decoding(**settings)
    num = 4000
    draw = lambda key: speculate(
        objective.model(params, num, slack=3),
        other.model(small, num, slack=3),
        decoding,
        key,
        jnp.zeros((num, 0), jnp.int32),
        jnp.zeros(num, jnp.int32),
        4,
        drafts=2,
    )
    done = jax.jit(draw)(jax.random.key(2))
    x = all_sequences((4,))
    logits = logits_of(objective, params, x)
    log_p = sum(
        np.log(np.maximum(1e-30, np.asarray(probabilities(decoding, logits[:, i], x, jnp.full(len(x), i)))))[
            np.arange(len(x)), np.asarray(x)[:, i]
        ]
        for i in range(4)
    )
    expected = num * np.exp(log_p)
    found = np.bincount(np.asarray(done.tokens) @ np.array([27, 9, 3, 1]), minlength=81)
    assert not found[expected < 1e-9].any()
    likely = expected > 5
    cells, size = np.append(expected[likely], expected[~likely].sum()), likely.sum()
    counts = np.append(found[likely], found[~likely].sum())
    cells, counts = (cells, counts) if cells[-1] > 5 else (cells[:-1], counts[:-1])
    assert ((counts - cells) ** 2 / cells).sum() < size + 4 * (2 * size) ** 0.5
    rate = float(done.accepted.sum() / done.rounds.sum())
    assert 0.3 < rate < 1.9, "drafts are neither all refused nor all taken"
    assert np.all(np.asarray(done.length) == 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "pair",
    [("learned", "tied, window"), pytest.param(("tied, window", "llama"), marks=pytest.mark.slow)],
)
def test_greedy_speculation_is_greedy_decoding(pair):
    """For any drafts and prompt lengths; rows end at their stop token."""
    (objective, params), (other, small) = (model(name, (9,)) for name in pair)
    prompts, count = jnp.asarray([[1, 0, 2], [2, 2, 0], [0, 0, 0], [1, 1, 1]]), jnp.asarray([3, 1, 0, 2])
    greedy = Decoding(temperature=0.0)
    expected = jax.jit(lambda: generate(objective.model(params, 4), greedy, KEY, prompts, count, 9, (2,)))()
    done = jax.jit(
        lambda: speculate(
            objective.model(params, 4, slack=4),
            other.model(small, 4, slack=4),
            greedy,
            KEY,
            prompts,
            count,
            9,
            drafts=3,
            stop=(2,),
        )
    )()
    np.testing.assert_array_equal(done.length, expected.length)
    for mine, theirs, length in zip(done.tokens, expected.tokens, expected.length, strict=True):
        np.testing.assert_array_equal(mine[:length], theirs[:length])


@pytest.mark.slow
def test_a_model_that_drafts_for_itself_is_always_accepted():
    objective, params = model("llama", (9,))
    draw = lambda: speculate(
        *(objective.model(params, 8, slack=3) for _ in range(2)),
        Decoding(),
        KEY,
        jnp.zeros((8, 0), jnp.int32),
        jnp.zeros(8, jnp.int32),
        9,
        drafts=3,
    )
    done = jax.jit(draw)()
    np.testing.assert_array_equal(done.accepted, 3 * done.rounds)
    np.testing.assert_array_equal(done.rounds, 2)  # one token, then twice four


def test_acceptance_and_replacement_follow_the_papers_equations():
    """One draft of 3 tokens: the accepted share is sum min(p, q), and the result has distribution p."""
    p, q = np.array([0.5, 0.2, 0.3]), np.array([0.2, 0.7, 0.1])
    num = 40_000
    drafts = jax.random.categorical(jax.random.key(1), jnp.log(jnp.asarray(q)), shape=(num, 1))
    both = (
        jnp.broadcast_to(jnp.asarray(p, jnp.float32), (num, 2, 3)),
        jnp.broadcast_to(jnp.asarray(q, jnp.float32), (num, 1, 3)),
    )
    accepted, following = jax.jit(verify)(KEY, *both, drafts.astype(jnp.int32))
    first = np.where(np.asarray(accepted) == 1, np.asarray(drafts)[:, 0], np.asarray(following))
    assert abs(accepted.mean() - np.minimum(p, q).sum()) < 4 * 0.5 / num**0.5
    np.testing.assert_allclose(np.bincount(first, minlength=3) / num, p, atol=4 * 0.5 / num**0.5)


def test_a_model_without_rewind_cannot_speculate():
    objective, params = model("llama", (4,))
    stuck = objective.model(params, 1)._replace(rewind=None)
    with pytest.raises(UserError, match="can rewind"):
        speculate(stuck, stuck, Decoding(), KEY, *NONE, 4)
