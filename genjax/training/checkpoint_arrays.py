"""The leaves of a train state by name: what is stored of each, how it is asked for, and what is made of what came back.

Names are paths through the state, "params/net/params/Dense_0/kernel": keys of dicts, fields of dataclasses
and named tuples, indices of sequences. No class's name is in them.
"""

import urllib.parse
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from genjax.core.errors import UserError
from genjax.core.types import PyTree


def _escaped(key: Any) -> str:
    """One element of a path, with "/" and "." percent-encoded: they separate elements here and in orbax."""
    return urllib.parse.quote(jax.tree_util.keystr((key,), simple=True), safe=" []()-").replace(".", "%2E")


def named(state: PyTree) -> dict[str, Any]:
    """Name -> leaf, in the order of `jax.tree.leaves`.

    Raises:
        UserError: two leaves would have one name.
    """
    named = {"/".join(map(_escaped, path)): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
    if len(named) != len(jax.tree.leaves(state)):
        raise UserError("two arrays of the state have the same name: a dict has both a key 1 and a key '1'")
    return named


def kind(leaf: Any) -> dict[str, Any]:
    """The dtype and shape of an array, a `ShapeDtypeStruct` or a number, as the manifest holds them."""
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return {"dtype": str(leaf.dtype), "shape": list(leaf.shape)}


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def nest(named: Mapping[str, Any]) -> dict[str, Any]:
    """Dicts within dicts, one for each part of the names before the last."""
    tree: dict[str, Any] = {}
    for name, leaf in named.items():
        *folders, last = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    return tree


def for_orbax(named: Mapping[str, Any]) -> dict[str, Any]:
    """What orbax is given: typed keys as their data, numbers as arrays, no array of size zero."""
    raw = {name: jax.random.key_data(leaf) if _is_key(leaf) else leaf for name, leaf in named.items()}
    raw = {name: leaf if hasattr(leaf, "dtype") else np.asarray(leaf) for name, leaf in raw.items()}
    return nest({name: leaf for name, leaf in raw.items() if leaf.size > 0})


def _sharding(leaf: Any) -> jax.sharding.Sharding:
    return leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def request(leaf: Any) -> tuple[Any, Any]:
    """An array to read and how, for one leaf of the template: on its sharding, else on the first device."""
    if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        leaf = np.asarray(leaf)
        return leaf, ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype)
    sharding = _sharding(leaf)
    raw = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    kind = jax.ShapeDtypeStruct(raw.shape, raw.dtype, sharding=sharding)
    return kind, ocp.ArrayRestoreArgs(sharding=sharding, global_shape=kind.shape, dtype=kind.dtype)


def restored(tree: Any, name: str, leaf: Any) -> Any:
    """Picks `name` from what orbax read and gives it the type of the template's leaf."""
    if np.prod(np.shape(leaf)) == 0:
        zeros = np.zeros(leaf.shape, leaf.dtype)
        if isinstance(leaf, np.ndarray):
            return zeros
        return jax.make_array_from_callback(leaf.shape, _sharding(leaf), lambda index: zeros[index])
    for part in name.split("/"):
        tree = tree[part]
    if _is_key(leaf):
        return jax.random.wrap_key_data(tree, impl=jax.random.key_impl(jnp.empty((), leaf.dtype)))
    return tree if hasattr(leaf, "dtype") else type(leaf)(tree)


def differences(there: Mapping[str, Any], now: Mapping[str, Any], partial: bool) -> list[str]:
    """A line for each name that is not on both sides with the same `kind`.

    Args:
        there: kinds in the checkpoint, by name.
        now: kinds of the template.
        partial: whether the checkpoint may have more than the template.
    """
    words = lambda kind: f"{kind['dtype']}{tuple(kind['shape'])}"
    lines = []
    for name in [*now, *(n for n in there if n not in now and not partial)]:
        old, new = there.get(name), now.get(name)
        if old is None or new is None:
            lines.append(f"{name}: {'only now' if old is None else 'only in the checkpoint'}")
        elif old != new:
            lines.append(f"{name}: {words(old)} in the checkpoint, {words(new)} now")
    return lines
