"""Packed documents equal unpacked ones: probabilities, gradients, and counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_autoregressive import KEY, NETS, VALUES, model

from genjax.core.errors import UserError
from genjax.core.objective import Context
from genjax.data.packing import first_fit, pack
from genjax.networks.layers import segments
from genjax.objectives.autoregressive import Autoregressive

LENGTH = 12
SIZES = [5, 3, 7, 4, 1, 2, 2, 9]  # first fit: 5 3 4 | 7 1 2 2 | 9
ROWS = [0, 0, 1, 0, 1, 1, 1, 2]
RNG = np.random.default_rng(0)
DOCUMENTS = [RNG.integers(0, VALUES, size) for size in SIZES]


def test_documents_go_to_the_first_row_with_enough_space():
    assert first_fit(SIZES, LENGTH).tolist() == ROWS
    sizes = RNG.integers(1, 30, 400).tolist()
    rows, free = [], []
    for size in sizes:
        fits = [row for row, left in enumerate(free) if left >= size]
        row = fits[0] if fits else len(free)
        free += [] if fits else [40]
        free[row] -= size
        rows.append(row)
    assert first_fit(sizes, 40).tolist() == rows
    with pytest.raises(UserError, match="documents of 1 to 9 tokens do not fit rows of 8"):
        first_fit(SIZES, 8)


def test_a_row_holds_whole_documents_in_order():
    rows = pack(DOCUMENTS, LENGTH).arrays
    assert rows["segment"][0].tolist() == [1] * 5 + [2] * 3 + [3] * 4
    assert rows["segment"][2].tolist() == [1] * 9 + [0] * 3
    seen = {row: 0 for row in ROWS}
    for document, row in zip(DOCUMENTS, ROWS, strict=True):
        seen[row] += 1
        np.testing.assert_array_equal(rows["x"][row][rows["segment"][row] == seen[row]], document)
    np.testing.assert_array_equal(rows["mask"], rows["segment"] > 0)
    assert rows["mask"].sum() == sum(SIZES)
    assert not rows["x"][~rows["mask"]].any()
    places = np.asarray(segments.places(jnp.asarray(rows["segment"])))
    assert places[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3]


TRANSFORMERS = [
    pytest.param("llama", True, marks=pytest.mark.slow),
    pytest.param("learned", True, marks=pytest.mark.slow),
    ("tied, window", False),
    pytest.param("learned", False, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("net", "start"), TRANSFORMERS)
def test_packing_does_not_change_probabilities(net, start):
    """Each of eight documents in three rows, to 1e-5 nats; and the loss is their mean."""
    objective, params = model(net, (LENGTH,), start=start)
    log_prob = jax.jit(lambda batch: objective.log_prob(params, {}, batch, KEY))
    rows = {name: jnp.asarray(array) for name, array in pack(DOCUMENTS, LENGTH).arrays.items()}
    alone = pack(
        [np.append(document, np.zeros(LENGTH - len(document), int)) for document in DOCUMENTS], LENGTH
    )
    mask = jnp.arange(LENGTH)[None] < jnp.asarray(SIZES)[:, None]
    expected = log_prob({"x": jnp.asarray(alone.arrays["x"]), "mask": mask})
    number = [1 + ROWS[:i].count(row) for i, row in enumerate(ROWS)]
    chosen = rows["segment"][np.asarray(ROWS)] == jnp.asarray(number)[:, None]
    one_each = {name: array[np.asarray(ROWS)] for name, array in rows.items()} | {"mask": chosen}
    np.testing.assert_allclose(log_prob(one_each), expected, atol=1e-5)
    scored = sum(SIZES) - (0 if start else len(SIZES))
    assert float(objective.elements(rows).sum()) == scored
    loss = jax.jit(lambda: objective.loss(params, {}, rows, Context(KEY, jnp.int32(0), False))[0])()
    assert float(loss) == pytest.approx(-float(expected.sum()) / scored, abs=1e-5)
    assert np.ptp(np.asarray(expected)) > 1.0


@pytest.mark.parametrize("net", ["learned", pytest.param("tied, window", marks=pytest.mark.slow)])
def test_no_gradient_crosses_documents(net):
    """Exact zeros, of the logits in the embeddings of all places of another segment, and of later ones of the same."""
    _, params = model(net, (6,))
    segment = jnp.asarray([[1, 1, 2, 2, 2, 3]])
    one_hot = jax.nn.one_hot(jnp.asarray([[3, 1, 3, 2, 0, 3]]), VALUES + 1)
    apply = lambda x: NETS[net].apply(params["net"], x, out=VALUES, segment=segment)[0]
    size = np.abs(jax.jit(jax.jacrev(lambda x: jnp.sin(apply(x)).sum(-1)))(one_hot)[:, 0]).max(-1)
    inside = np.asarray(segment)[0][:, None] == np.asarray(segment)[0][None]
    np.testing.assert_array_equal(size > 1e-7, inside & np.tri(6).astype(bool))
    assert not size[~inside].any()


def test_networks_without_segments_raise():
    batch = {name: jnp.asarray(array) for name, array in pack(DOCUMENTS, LENGTH).arrays.items()}
    for net in ("gru", "wavenet"):
        with pytest.raises(UserError, match="cannot separate packed documents: use TokenTransformer"):
            Autoregressive(NETS[net], (LENGTH,), VALUES).init(KEY, batch)
