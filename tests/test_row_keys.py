"""Row keys: random numbers belong to (seed, example, name), not to the call, its size or its devices."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rows import make_run, start

from genjax.core import row_keys
from genjax.core.row_keys import categorical, first_row, row_key, rows_from
from genjax.core.types import named
from genjax.data.examples import Subset
from genjax.diffusion.times import stratified
from genjax.evaluation.held_out import held_out_losses
from genjax.training.experiment import Evaluation


@dataclasses.dataclass(frozen=True)
class First:
    """The first 100 examples of a source."""

    source: Any

    def __getattr__(self, name):
        return getattr(self.source, name)

    def load(self, split):
        return Subset(self.source.load(split), 100)


DRAWS = {
    "normal": jax.random.normal,
    "uniform": jax.random.uniform,
    "bfloat16": lambda key, shape: jax.random.normal(key, shape, jnp.bfloat16),
    "bits": lambda key, shape: jax.random.bits(key, shape, jnp.uint8),
    "16 bits": lambda key, shape: jax.random.bits(key, shape, jnp.uint16),
    "randint": lambda key, shape: jax.random.randint(key, shape, 0, 10),
    "bernoulli": lambda key, shape: jax.random.bernoulli(key, 0.3, shape),
    "rademacher": jax.random.rademacher,
    "gumbel": jax.random.gumbel,
    "logistic": jax.random.logistic,
    "exponential": jax.random.exponential,
    "categories": lambda key, shape: categorical(key, jnp.zeros((*shape, 7))),
    "within a name": lambda key, shape: jax.random.normal(jax.random.fold_in(named(key, "noise"), 3), shape),
    "times": lambda key, shape: stratified(key, shape[0]),
}


@pytest.mark.parametrize("shape", [(), (2, 5)], ids=str)
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_row_has_its_numbers_in_every_call(draw, shape):
    drawn = jax.jit(lambda first, size: draw(rows_from(row_key(3), first), (size, *shape)), static_argnums=1)
    whole = np.asarray(drawn(0, 20))
    for first, size in ((7, 8), (0, 8), (15, 5)):
        np.testing.assert_array_equal(drawn(first, size), whole[first : first + size])


def test_numbers_of_the_first_rows_are_those_of_jax():
    for shape in ((20,), (5, 3, 2), ()):
        np.testing.assert_array_equal(
            jax.random.normal(named(row_key(3), "x"), shape),
            jax.random.normal(named(jax.random.key(3), "x"), shape),
        )


@pytest.mark.parametrize("row", [0, 65_535, 65_536, 2**31 + 12_345, 2**32 - 1])
@pytest.mark.parametrize("size", [1, 65_535, 65_537, 2**31 + 7, 2**32 - 1])
def test_an_elements_index_is_computed_in_64_bits(row, size):
    for place in (0, size // 2, size - 1):
        high, low = row_keys._add_product(jnp.uint32(row), size, jnp.uint32(place))
        assert (int(high) << 32) + int(low) == row * size + place


def test_sharded_rows_are_those_of_one_device():
    mesh = Mesh(jax.devices(), "data")
    draw = lambda key: jax.random.normal(named(key, "noise"), (16, 3))
    sharded = jax.jit(draw, out_shardings=NamedSharding(mesh, PartitionSpec("data")))(row_key(1))
    np.testing.assert_array_equal(sharded, jax.jit(draw)(row_key(1)))


def test_rows_seeds_names_and_places_are_independent():
    """Correlations of 10^5 pairs are within 5 standard errors of 0; none of the draws is another, shifted."""
    n = 100_000
    key = row_key(0)
    draws = [
        jax.random.normal(key, (n, 2)),
        jax.random.normal(row_key(1), (n, 2)),
        jax.random.normal(named(key, "noise"), (n, 2)),
        jax.random.normal(jax.random.split(key)[0], (n, 2)),
        jax.random.normal(rows_from(key, n), (n, 2)),
    ]
    columns = np.concatenate([np.asarray(draw) for draw in draws], axis=1)
    off = np.corrcoef(columns, rowvar=False) - np.eye(columns.shape[1])
    assert np.abs(off).max() < 5 / n**0.5
    shifted = np.asarray(draws[0])
    assert abs(np.corrcoef(shifted[1:, 0], shifted[:-1, 1])[0, 1]) < 5 / n**0.5


def test_normal_numbers_have_the_moments_of_the_normal_distribution():
    x = np.asarray(jax.random.normal(row_key(2), (1000, 1000)), np.float64)
    n = x.size
    assert abs(x.mean()) < 5 / n**0.5
    assert abs((x**2).mean() - 1) < 5 * (2 / n) ** 0.5
    assert abs((x**4).mean() - 3) < 5 * (96 / n) ** 0.5


def test_categories_have_their_probabilities_the_rare_ones_too():
    """Of 2^20 draws, within 5 standard errors; the rare one is expected 105 times."""
    p = np.array([0.5, 0.3, 0.1999, 0.0001])
    n = 2**20
    drawn = np.asarray(
        jax.jit(lambda key: categorical(key, jnp.broadcast_to(jnp.log(p), (n, 4))))(row_key(0))
    )
    counts = np.bincount(drawn, minlength=4)
    assert np.all(np.abs(counts - n * p) < 5 * np.sqrt(n * p * (1 - p)))


def test_scalars_are_the_same_for_all_rows():
    assert jax.random.uniform(row_key(0)) == jax.random.uniform(rows_from(row_key(0), 9))


def test_the_first_row_is_known():
    key = jax.jit(lambda start: jax.random.fold_in(rows_from(row_key(0), start), 5))(7)
    assert first_row(key) == 7
    assert first_row(jax.random.key(0)) is None


def test_evaluation_times_are_evenly_spread_over_any_consecutive_examples():
    """The discrepancy of 64 consecutive golden-ratio points is below 3/64; independent ones have about 0.1."""
    for first in (0, 5, 1_000_000, 2**31):
        u = np.sort(stratified(rows_from(row_key(4), first), 64))
        expected = (np.arange(64) + 0.5) / 64
        assert np.abs(u - expected).max() < 3 / 64


@pytest.mark.parametrize(
    "name",
    [
        "diffusion-points",
        "vae-points",
        "mean-flow-points",
        pytest.param("vdm-points", marks=pytest.mark.slow),
        pytest.param("tokens-digits", marks=pytest.mark.slow),
    ],
)
def test_held_out_losses_depend_on_no_batch_size_and_no_number_of_devices(name):
    """Times, noise and latents belong to the examples; the last batches differ in size."""
    found = []
    for mesh, size in (("data:8", 40), ("one", 48)):
        run = make_run(name, mesh, evaluation=Evaluation(batch_size=size))
        data = dataclasses.replace(run.experiment.data, source=First(run.experiment.data.source))
        found.append(held_out_losses(dataclasses.replace(run.experiment, data=data), start(run), run.mesh))
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-4, abs=1e-5)
