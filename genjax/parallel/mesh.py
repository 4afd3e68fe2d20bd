"""The device mesh with named axes, and the sharding of the batch.

One code path serves one CPU and a pod: arrays are global, `jit` partitions the computation. The batch is split over the
axes `data` and `fsdp`; `placement` shards the arrays of the train state.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from genjax.core.errors import UserError, nearest
from genjax.core.sharding_rules import AXES, BATCH, use_mesh
from genjax.core.types import Batch


def make_mesh(spec: str = "data:-1") -> Mesh:
    """Arranges all devices along named axes.

    Neighbours along the later axes are close in the interconnect. Several slices, connected by a slower network, are
    separated along the first axis only.

    Args:
        spec: "axis:size,axis:size"; one size may be -1: all remaining devices.

    Returns:
        The mesh, with axes of type Auto: shardings are inferred inside `jit`.

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
    devices = arrange(tuple(sizes.values()), jax.devices())
    return Mesh(devices, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def arrange(shape: tuple[int, ...], devices: Sequence[Any]) -> np.ndarray:
    """Orders devices so that those with most communication, along the last axes, are close in the interconnect.

    Args:
        shape: shape of the mesh.
        devices: prod(shape) devices; those of equal `slice_index` share a fast interconnect.

    Returns:
        Array [*shape] of devices.

    Raises:
        UserError: the number of slices does not divide the first axis.
    """
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices)
    if shape[0] % slices:
        raise UserError(f"the mesh's first axis has size {shape[0]}, which {slices} slices do not divide")
    within = (shape[0] // slices, *shape[1:])
    across = (slices,) + (1,) * (len(shape) - 1)
    return mesh_utils.create_hybrid_device_mesh(within, across, devices)


def batch_axes(mesh: Mesh) -> tuple[str, ...]:
    """The axes of the mesh that split the batch."""
    return tuple(axis for axis in BATCH if axis in mesh.shape)


def batch_shards(mesh: Mesh) -> int:
    """The number of shards of the batch."""
    return math.prod(mesh.shape[axis] for axis in batch_axes(mesh))


def batch_sharding(mesh: Mesh, stacked: bool = False) -> NamedSharding:
    """The sharding of a batch along its first axis; of stacked batches [steps, b, ...], along the second."""
    axes = batch_axes(mesh)
    return NamedSharding(mesh, P(None, axes) if stacked else P(axes))


def check_batch(size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises unless the global batch can be split evenly.

    Args:
        size: number of examples in the global batch.
        mesh: the device mesh.
        accumulate: number of micro-batches in a step.

    Raises:
        UserError: devices times micro-batches do not divide `size`; the message names the nearest valid sizes.
    """
    parts = batch_shards(mesh) * accumulate
    if size < 1 or size % parts:
        down, up = size // parts * parts, (size // parts + 1) * parts
        words = f"{batch_shards(mesh)} devices" + (f" x {accumulate} micro-batches" if accumulate > 1 else "")
        choice = f"{down} or {up}" if down else f"{up}"
        raise UserError(f"batch_size={size} cannot be split over {words}: use {choice}")


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh, stacked: bool = False) -> Batch:
    """Makes global arrays, sharded over the mesh, from the rows of each process.

    Args:
        batch: arrays [rows of this process, ...], or [steps, rows, ...] if `stacked`.
        mesh: the devices of all processes.
        stacked: whether an axis of steps precedes the rows.

    Returns:
        Global arrays, sharded along their rows.
    """
    sharding = batch_sharding(mesh, stacked)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def with_mesh(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Wraps a function, to be compiled, so that it is traced under the mesh; see `sharding_rules.use_mesh`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with use_mesh(mesh):
            return function(*args, **kwargs)

    return wrapped
