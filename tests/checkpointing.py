"""Helpers of the checkpoint tests: a small state, and restoring one."""

import jax
import jax.numpy as jnp
import numpy as np

from genjax.training.checkpoint import Checkpoints


def small(step):
    return {"w": jnp.arange(step, step + 6.0).reshape(2, 3), "n": jnp.int32(step)}


def restore(directory, template=None, **options):
    with Checkpoints(directory) as checkpoints:
        return checkpoints.restore(template or small(0), **options)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path):
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(len(data))
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def raw(leaf):
    if hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype), np.asarray(jax.random.key_data(leaf)).tobytes()
    return str(np.asarray(leaf).dtype), np.asarray(leaf).tobytes()


def assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(expected), strict=True):
        assert np.shape(a) == np.shape(b), path
        assert raw(a) == raw(b), path
        assert isinstance(a, jax.Array) == isinstance(b, jax.Array), path
