"""The compiled train step: partitioned by `jit`, or one replica per device by `pmap`."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from genjax.core.errors import UserError
from genjax.core.types import Batch, PyTree
from genjax.parallel.mesh import batch_sharding, batch_shards, with_mesh
from genjax.training.step import Step, repeat


def compile_step(
    step: Step,
    mesh: Mesh,
    state_shardings: PyTree,
    *,
    kind: Literal["jit", "pmap"] = "jit",
    stacked: bool = False,
    gather: Callable[[Mapping[str, Any], Batch], Batch] | None = None,
) -> Callable[..., Any]:
    """Compiles (state, global batch) -> (state, metrics); the state's buffers are donated.

    Args:
        step: from `make_train_step`; for "pmap" made with `axis="data"`.
        mesh: the devices.
        state_shardings: from `state_sharding`.
        kind: "jit" partitions the global computation; "pmap" runs one replica on each device.
        stacked: a call takes a stack of batches [n, b, ...] and runs n steps.
        gather: "jit" only: (arrays replicated on every device, indices) -> batch; the compiled function then takes
            indices in place of the batch, and the arrays as third argument.

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
                # XLA must not fuse the gather into the step: results are bit-identical to those of host batches.
                return step(state, jax.lax.optimization_barrier(seen))

            return (repeat(gathered) if stacked else gathered)(state, batch)

        given = (*shardings, everywhere)
        return jax.jit(with_mesh(call, mesh), in_shardings=given, out_shardings=out, donate_argnums=0)
    step = repeat(step) if stacked else step
    if kind == "jit":
        step = with_mesh(step, mesh)
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
