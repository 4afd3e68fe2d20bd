"""Sharding rules of networks: how parameters and activations are split over the axes of a device mesh.

A mesh has some of the axes

    data      the batch is split; parameters are replicated
    fsdp      batch and parameters are split; parameters are gathered where they are used
    tensor    the features of a layer are split (Shoeybi et al. 2019, arXiv:1909.08053)
    sequence  the positions of a sequence are split; keys and values are gathered (Korthikanti et al. 2022,
              arXiv:2205.05198, split them between the tensor-parallel products only)
    expert    the experts of a mixture of experts are split

Rules may name any of them: axes that the mesh of a run lacks are ignored. Inside `use_mesh(mesh)`, while a function is
traced, `constrain` applies to that mesh; elsewhere it is the identity, so that networks work without a mesh.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from genjax.core.types import Array

AXES = ("data", "fsdp", "tensor", "sequence", "expert")
BATCH = ("data", "fsdp")  # axes that split the batch
Axes = str | tuple[str, ...] | None


@dataclass(frozen=True)
class Rule:
    """Placement of the arrays whose path matches.

    Attributes:
        path: regular expression, searched in e.g. "params/net/params/Dense_0/kernel".
        spec: mesh axis or None for each of the array's LAST dimensions; leading dimensions are not split.
    """

    path: str
    spec: tuple[str | None, ...]


@runtime_checkable
class HasLayout(Protocol):
    """A network with sharding rules for its parameters."""

    layout: ClassVar[tuple[Rule, ...]]


def use_mesh(mesh: Mesh) -> contextlib.AbstractContextManager[Any]:
    """Context in which `constrain` and its like apply to `mesh`, while a function is traced."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def num_splits(axes: Axes) -> int:
    """The number of parts into which the current mesh splits a dimension along `axes`; 1 without a mesh."""
    return _num_splits(jax.sharding.get_abstract_mesh(), axes)


def _num_splits(mesh: AbstractMesh, axes: Axes) -> int:
    names = (axes,) if isinstance(axes, str) else axes or ()
    return math.prod(mesh.shape.get(name, 1) for name in names)


def even_splits(axes: Axes, *sizes: int) -> int:
    """`num_splits(axes)` if it divides all sizes, else 1."""
    number = num_splits(axes)
    return number if all(size % number == 0 for size in sizes) else 1


def constrain(x: Array, *spec: Axes) -> Array:
    """Constrains the sharding of an array, and of its gradient, on the current mesh.

    Args:
        x: array of any shape and dtype.
        *spec: mesh axes for each of its dimensions. An axis that the mesh lacks, or that does not divide the
            dimension, is ignored; on a mesh with `data` alone the compiler chooses the sharding.

    Returns:
        x, with the constraint.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or all(name == "data" for name, size in mesh.shape.items() if size > 1):
        return x

    def usable(size: int, axes: Axes) -> Axes:
        names = (axes,) if isinstance(axes, str) else axes or ()
        present = tuple(name for name in names if name in mesh.shape)
        return present if present and size % _num_splits(mesh, present) == 0 else None

    parts = (usable(size, axes) for size, axes in zip(x.shape, spec, strict=True))
    return jax.lax.with_sharding_constraint(x, P(*parts))


def shard_rows(x: Array) -> Array:
    """Splits the first axis of an array made within a step, such as noise, over the devices as the batch is split.

    Without this the compiler may compute the whole array, and all that depends on it, on every device.

    Args:
        x: [b, ...]; unchanged where the devices do not divide b, or without a mesh.

    Returns:
        x, with the constraint.
    """
    mesh = jax.sharding.get_abstract_mesh()
    names = tuple(name for name in BATCH if name in mesh.shape)
    if mesh.empty or not names or x.shape[0] % _num_splits(mesh, names):
        return x
    return jax.lax.with_sharding_constraint(x, P(names))


def gather_parameter(kernel: Array, split: int = -1) -> Array:
    """Gathers a parameter over `fsdp` where it is used, so that the compiler does not move activations instead.

    Args:
        kernel: parameter of any shape.
        split: the dimension that stays split over `tensor`.

    Returns:
        kernel, with the constraint.
    """
    axes: list[Axes] = [None] * kernel.ndim
    axes[split] = "tensor"
    return constrain(kernel, *axes)


def network_rules(part: Any) -> tuple[Rule, ...]:
    """Collects the class attribute `layout` of all networks in a tree of dataclasses: each rule once, in order."""
    return tuple(dict.fromkeys(_found(part)))


def _found(part: Any) -> Iterator[Rule]:
    if isinstance(part, tuple | list):
        for item in part:
            yield from _found(item)
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        yield from part.layout if isinstance(part, HasLayout) else ()
        for field in dataclasses.fields(part):
            yield from _found(getattr(part, field.name, None))
