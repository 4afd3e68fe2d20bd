"""Checkpoints: bit-exact on any layout, retention, and errors."""

import os
import shutil
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from checkpointing import assert_same, files, flip, raw, restore, small
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from genjax.core import checksums
from genjax.core.errors import UserError
from genjax.core.types import PyTree, record
from genjax.training.checkpoint import Checkpoints


@record
class State:
    step: PyTree
    params: PyTree
    opt_state: PyTree
    extra: PyTree = field(default_factory=dict)


def make(seed=0):
    """All dtypes, special bit patterns, special names, empty containers, a named tuple of optax."""
    rng = np.random.default_rng(seed)
    bits = lambda dtype, *shape: jnp.asarray(
        rng.integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8).view(dtype)[..., 0]
    )
    params = {
        "net": {"params": {"Dense_0": {"kernel": bits(np.float32, 8, 16), "bias": bits(np.float32, 16)}}}
    }
    normal = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), jnp.float32), params)
    return State(
        step=jnp.asarray(seed, jnp.int32),
        params=params,
        opt_state={
            "net": optax.named_chain(("moments", optax.scale_by_adam()), ("none", optax.identity())).init(
                normal
            )
        },
        extra={
            "half": bits(ml_dtypes.bfloat16, 3, 5),
            "word": bits(np.uint32, 4),
            "byte": bits(np.uint8, 7),
            "flag": jnp.asarray([True, False]),
            "special": jnp.asarray([np.nan, -np.nan, np.inf, -0.0, 1e-45], jnp.float32),
            "key": jax.random.key(seed),
            "keys": jax.random.split(jax.random.key(seed), 8),
            "host": rng.normal(size=3),
            "long": np.int64(2**40 + seed),
            "count": 5 + seed,
            "nothing": {},
            "none": None,
            "pair": (jnp.float32(1.5), [jnp.int32(seed), ()]),
            "size zero": jnp.zeros((0, 3)),
            "a/b": {"c.d": jnp.ones(2), "e f": jnp.full(2, 2.0), "%2E": jnp.full(2, 4.0)},
            "a": {"b": {"c.d": jnp.full(2, 3.0)}},
            "pair.0": jnp.full(2, 5.0),
        },
    )


def layout(devices, *spec, shape=None, names=("data", "model")):
    shape = shape or (devices, 1)
    mesh = jax.make_mesh(shape, names, devices=jax.devices()[:devices], axis_types=(AxisType.Auto,) * 2)
    return NamedSharding(mesh, P(*spec))


def test_every_bit_is_restored(tmp_path):
    state = make(3)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state)
    step, got = restore(tmp_path, make(0))
    assert step == 3
    assert_same(got, state)
    # A template of shapes, as from `jax.eval_shape`, gives the same.
    device = replace(
        state, extra={n: state.extra[n] for n in ("half", "key", "keys", "special", "size zero")}
    )
    _, got = restore(tmp_path, jax.eval_shape(lambda: device), partial=True)
    assert_same(got, device)


def test_arrays_may_be_donated_right_after_save(tmp_path):
    big = jnp.arange(2.0**20)
    expected = np.asarray(big)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": big})
        jax.jit(lambda a: a * 0, donate_argnums=0)(big).block_until_ready()
    np.testing.assert_array_equal(restore(tmp_path, {"w": jnp.zeros(2**20)})[1]["w"], expected)


@pytest.mark.parametrize(
    "sharding",
    [
        layout(1),
        layout(2, "data"),
        layout(4, "data"),
        layout(4, None, "data"),
        layout(8, "model", "data", shape=(4, 2)),
        layout(8, ("data", "model"), shape=(2, 4)),
        layout(8),
    ],
    ids=str,
)
def test_saved_on_eight_devices_restores_on_any_layout(tmp_path, sharding):
    values = {"w": np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32), "k": np.float32(3)}
    saved = {"w": jax.device_put(values["w"], layout(8, "data")), "k": jax.device_put(values["k"], layout(8))}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, saved)
    scalar = NamedSharding(sharding.mesh, P())
    template = {
        "w": jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=sharding),
        "k": jax.ShapeDtypeStruct((), jnp.float32, sharding=scalar),
    }
    _, got = restore(tmp_path, template)
    assert got["w"].sharding == sharding
    assert got["k"].sharding == scalar
    assert_same(jax.tree.map(np.asarray, got), values)


def test_typed_keys_keep_their_sharding(tmp_path):
    keys = jax.device_put(jax.random.split(jax.random.key(1), 8), layout(8, "data"))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"k": keys})
    target = jax.ShapeDtypeStruct((8,), keys.dtype, sharding=layout(2, "data"))
    _, got = restore(tmp_path, {"k": target})
    assert got["k"].sharding.is_equivalent_to(target.sharding, 1)
    assert raw(got["k"]) == raw(keys)


def test_class_names_do_not_matter(tmp_path):
    @dataclass
    class Renamed:
        mu: PyTree
        nu: PyTree
        count: PyTree

    jax.tree_util.register_dataclass(Renamed)
    adam = optax.scale_by_adam().init(small(1))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"moments": adam})
    _, got = restore(tmp_path, {"moments": Renamed(small(0), small(0), jnp.int32(7))})
    assert_same(got["moments"].mu, adam.mu)
    assert int(got["moments"].count) == 0


def test_arrays_stored_under_an_earlier_name_are_restored(tmp_path):
    """A state saved when `opt_state` was named `moments`, restored as a whole and in part."""
    state = make(3)
    old = {"step": state.step, "params": state.params, "moments": state.opt_state, "extra": state.extra}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, old)
    assert "moments/net/moments/count" in checksums.read(tmp_path / "3")["arrays"]
    step, got = restore(tmp_path, make(0))
    assert step == 3
    assert_same(got, state)
    _, got = restore(tmp_path, {"opt_state": make(0).opt_state}, partial=True)
    assert_same(got["opt_state"], state.opt_state)
    _, got = restore(tmp_path, {**old, "moments": make(0).opt_state})
    assert_same(got, old)
    fresh = jax.tree.map(lambda a: jnp.zeros(3), state.opt_state)
    with pytest.raises(
        UserError, match=r"opt_state/net/moments/count: int32\(\) in the checkpoint, float32\(3,\) exp"
    ):
        restore(tmp_path, {"opt_state": fresh}, partial=True)
    with pytest.raises(UserError, match="opt_state/net/moments/count: not in the checkpoint"):
        restore(tmp_path, {**old, "opt_state": state.opt_state})


def test_partial_restores_a_subset_of_the_arrays(two):
    assert_same(restore(two, {"n": jnp.int32(0)}, partial=True)[1], {"n": small(2)["n"]})
    with pytest.raises(UserError, match="w: only in the checkpoint"):
        restore(two, {"n": jnp.int32(0)})
    with pytest.raises(UserError, match="m: not in the checkpoint"):
        restore(two, {"m": jnp.int32(0)}, partial=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"w": jnp.zeros((2, 4))}, "w: float32(2, 3) in the checkpoint, float32(2, 4) expected"),
        ({"w": jnp.zeros((3, 2))}, "w: float32(2, 3) in the checkpoint, float32(3, 2) expected"),
        (
            {"w": jnp.zeros((2, 3), jnp.bfloat16)},
            "w: float32(2, 3) in the checkpoint, bfloat16(2, 3) expected",
        ),
        ({"w": jnp.zeros((2, 3), jnp.int32)}, "w: float32(2, 3) in the checkpoint, int32(2, 3) expected"),
        ({"n": 0}, "n: int32() in the checkpoint, int64() expected"),
        ({"other": jnp.zeros(1)}, "other: not in the checkpoint"),
    ],
)
def test_a_template_that_differs_raises_one_line(two, change, words):
    with pytest.raises(UserError) as error:
        restore(two, {**small(0), **change})
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_many_differences_are_counted(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {f"a{i}": jnp.zeros(2) for i in range(9)})
    with pytest.raises(UserError, match=r"a0: .*; a1: .*; a2: .* and 6 more$"):
        restore(tmp_path, {f"a{i}": jnp.zeros(3) for i in range(9)})


@pytest.mark.parametrize(
    ("last", "every", "expected"), [(1, 0, [8]), (2, 0, [7, 8]), (2, 3, [3, 6, 7, 8]), (3, 4, [4, 6, 7, 8])]
)
def test_retention(tmp_path, last, every, expected):
    with Checkpoints(tmp_path, keep_last=last, keep_every=every) as checkpoints:
        for step in range(1, 9):
            checkpoints.save(step, small(step))
        checkpoints.wait()
        assert checkpoints.steps() == expected
        assert checkpoints.latest() == 8
        for step in expected:
            assert_same(checkpoints.restore(small(0), step)[1], small(step))
    assert sorted(os.listdir(tmp_path)) == sorted(map(str, expected))


def test_old_checkpoints_are_deleted_after_the_new_manifest_is_written(tmp_path, monkeypatch):
    seen, write = [], checksums.write
    monkeypatch.setattr(
        checksums, "write", lambda *a: (seen.append(sorted(os.listdir(tmp_path))), write(*a))[1]
    )
    with Checkpoints(tmp_path, keep_last=1) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, small(step))
    assert seen == [["1"], ["1", "2"]]
    assert os.listdir(tmp_path) == ["2"]


def test_a_damaged_step_is_replaced_only_when_the_same_step_is_saved_again(two):
    flip(files(two / "2")[0])
    with Checkpoints(two, keep_last=3) as checkpoints:
        assert checkpoints.restore(small(0))[0] == 1
        assert checkpoints.steps() == [1, 2]
        checkpoints.save(2, small(20))
        checkpoints.wait()
        assert checkpoints.restore(small(0))[0] == 2
    assert_same(restore(two)[1], small(20))
    assert sorted(os.listdir(two)) == ["1", "2"]


def test_restoring_an_earlier_step_supersedes_later_ones(tmp_path):
    with Checkpoints(tmp_path, keep_last=9) as checkpoints:
        for step in (1, 5, 9):
            checkpoints.save(step, small(step))
        checkpoints.restore(small(0), step=1)
        checkpoints.save(3, small(30))
        checkpoints.wait()
        assert checkpoints.steps() == [1, 3]  # not 9, which the restored state did not lead to
        assert sorted(os.listdir(tmp_path)) == ["1", "3", "5.stale", "9.stale"]
        checkpoints.save(5, small(50))
        checkpoints.wait()
        assert sorted(os.listdir(tmp_path)) == ["1", "3", "5", "9.stale"]


def test_a_restored_step_is_not_saved_again(two):
    with Checkpoints(two) as checkpoints:
        checkpoints.restore(small(0))
        before = [path.stat().st_mtime_ns for path in files(two)]
        checkpoints.save(2, small(2))
        checkpoints.wait()
        assert [path.stat().st_mtime_ns for path in files(two)] == before


def test_temporary_folders_of_killed_saves_are_removed_by_the_next_save(two):
    shutil.copytree(two / "2", two / "3.orbax-checkpoint-tmp")
    shutil.copytree(two / "2", two / "4.orbax-checkpoint-tmp-17")
    with Checkpoints(two) as checkpoints:
        assert checkpoints.restore(small(0))[0] == 2
        assert len(os.listdir(two)) == 4  # restoring deletes nothing: another process may be saving
        checkpoints.save(3, small(3))
    assert sorted(os.listdir(two)) == ["2", "3"]


def test_two_arrays_of_one_name_raise(tmp_path):
    @record
    class Odd:
        a: PyTree

    clash = jax.tree_util.register_pytree_with_keys  # a node that gives both children the same name
    Twice = type("Twice", (), {"__init__": lambda self: None})
    same = jax.tree_util.DictKey("x")
    clash(Twice, lambda t: (((same, jnp.ones(1)), (same, jnp.ones(1))), None), lambda aux, children: Twice())
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match="the same name"):
        checkpoints.save(1, Odd(Twice()))


@pytest.mark.parametrize("options", [{"keep_last": 0}, {"keep_every": -1}])
def test_invalid_retention_raises(tmp_path, options):
    with pytest.raises(UserError, match="keep_last"):
        Checkpoints(tmp_path, **options)
