"""Where arrays lie on a mesh: what networks say of their parameters and of what flows through them.

A mesh has some of the axes

    data      the batch is split; parameters are everywhere
    fsdp      the batch is split, and so are parameters, which are gathered where they are used
    tensor    the features of a layer are split (Shoeybi et al. 2019, arXiv:1909.08053)
    sequence  the positions of a sequence are split; keys and values are gathered (Korthikanti et al. 2022,
              arXiv:2205.05198, split them between the tensor-parallel products only)
    expert    a mixture's experts are split

and a network names all that it could use: axes that the mesh of a run lacks split nothing. Inside a compiled function
`on(mesh)` makes the mesh known to `constrain`; elsewhere `constrain` is the identity, so that networks need no mesh.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from genjax.core.types import Array

AXES = ("data", "fsdp", "tensor", "sequence", "expert")
BATCH = ("data", "fsdp")  # the axes that the batch is split over
Axes = str | tuple[str, ...] | None


@dataclass(frozen=True)
class Rule:
    """Where arrays go whose path matches.

    Attributes:
        path: regular expression, searched for in "params/net/params/Dense_0/kernel".
        spec: mesh axis or None for each of the array's LAST dimensions; leading ones are not split.
    """

    path: str
    spec: tuple[str | None, ...]


def on(mesh: Mesh) -> contextlib.AbstractContextManager[Any]:
    """Makes a mesh known to `constrain`, within a function that is being compiled."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def ways(axes: Axes) -> int:
    """Into how many parts the mesh at hand splits what lies along `axes`; 1 where there is none."""
    return _ways(jax.sharding.get_abstract_mesh(), axes)


def _ways(mesh: AbstractMesh, axes: Axes) -> int:
    names = (axes,) if isinstance(axes, str) else axes or ()
    return math.prod(mesh.shape.get(name, 1) for name in names)


def shares(axes: Axes, *sizes: int) -> int:
    """`ways` where they divide all the sizes, else 1."""
    number = ways(axes)
    return number if all(size % number == 0 for size in sizes) else 1


def constrain(x: Array, *spec: Axes) -> Array:
    """Fixes how an array is split over the mesh at hand, and its gradient likewise.

    Args:
        x: of any dtype.
        *spec: axes for each of its dimensions. An axis that the mesh lacks, or that does not divide the dimension,
            splits nothing; a mesh without any axis but `data` leaves all to the compiler.

    Returns:
        x itself.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or all(name == "data" for name, size in mesh.shape.items() if size > 1):
        return x

    def kept(size: int, axes: Axes) -> Axes:
        names = (axes,) if isinstance(axes, str) else axes or ()
        there = tuple(name for name in names if name in mesh.shape)
        return there if there and size % _ways(mesh, there) == 0 else None

    parts = (kept(size, axes) for size, axes in zip(x.shape, spec, strict=True))
    return jax.lax.with_sharding_constraint(x, P(*parts))


def shared(x: Array) -> Array:
    """Noise, or whatever is made within a step: its first axis is split over the devices as the batch is.

    Without this the compiler may make all of it, and what becomes of it, on every device.

    Args:
        x: [b, ...]; it stays as it is where the devices do not divide b, or without a mesh.

    Returns:
        x itself.
    """
    mesh = jax.sharding.get_abstract_mesh()
    names = tuple(name for name in BATCH if name in mesh.shape)
    if mesh.empty or not names or x.shape[0] % _ways(mesh, names):
        return x
    return jax.lax.with_sharding_constraint(x, P(names))


def gathered(kernel: Array, split: int = -1) -> Array:
    """A parameter where it is used: gathered over `fsdp`, so that the compiler does not move activations instead.

    Args:
        kernel: of any shape.
        split: the dimension that stays split over `tensor`.

    Returns:
        kernel itself.
    """
    axes: list[Axes] = [None] * kernel.ndim
    axes[split] = "tensor"
    return constrain(kernel, *axes)


def network_rules(part: Any) -> tuple[Rule, ...]:
    """The rules of all networks within a tree of dataclasses: their attribute `layout`, each rule once, in order."""
    return tuple(dict.fromkeys(_found(part)))


def _found(part: Any) -> Iterator[Rule]:
    if isinstance(part, tuple | list):
        for item in part:
            yield from _found(item)
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        yield from getattr(type(part), "layout", ())
        for field in dataclasses.fields(part):
            yield from _found(getattr(part, field.name, None))
