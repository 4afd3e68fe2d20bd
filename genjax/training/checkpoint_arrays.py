"""The leaves of a train state by name: conversion for orbax, restore requests, and conversion back.

Names are paths through the state, such as "params/net/params/Dense_0/kernel": keys of dicts, fields of dataclasses
and named tuples, indices of sequences. They contain no class names.
"""

import urllib.parse
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from genjax.core.errors import UserError
from genjax.core.types import PyTree

# Leading parts of names that have changed since checkpoints were written with them: old -> new.
RENAMED = {"moments": "opt_state"}


def _escaped(key: Any) -> str:
    """One element of a path, with "/" and "." percent-encoded: they separate elements here and in orbax."""
    return urllib.parse.quote(jax.tree_util.keystr((key,), simple=True), safe=" []()-").replace(".", "%2E")


def named(state: PyTree) -> dict[str, Any]:
    """Name -> leaf, in the order of `jax.tree.leaves`.

    Raises:
        UserError: two leaves have the same name.
    """
    named = {"/".join(map(_escaped, path)): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
    if len(named) != len(jax.tree.leaves(state)):
        raise UserError("two arrays of the state have the same name: a dict has both a key 1 and a key '1'")
    return named


def kind(leaf: Any) -> dict[str, Any]:
    """The dtype and shape of an array, a `ShapeDtypeStruct` or a number, in the manifest's format."""
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return {"dtype": str(leaf.dtype), "shape": list(leaf.shape)}


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def nest(named: Mapping[str, Any]) -> dict[str, Any]:
    """A nested dict, one level for each part of the names."""
    tree: dict[str, Any] = {}
    for name, leaf in named.items():
        *folders, last = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    return tree


def for_orbax(named: Mapping[str, Any]) -> dict[str, Any]:
    """The tree that orbax saves: typed keys as their data, numbers as arrays, without arrays of size zero."""
    raw = {name: jax.random.key_data(leaf) if _is_key(leaf) else leaf for name, leaf in named.items()}
    raw = {name: leaf if hasattr(leaf, "dtype") else np.asarray(leaf) for name, leaf in raw.items()}
    return nest({name: leaf for name, leaf in raw.items() if leaf.size > 0})


def _sharding(leaf: Any) -> jax.sharding.Sharding:
    return leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def request(leaf: Any) -> tuple[Any, Any]:
    """Shape, dtype and restore arguments of a leaf of the template: on its sharding, else on the first device."""
    if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        leaf = np.asarray(leaf)
        return leaf, ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype)
    sharding = _sharding(leaf)
    raw = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    kind = jax.ShapeDtypeStruct(raw.shape, raw.dtype, sharding=sharding)
    return kind, ocp.ArrayRestoreArgs(sharding=sharding, global_shape=kind.shape, dtype=kind.dtype)


def restored(tree: Any, name: str, leaf: Any) -> Any:
    """Converts an array that orbax has read to the type of the template's leaf.

    Args:
        tree: nested dict of arrays from orbax.
        name: path of the array in `tree`; not looked up if the leaf has size zero.
        leaf: of the template: an array, a `ShapeDtypeStruct` or a number.

    Returns:
        A jax or NumPy array, a typed key array or a number, as the template's leaf.
    """
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


def stored_names(names: Iterable[str], there: Collection[str]) -> dict[str, str]:
    """The name under which a checkpoint stores each array: its own, or an older one by `RENAMED`.

    Args:
        names: of the template's arrays.
        there: names in the checkpoint.

    Returns:
        Name in the template -> name in the checkpoint; a name that the checkpoint lacks stays as it is.
    """
    names = list(names)
    stored = {name: name for name in names}
    for name in names:
        first, slash, rest = name.partition("/")
        for old in (old for old, new in RENAMED.items() if new == first):
            before = old + slash + rest
            if name not in there and before in there and before not in stored:
                stored[name] = before
    return stored


def differences(there: Mapping[str, Any], now: Mapping[str, Any], partial: bool) -> list[str]:
    """A line for each name that checkpoint and template do not share with the same dtype and shape.

    Args:
        there: `kind` of each array in the checkpoint, by name.
        now: `kind` of each array of the template, by name.
        partial: whether the checkpoint may hold arrays that the template lacks.

    Returns:
        The lines; empty if the template fits.
    """
    words = lambda kind: f"{kind['dtype']}{tuple(kind['shape'])}"
    lines = []
    for name in [*now, *(n for n in there if n not in now and not partial)]:
        old, new = there.get(name), now.get(name)
        if old is None or new is None:
            lines.append(f"{name}: {'not in the checkpoint' if old is None else 'only in the checkpoint'}")
        elif old != new:
            lines.append(f"{name}: {words(old)} in the checkpoint, {words(new)} expected")
    return lines
