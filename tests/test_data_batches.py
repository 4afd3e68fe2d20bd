"""Batches: each example once per epoch, the same global batch on any number of processes, pure in step."""

import numpy as np
import pytest
from scipy import stats

from genjax.core.errors import UserError
from genjax.data import Batches, Table, Windows, sweep
from genjax.data.examples import Subset
from genjax.data.permutation import permutation, permutation_at

KEYS = ((), (1,), (0, 1), (2**64 - 1, 2**40))


def numbers(num: int) -> Table:
    return Table({"x": np.arange(num)})


def stream_of(num: int, batch_size: int, steps: int, **options) -> np.ndarray:
    batches = Batches(numbers(num), batch_size, **options)
    return np.concatenate([batches(step)["x"] for step in range(steps)])


@pytest.mark.parametrize(("num", "batch_size"), [(60, 12), (50, 12), (7, 3), (5, 16), (1, 4)])
def test_every_example_once_per_epoch(num, batch_size):
    epochs = 6
    steps = -(-epochs * num // batch_size)
    stream = stream_of(num, batch_size, steps)[: epochs * num].reshape(epochs, num)
    np.testing.assert_array_equal(np.sort(stream, axis=1), np.tile(np.arange(num), (epochs, 1)))


def test_large_permutations_are_evaluated_entry_by_entry(monkeypatch):
    """The tests above, with the permutation for more than a million examples."""
    monkeypatch.setattr("genjax.data.batches.LARGEST_TABLE", 4)
    test_every_example_once_per_epoch(50, 12)
    test_every_example_once_per_epoch(5, 16)
    test_epochs_and_seeds_have_their_own_order()
    test_processes_make_up_the_global_batch(2)
    test_resuming_in_the_middle_of_a_later_epoch_continues_the_stream()


@pytest.mark.parametrize("num", [1, 2, 3, 64, 65, 1000, 2**12 + 1])
def test_permutations_are_permutations_that_depend_on_their_key(num):
    places = np.arange(num)
    for orders in (
        [permutation(num, *key) for key in KEYS],
        [permutation_at(places, num, *key) for key in KEYS],
    ):
        for order in orders:
            np.testing.assert_array_equal(np.sort(order), places)
        if num >= 64:
            assert len({order.tobytes() for order in orders}) == len(KEYS)


@pytest.mark.slow
def test_permutation_at_looks_random():
    """Over keys, place and value are independent (chi-square of their joint counts), and so are neighbours."""
    num, keys = 20, 2000
    orders = np.stack([permutation_at(np.arange(num), num, key) for key in range(keys)])
    counts = np.stack([np.bincount(orders[:, place], minlength=num) for place in range(num)])
    chi2 = np.sum((counts - keys / num) ** 2) / (keys / num)
    assert stats.chi2.sf(chi2, (num - 1) ** 2) > 1e-4
    steps = np.bincount((orders[:, 1] - orders[:, 0]) % num, minlength=num)[1:]
    assert stats.chisquare(steps).pvalue > 1e-4
    large = permutation_at(np.arange(10**5), 10**9, 7) / 10**9
    assert stats.kstest(large, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(large[1:], large[:-1])[0, 1]) < 4 / np.sqrt(10**5)


def test_epochs_and_seeds_have_their_own_order():
    stream = stream_of(100, 20, 15).reshape(3, 100)
    other = stream_of(100, 20, 15, seed=1).reshape(3, 100)
    orders = {tuple(order) for order in np.concatenate([stream, other])}
    assert len(orders) == 6
    assert tuple(range(100)) not in orders


def test_each_place_gets_each_example_equally_often():
    """Of 5! = 120 orders, 12,000 epochs show each about 100 times: chi-square with 119 degrees of freedom."""
    stream = stream_of(5, 500, 120).reshape(-1, 5)
    _, counts = np.unique(stream, axis=0, return_counts=True)
    assert len(counts) == 120
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_processes_make_up_the_global_batch(process_count):
    whole = Batches(numbers(30), 8, seed=3)
    parts = [Batches(numbers(30), 8, 3, process, process_count) for process in range(process_count)]
    for step in range(12):
        np.testing.assert_array_equal(np.concatenate([part(step)["x"] for part in parts]), whole(step)["x"])


def test_resuming_in_the_middle_of_a_later_epoch_continues_the_stream():
    straight = stream_of(25, 4, 40).reshape(40, 4)
    for step in (17, 39, 3, 18):  # in any order: with a new object each, and with one object
        np.testing.assert_array_equal(Batches(numbers(25), 4)(step)["x"], straight[step])
    jumping = Batches(numbers(25), 4)
    for step in (39, 0, 20, 7, 39):
        np.testing.assert_array_equal(jumping(step)["x"], straight[step])


def test_examples_keep_their_rows_together():
    table = Table({"x": np.arange(40).reshape(20, 2), "label": np.arange(20, dtype=np.int32)})
    batch = Batches(table, 8)(1)
    np.testing.assert_array_equal(batch["x"][:, 0], 2 * batch["label"])


@pytest.mark.parametrize("process_count", [1, 2])
@pytest.mark.parametrize(("num", "batch_size"), [(12, 4), (13, 4), (3, 8)])
def test_sweep_yields_every_example_once_in_order(num, batch_size, process_count):
    sweeps = [
        list(sweep(numbers(num), batch_size, process, process_count)) for process in range(process_count)
    ]
    seen = []
    for parts in zip(*sweeps, strict=True):
        rows = np.concatenate([batch["x"] for batch, _ in parts])
        (count,) = {count for _, count in parts}
        assert len(rows) == batch_size
        seen.append(rows[:count])
    np.testing.assert_array_equal(np.concatenate(seen), np.arange(num))


def test_subset_is_a_fixed_random_choice():
    """Without repetition, uniform, the same every time; a larger subset starts with a smaller one."""
    table = Table({"x": np.arange(1000)})
    chosen = Subset(table, 100)[np.arange(100)]["x"]
    assert len(Subset(table, 100)) == 100
    assert len(Subset(table, 5000)) == 1000
    assert len(set(chosen)) == 100
    np.testing.assert_array_equal(chosen[:50], Subset(table, 50)[np.arange(50)]["x"])
    assert stats.kstest(chosen / 1000, "uniform").pvalue > 1e-3
    assert not np.array_equal(chosen, np.sort(chosen))


def test_windows_are_the_slices_of_the_stream():
    stream = np.random.default_rng(0).integers(0, 256, 50).astype(np.uint8)
    for stride in (1, 3, 8):
        windows = Windows(stream, 8, stride)
        starts = range(0, 50 - 8 + 1, stride)
        assert len(windows) == len(starts)
        order = np.arange(len(windows))[::-1]
        expected = np.stack([stream[start : start + 8] for start in starts])[::-1]
        got = windows[order]["x"]
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Batches(numbers(9), 10, 0, 0, 4),
            "batch_size=10 must be a positive multiple of the 4 processes",
        ),
        (lambda: Batches(numbers(9), 0), "batch_size=0"),
        (lambda: Batches(numbers(9), 8, 0, 4, 4), r"process_index=4 must lie in 0 \.\.\. 3"),
        (lambda: Batches(numbers(0), 8), "no examples"),
        (lambda: list(sweep(numbers(9), 9, 0, 2)), "batch_size=9"),
        (lambda: Windows(np.zeros(5, np.uint8), 6), "length=6 must lie between 1 and the stream's 5 tokens"),
        (lambda: Table({"x": np.zeros(3), "label": np.zeros(2)}), "one common length.*'x': 3, 'label': 2"),
    ],
)
def test_errors_are_one_line(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
