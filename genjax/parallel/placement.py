"""Sharding of the arrays of a train state over a mesh.

The first matching rule of the experiment (path regex -> spec) places an array, else the first matching rule of its
networks (`layout`); else its last axis is split over `tensor` and the largest other axis over `fsdp` (ZeRO-3 or FSDP,
Rajbhandari et al. 2020, arXiv:1910.02054). With `zero1`, optimizer state and EMA are split over `data` too.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from genjax.core.errors import UserError
from genjax.core.sharding_rules import Rule
from genjax.core.types import PyTree

SMALLEST_SPLIT = 1024  # arrays with fewer elements are replicated: cheaper than gathering them
LARGE = 2**20  # arrays with more elements must be split on a mesh with `fsdp`


@dataclass(frozen=True)
class Placement:
    """Computes the sharding of each array of a state.

    Attributes:
        mesh: the device mesh.
        rules: the experiment's rules: each must match an array and divide its dimensions.
        layout: rules of its networks: axes that the mesh lacks, or that do not divide a dimension, are ignored.
        zero1: also split optimizer state and EMA over `data`.
    """

    mesh: Mesh
    rules: tuple[Rule, ...] = ()
    layout: tuple[Rule, ...] = ()
    zero1: bool = False

    def spec(self, path: str, shape: tuple[int, ...]) -> P:
        """The partition spec of the array of one path and shape.

        Raises:
            UserError: a rule of the experiment does not divide its dimensions.
        """
        for rule in self.rules:
            if _matches(rule, path, shape):
                spec = (None,) * (len(shape) - len(rule.spec)) + rule.spec
                for size, axis in zip(shape, spec, strict=True):
                    if axis is not None and (axis not in self.mesh.shape or size % self.mesh.shape[axis]):
                        raise UserError(
                            f"rule '{rule.path}' cannot split {path} {shape} over mesh axis '{axis}'"
                        )
                return P(*spec)
        axes = list(self._default(path, shape))
        if self.zero1 and path.startswith(("opt_state/", "ema/")):
            self._add(axes, "data", shape)
        return P(*axes) if any(axes) else P()

    def _default(self, path: str, shape: tuple[int, ...]) -> list[str | None]:
        """The axes by the layout of the networks, else by the sizes of the dimensions."""
        axes: list[str | None] = [None] * len(shape)
        rule = next((rule for rule in self.layout if _matches(rule, path, shape)), None)
        if rule is not None:
            first = len(shape) - len(rule.spec)
            for index, axis in enumerate(rule.spec, first):
                axes[index] = axis if axis is not None and self._splits(axis, shape[index]) else None
        elif len(shape) > 1 and math.prod(shape) >= SMALLEST_SPLIT and self._splits("tensor", shape[-1]):
            axes[-1] = "tensor"
        if "fsdp" not in axes:
            self._add(axes, "fsdp", shape)
        return axes

    def _splits(self, axis: str, size: int) -> bool:
        ways = self.mesh.shape.get(axis, 1)
        return ways > 1 and size % ways == 0

    def _add(self, axes: list[str | None], axis: str, shape: tuple[int, ...]) -> None:
        """Splits the largest unsplit dimension (the last one of equals), unless the array is small."""
        free = [i for i, size in enumerate(shape) if axes[i] is None and self._splits(axis, size)]
        if free and math.prod(shape) >= SMALLEST_SPLIT:
            axes[max(free, key=lambda i: (shape[i], i))] = axis


def _matches(rule: Rule, path: str, shape: tuple[int, ...]) -> bool:
    return len(rule.spec) <= len(shape) and re.search(rule.path, path) is not None


def state_sharding(
    state: PyTree,
    mesh: Mesh,
    rules: tuple[Rule, ...] = (),
    layout: tuple[Rule, ...] = (),
    zero1: bool = False,
) -> PyTree:
    """The sharding of each array of a state; optimizer state and EMA are sharded as their parameters.

    Args:
        state: arrays or `jax.ShapeDtypeStruct`s.
        mesh: the device mesh.
        rules: see `Placement`.
        layout: see `Placement`.
        zero1: see `Placement`.

    Returns:
        `NamedSharding`s in the shape of `state`.

    Raises:
        UserError: a rule matches no array or does not divide a dimension; or on a mesh with `fsdp` an array of more
            than 2^20 elements cannot be split.
    """
    leaves = jax.tree_util.tree_leaves_with_path(state)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    for rule in rules:
        if not any(re.search(rule.path, name) for name in names):
            raise UserError(f"sharding rule '{rule.path}' matches no array; the first are {names[:3]}")
    placement = Placement(mesh, rules, layout, zero1)
    specs = [placement.spec(name, leaf.shape) for name, (_, leaf) in zip(names, leaves, strict=True)]
    for name, spec, (_, leaf) in zip(names, specs, leaves, strict=True):
        if mesh.shape.get("fsdp", 1) > 1 and math.prod(leaf.shape) > LARGE and not any(spec):
            raise UserError(
                f"no axis of {name} {leaf.shape} is divisible by fsdp:{mesh.shape['fsdp']}: every device would hold "
                "all of it; use another mesh, or change the width"
            )
    return jax.tree.unflatten(jax.tree.structure(state), [NamedSharding(mesh, spec) for spec in specs])


def bytes_held(state: PyTree) -> tuple[int, int]:
    """(bytes of the whole state, maximum bytes on one device of this process), measured on the arrays."""
    arrays = [leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)]
    held: dict[Any, int] = {}
    for array in arrays:
        for shard in array.addressable_shards:
            held[shard.device] = held.get(shard.device, 0) + shard.data.nbytes
    return sum(array.nbytes for array in arrays), max(held.values(), default=0)
