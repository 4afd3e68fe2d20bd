"""Incremental evaluation equals evaluation of the whole sequence, for all networks and storage dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_autoregressive import EACH, IMAGES, VALUES, model

from genjax.networks.layers.weight_quantization import pack

# Calls: number of places, and how many of them each of three rows takes. Row 2 is idle at first.
CALLS = [(3, (3, 1, 0)), (1, (1, 1, 1)), (2, (2, 0, 1)), (1, (1, 0, 1)), (1, (1, 1, 1)), (2, (1, 2, 2))]
KINDS = {"bfloat16": 0.02, "int8": 0.05}  # error of a logit, relative to the largest


def differences(objective, params, **kept):
    """Largest difference from the outputs of the whole network, relative to its largest output."""
    x = jnp.asarray(np.random.default_rng(1).integers(0, VALUES, (3, *objective.shape)))
    whole = np.asarray(jax.jit(lambda x: objective.outputs(params, x))(x))
    inputs = jnp.pad(objective._shifted(x).reshape(3, -1, objective.channels), ((0, 0), (0, 2), (0, 0)))
    decoder = objective.net.incremental(params["net"], objective.grid, None, out=objective._out, **kept)
    memory, place, found = decoder.init(3), np.zeros(3, int), []
    extend = jax.jit(decoder.extend, static_argnums=3)
    for k, counts in CALLS:
        count = jnp.asarray(counts)
        given = jnp.stack([row[at : at + k] for row, at in zip(inputs, place, strict=True)])
        out, memory = extend(memory, given, count, False)
        for row, (at, taken) in enumerate(zip(place, counts, strict=True)):
            found.append(np.abs(np.asarray(out)[row, :taken] - whole[row, at : at + taken]).reshape(-1))
        place += np.asarray(counts)
    assert place.max() == 9
    return np.concatenate(found).max() / np.abs(whole).max()


@pytest.mark.parametrize("name", EACH)
def test_each_place_has_the_output_of_the_whole_network(name):
    """Rows at different places in one batch, several places at once, and ring buffers that have wrapped around."""
    objective, params = model(name, (3, 3, 1) if name in IMAGES else (9,))
    assert differences(objective, params) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param("bfloat16", marks=pytest.mark.slow), "int8"])
@pytest.mark.parametrize(
    "name", ["tied, window", *(pytest.param(n, marks=pytest.mark.slow) for n in ("learned", "llama"))]
)
def test_fewer_bytes_change_the_outputs_slightly(name, kind):
    objective, params = model(name, (9,))
    for kept in ({"kind": kind}, {"weights": kind}):
        assert 1e-6 < differences(objective, params, **kept) < KINDS[kind]


@pytest.mark.parametrize("rows", [1, 7])
def test_a_packed_product_has_an_error_of_half_a_step_per_entry(rows):
    rng = np.random.default_rng(0)
    x, matrix = rng.standard_normal((rows, 40), np.float32), rng.standard_normal((40, 5), np.float32)
    packed = pack(jnp.asarray(matrix), "int8")
    y = jax.jit(lambda x: packed.multiply(x))(jnp.asarray(x))
    kept = np.asarray(packed.values, np.float64) * np.asarray(packed.scale)
    np.testing.assert_allclose(y, x @ kept, atol=1e-4)
    assert np.all(np.abs(kept - matrix) <= np.abs(matrix).max(0) / 254 * (1 + 1e-5))
