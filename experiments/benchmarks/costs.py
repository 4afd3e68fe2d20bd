"""Costs of compiled programs, and a table of costs and times.

FLOPs are counted twice. GFLOP/UNIT counts matrix products and convolutions of the traced program over all devices, see
`genjax.evaluation.flops`; MFU is computed from it. "compiled" is the compiler's cost analysis of one device's program
times the number of devices: it includes element-wise operations, but counts loop bodies once and omits library calls.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from genjax.evaluation.chips import Dtype, peak, utilisation
from genjax.evaluation.costs import program_bytes
from genjax.evaluation.evaluate import count_params
from genjax.evaluation.flops import count_flops
from genjax.training.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Costs:
    """Costs of one call.

    Attributes:
        flops: FLOPs of matrix products and convolutions over all devices.
        compiled: FLOPs of the compiler's cost analysis over all devices; None if unavailable.
        seconds: compilation time; short on a hit of the compilation cache.
        bytes: memory of the compiled program on one device.
    """

    flops: int
    compiled: float | None
    seconds: float
    bytes: int


def compile_costs(jitted: Any, *args: Any, devices: int = 1) -> Costs:
    """Compiles a jitted function for arguments; later calls with their shapes do not compile again.

    Args:
        jitted: result of `jax.jit`.
        *args: its arguments.
        devices: number of devices that it runs on.

    Returns:
        Its costs.
    """
    return compiled_costs(jitted.lower(*args), count_flops(jitted, *args), devices)


def compiled_costs(lowered: Any, flops: int, devices: int) -> Costs:
    """Compiles a lowered program; see `compile_costs`.

    Args:
        lowered: result of `lower` of a jitted function.
        flops: FLOPs of its matrix products and convolutions, over all devices.
        devices: number of devices that it runs on.

    Returns:
        Its costs.
    """
    started = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - started
    analysis = program.cost_analysis() or {}
    compiled = analysis.get("flops")
    return Costs(flops, None if compiled is None else compiled * devices, seconds, program_bytes(program))


def device_peak() -> int | None:
    """Peak bytes in use over this process's devices so far; None if unreported (CPUs)."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stat["peak_bytes_in_use"] for stat in stats if "peak_bytes_in_use" in stat]
    return max(peaks, default=None)


def compute_dtype(part: Any) -> Dtype:
    """bfloat16 if any network in a tree of dataclasses computes in it, else float32."""
    return "bfloat16" if "bfloat16" in _dtypes(part) else "float32"


def _dtypes(part: Any) -> Iterator[str]:
    if isinstance(part, tuple | list):
        for item in part:
            yield from _dtypes(item)
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name, None)
            if field.name == "dtype" and isinstance(value, str):
                yield value
            yield from _dtypes(value)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: label.
        seconds: seconds per unit, by round.
        items: items per unit.
        costs: costs of a call; None if it is not a single program.
        units: units per call.
    """

    name: str
    seconds: Sequence[float]
    items: float
    costs: Costs | None = None
    units: int = 1


def heading(experiment: Experiment, mesh: Mesh, params: Any) -> str:
    """Heading of a table: parameters, batch size, dtype, mesh and devices.

    Args:
        experiment: the experiment.
        mesh: its device mesh.
        params: its parameters.

    Returns:
        One line of text.
    """
    device, dtype = jax.devices()[0], compute_dtype(experiment.objective)
    best = peak(device.device_kind, dtype)
    known = f", peak {best / 1e12:g} TFLOP/s each" if best else ""
    return (
        f"{type(experiment.objective).__name__}, {count_params(params):,} parameters, batch "
        f"{experiment.batch_size}, {dtype}; mesh {dict(mesh.shape)} of {mesh.size} x {device.device_kind}{known}"
    )


def table(rows: Sequence[Row], unit: str, item: str, dtype: Dtype, devices: int) -> list[str]:
    """Formats rows as a table; "x first" is the time relative to the first row.

    Args:
        rows: at least one.
        unit: name of the unit of `seconds`, e.g. "step".
        item: name of the items, e.g. "examples".
        dtype: compute dtype of the model.
        devices: number of devices that it runs on.

    Returns:
        Lines of text; "-" for unknown values.
    """
    first, whole = float(np.median(rows[0].seconds)), device_peak()
    kind, counted = jax.devices()[0].device_kind, "device" if whole else "program"
    names = (f"ms/{unit}", f"{item}/s", "x first", f"GFLOP/{unit}", "compiled", "GFLOP/s", "MFU", "compile s")
    lines = [f"{'':28}" + "".join(f" {name:>12}" for name in (*names, f"{counted} MB"))]
    for row in rows:
        took = float(np.median(row.seconds))
        cells = [f"{1e3 * took:.3f}", f"{row.items / took:.1f}", f"{took / first:.3f}"]
        if row.costs is not None:
            flops = row.costs.flops / row.units
            compiled, used = row.costs.compiled, utilisation(flops, took, kind, devices, dtype)
            cells += [f"{flops / 1e9:.3f}"]
            cells += ["-" if compiled is None or row.units > 1 else f"{compiled / 1e9:.3f}"]
            cells += [f"{flops / took / 1e9:.1f}", "-" if used is None else f"{used:.1%}"]
            cells += [f"{row.costs.seconds:.2f}", f"{(whole or row.costs.bytes) / 1e6:.1f}"]
        lines.append(f"{row.name:28}" + "".join(f" {cell:>12}" for cell in cells))
    return lines
