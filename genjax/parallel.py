"""Devices: a mesh with named axes, rules that place arrays on it, and the compiled step.

One code path serves one CPU and a pod: arrays are global, `jit` partitions the computation. The batch is
split over the axes `data` and `fsdp`; parameters, optimizer state and their average are replicated, or split over
`fsdp` (ZeRO-3 / FSDP, Rajbhandari et al. 2020, arXiv:1910.02054), or placed by rules (path regex -> spec).
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from genjax.errors import UserError, nearest
from genjax.step import Step, repeat
from genjax.types import Batch, PyTree

AXES = ("data", "fsdp", "tensor", "sequence")
BATCH_AXES = ("data", "fsdp")
SMALLEST_SPLIT = 1024  # arrays with fewer elements are cheaper to keep everywhere than to gather


@dataclass(frozen=True)
class Rule:
    """Where arrays go whose path matches.

    Attributes:
        path: regular expression, searched for in "params/net/params/Dense_0/kernel".
        spec: mesh axis or None for each of the array's LAST dimensions; leading ones are not split.
    """

    path: str
    spec: tuple[str | None, ...]


def make_mesh(spec: str = "data:-1") -> Mesh:
    """Arranges all devices along named axes.

    Args:
        spec: "axis:size,axis:size"; one size may be -1, which takes the devices that are left.

    Returns:
        The mesh; its axes are of type Auto: shardings are inferred inside `jit`.

    Raises:
        UserError: unknown axis, unreadable size, or sizes that do not multiply to the number of devices.
    """
    sizes: dict[str, int] = {}
    for part in spec.split(","):
        name, _, size = part.strip().partition(":")
        if name not in AXES:
            raise UserError(f"unknown mesh axis '{name}' in '{spec}': {nearest(name, AXES)}")
        if not re.fullmatch(r"-1|[1-9]\d*", size) or name in sizes:
            raise UserError(f"mesh '{spec}' is not of the form 'data:4,fsdp:2', with each axis once")
        sizes[name] = int(size)
    count, known = jax.device_count(), math.prod(size for size in sizes.values() if size > 0)
    free = [name for name, size in sizes.items() if size < 0]
    if len(free) == 1 and count % known == 0:
        sizes[free[0]] = count // known
    elif free or known != count:
        raise UserError(f"mesh '{spec}' does not fit {count} devices")
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def batch_axes(mesh: Mesh) -> tuple[str, ...]:
    """The mesh's axes that the batch is split over."""
    return tuple(axis for axis in BATCH_AXES if axis in mesh.shape)


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts the batch is split."""
    return math.prod(mesh.shape[axis] for axis in batch_axes(mesh))


def batch_sharding(mesh: Mesh, stacked: bool = False) -> NamedSharding:
    """Splits the first axis, or the second of a stack of batches."""
    axes = batch_axes(mesh)
    return NamedSharding(mesh, P(None, axes) if stacked else P(axes))


def check_batch(size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Refuses a global batch that cannot be split evenly.

    Args:
        size: examples in the global batch.
        mesh: the devices.
        accumulate: micro-batches in a step.

    Raises:
        UserError: devices times micro-batches do not divide `size`; names the sizes on either side.
    """
    parts = batch_shards(mesh) * accumulate
    if size < 1 or size % parts:
        down, up = size // parts * parts, (size // parts + 1) * parts
        words = f"{batch_shards(mesh)} devices" + (f" x {accumulate} micro-batches" if accumulate > 1 else "")
        choice = f"{down} or {up}" if down else f"{up}"
        raise UserError(f"batch_size={size} cannot be split over {words}: use {choice}")


def _spec(path: str, shape: tuple[int, ...], mesh: Mesh, rules: tuple[Rule, ...]) -> P:
    """The first rule that matches, else the largest axis that `fsdp` divides, else nothing."""
    for rule in rules:
        if re.search(rule.path, path) and len(rule.spec) <= len(shape):
            spec = (None,) * (len(shape) - len(rule.spec)) + rule.spec
            for size, axis in zip(shape, spec, strict=True):
                if axis is not None and (axis not in mesh.shape or size % mesh.shape[axis]):
                    raise UserError(f"rule '{rule.path}' cannot split {path} {shape} over mesh axis '{axis}'")
            return P(*spec)
    ways = mesh.shape.get("fsdp", 1)
    splittable = [size for size in shape if size % ways == 0]
    if ways == 1 or math.prod(shape) < SMALLEST_SPLIT or not splittable:
        return P()
    widest = max(index for index, size in enumerate(shape) if size == max(splittable))
    return P(*(("fsdp" if index == widest else None) for index in range(len(shape))))


def state_sharding(state: PyTree, mesh: Mesh, rules: tuple[Rule, ...] = ()) -> PyTree:
    """A sharding for each array of a state; optimizer state and averages follow their parameters.

    Args:
        state: arrays or `jax.ShapeDtypeStruct`s.
        mesh: the devices.
        rules: the first whose path matches places the array; where none does, `fsdp` splits.

    Returns:
        `NamedSharding`s in the shape of `state`.

    Raises:
        UserError: a rule matches no array, or asks for a split that does not come out even.
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]
    for rule in rules:
        if not any(re.search(rule.path, name) for name in names):
            raise UserError(f"sharding rule '{rule.path}' matches no array; the first are {names[:3]}")

    def place(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, _spec(name, leaf.shape, mesh, rules))

    return jax.tree_util.tree_map_with_path(place, state)


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh, stacked: bool = False) -> Batch:
    """Turns this process's rows into global arrays split over the mesh.

    Args:
        batch: arrays [rows of this process, ...], or [steps, rows, ...] if `stacked`.
        mesh: the devices of all processes.
        stacked: whether a first axis of steps comes before the rows.

    Returns:
        Global arrays, split along their rows.
    """
    sharding = batch_sharding(mesh, stacked)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def compile_step(
    step: Step,
    mesh: Mesh,
    state_shardings: PyTree,
    *,
    kind: Literal["jit", "pmap"] = "jit",
    stacked: bool = False,
) -> Callable[..., Any]:
    """Compiles (state, global batch) -> (state, metrics); the state's buffers are reused.

    Args:
        step: from `make_train_step`; for "pmap" made with `axis="data"`.
        mesh: the devices.
        state_shardings: from `state_sharding`.
        kind: "jit" partitions the global computation; "pmap" runs one replica on each device.
        stacked: the call takes a stack of batches and makes one step with each.

    Returns:
        The compiled function; state and metrics have the same global form for both kinds.

    Raises:
        UserError: "pmap" with parameters split over the mesh.
    """
    step = repeat(step) if stacked else step
    if kind == "jit":
        shardings = (state_shardings, batch_sharding(mesh, stacked))
        out = (state_shardings, NamedSharding(mesh, P()))
        return jax.jit(step, in_shardings=shardings, out_shardings=out, donate_argnums=0)
    if batch_shards(mesh) != mesh.shape.get("data"):
        raise UserError("compile=pmap replicates parameters: use a mesh with the axis 'data' alone")
    rows = 1 if stacked else 0
    replicas = jax.pmap(
        step,
        "data",
        in_axes=(None, rows),
        out_axes=(None, None),
        donate_argnums=0,
        devices=list(mesh.devices.flat),
    )
    count = mesh.size

    def split(x: Any) -> Any:
        return x.reshape(*x.shape[:rows], count, x.shape[rows] // count, *x.shape[rows + 1 :])

    return lambda state, batch: replicas(state, jax.tree.map(split, batch))
