"""Devices: a mesh with named axes, rules that place arrays on it, and the compiled step.

One code path serves one CPU and a pod: arrays are global, `jit` partitions the computation. The batch is split over the
axes `data` and `fsdp`. Each array of the state is placed by the first of the experiment's rules (path regex -> spec)
that matches, else by the first of its networks' own (`layout`), else its last axis is split over `tensor` and the
largest of the others over `fsdp` (ZeRO-3 / FSDP, Rajbhandari et al. 2020, arXiv:1910.02054). With `zero1` optimizer
state and average are split over `data` as well.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from genjax.errors import UserError, nearest
from genjax.layout import AXES, BATCH, Rule, on
from genjax.step import Step, repeat
from genjax.types import Batch, PyTree

SMALLEST_SPLIT = 1024  # arrays with fewer elements are cheaper to keep everywhere than to gather
LARGE = 2**20  # elements from which on an array must be split where `fsdp` splits at all


def make_mesh(spec: str = "data:-1") -> Mesh:
    """Arranges all devices along named axes.

    Neighbours along the later axes are near each other in the machine. Devices in several slices, which a slower
    network joins, are told apart along the first axis alone.

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
    devices = arrange(tuple(sizes.values()), jax.devices())
    return Mesh(devices, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def arrange(shape: tuple[int, ...], devices: Sequence[Any]) -> np.ndarray:
    """Orders devices so that those that talk most, along the last axes, are near each other.

    Args:
        shape: of the mesh.
        devices: as many as it has places; `slice_index` says which of them a fast network joins.

    Returns:
        [*shape] devices.

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
    """The mesh's axes that the batch is split over."""
    return tuple(axis for axis in BATCH if axis in mesh.shape)


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


def within(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """The function, to be compiled, with the mesh known to the networks in it; see `layout.constrain`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with on(mesh):
            return function(*args, **kwargs)

    return wrapped


def compile_step(
    step: Step,
    mesh: Mesh,
    state_shardings: PyTree,
    *,
    kind: Literal["jit", "pmap"] = "jit",
    stacked: bool = False,
    gather: Callable[[Mapping[str, Any], Batch], Batch] | None = None,
) -> Callable[..., Any]:
    """Compiles (state, global batch) -> (state, metrics); the state's buffers are reused.

    Args:
        step: from `make_train_step`; for "pmap" made with `axis="data"`.
        mesh: the devices.
        state_shardings: from `state_sharding`.
        kind: "jit" partitions the global computation; "pmap" runs one replica on each device.
        stacked: the call takes a stack of batches and makes one step with each.
        gather: "jit" only: (arrays on every device, what the call gets as batch) -> the batch that the step sees; the
            compiled function takes the arrays as third argument.

    Returns:
        The compiled function; state and metrics have the same global form for both kinds.

    Raises:
        UserError: "pmap" with parameters split over the mesh.
    """
    everywhere = NamedSharding(mesh, P())
    shardings, out = (state_shardings, batch_sharding(mesh, stacked)), (state_shardings, everywhere)
    if gather is not None:

        def call(state: Any, batch: Batch, arrays: Mapping[str, Any]) -> Any:
            def gathered(state: Any, batch: Batch) -> Any:
                seen = jax.lax.with_sharding_constraint(gather(arrays, batch), batch_sharding(mesh))
                # The step is then optimised by itself, and gives the bits that it gives for a batch from outside.
                return step(state, jax.lax.optimization_barrier(seen))

            return (repeat(gathered) if stacked else gathered)(state, batch)

        given = (*shardings, everywhere)
        return jax.jit(within(call, mesh), in_shardings=given, out_shardings=out, donate_argnums=0)
    step = repeat(step) if stacked else step
    if kind == "jit":
        step = within(step, mesh)
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
