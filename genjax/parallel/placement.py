"""Where the arrays of a state go on a mesh.

Each array is placed by the first of the experiment's rules (path regex -> spec) that matches, else by the first of its
networks' own (`layout`), else its last axis is split over `tensor` and the largest of the others over `fsdp` (ZeRO-3 or
FSDP, Rajbhandari et al. 2020, arXiv:1910.02054). With `zero1` optimizer state and average are split over `data` too.
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

SMALLEST_SPLIT = 1024  # arrays with fewer elements are cheaper to keep everywhere than to gather
LARGE = 2**20  # elements from which on an array must be split where `fsdp` splits at all


@dataclass(frozen=True)
class Placement:
    """How the arrays of a state are placed.

    Attributes:
        mesh: the devices.
        rules: of the experiment: they must match something, and come out even.
        layout: of its networks: axes that the mesh lacks, or that do not divide an array, split nothing.
        zero1: split what only the optimizer and evaluations read over `data` as well.
    """

    mesh: Mesh
    rules: tuple[Rule, ...] = ()
    layout: tuple[Rule, ...] = ()
    zero1: bool = False

    def spec(self, path: str, shape: tuple[int, ...]) -> P:
        """Of one array.

        Raises:
            UserError: a rule of the experiment cannot split it.
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
        axes = list(self._own(path, shape))
        if self.zero1 and path.startswith(("moments/", "ema/")):
            self._add(axes, "data", shape)
        return P(*axes) if any(axes) else P()

    def _own(self, path: str, shape: tuple[int, ...]) -> list[str | None]:
        """By the networks' layout, or by sizes alone."""
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
        """Splits the largest dimension that is whole, the last of equals, unless the array is small."""
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
    """A sharding for each array of a state; optimizer state and averages follow their parameters.

    Args:
        state: arrays or `jax.ShapeDtypeStruct`s.
        mesh: the devices.
        rules: see `Placement`.
        layout: see `Placement`.
        zero1: see `Placement`.

    Returns:
        `NamedSharding`s in the shape of `state`.

    Raises:
        UserError: a rule matches no array, or asks for a split that does not come out even; or `fsdp` cannot split an
            array of more than a million elements, which nothing else splits either.
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
    """(bytes of the whole state, the most that one device of this process holds), read off the arrays themselves."""
    arrays = [leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)]
    held: dict[Any, int] = {}
    for array in arrays:
        for shard in array.addressable_shards:
            held[shard.device] = held.get(shard.device, 0) + shard.data.nbytes
    return sum(array.nbytes for array in arrays), max(held.values(), default=0)
