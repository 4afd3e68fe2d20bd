"""What compiled work costs, and the table that says it beside the time it took.

FLOPs are counted twice: "counted" are those of products in the traced program over all devices, see `genjax.evaluation.flops`, and
what MFU is computed from; "compiled" are those of the compiler's own analysis of what runs on one device, times the
number of devices. The compiler counts element-wise work too, but the body of a loop once, and leaves out what it
replaces by a library's function.
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
    """Of one call.

    Attributes:
        flops: of products, over all devices.
        compiled: by the compiler's analysis, over all devices; None where it has none.
        seconds: that compiling took; much less where the compilation cache had it.
        bytes: most memory that one device held: in all so far where it says so, else of this program alone.
    """

    flops: int
    compiled: float | None
    seconds: float
    bytes: int


def compile_costs(jitted: Any, *args: Any, devices: int = 1) -> Costs:
    """Compiles a jitted function for arguments, with which it then runs without compiling again.

    Args:
        jitted: of `jax.jit`.
        *args: arrays.
        devices: that it runs on.

    Returns:
        Its costs, the memory known before it runs.
    """
    return compiled_costs(jitted.lower(*args), count_flops(jitted, *args), devices)


def compiled_costs(lowered: Any, flops: int, devices: int) -> Costs:
    """Compiles a lowered program; see `compile_costs`.

    Args:
        lowered: by `lower` of a jitted function.
        flops: of products in it, over all devices.
        devices: that it runs on.

    Returns:
        Its costs.
    """
    began = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - began
    analysis = program.cost_analysis() or {}
    compiled = analysis.get("flops")
    return Costs(flops, None if compiled is None else compiled * devices, seconds, program_bytes(program))


def device_peak() -> int | None:
    """The most bytes that one of this process's devices has held so far, where they say so (CPUs do not)."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stat["peak_bytes_in_use"] for stat in stats if "peak_bytes_in_use" in stat]
    return max(peaks, default=None)


def compute_dtype(part: Any) -> Dtype:
    """bfloat16 if any network within a tree of dataclasses computes in it, else float32."""
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
        name: what was done.
        seconds: for one unit, by round.
        items: in a unit.
        costs: of a call, or None if they are those of no single program.
        units: in a call.
    """

    name: str
    seconds: Sequence[float]
    items: float
    costs: Costs | None = None
    units: int = 1


def heading(experiment: Experiment, mesh: Mesh, params: Any) -> str:
    """What the table is of: parameters, batch, dtype, mesh and devices."""
    device, dtype = jax.devices()[0], compute_dtype(experiment.objective)
    best = peak(device.device_kind, dtype)
    known = f", peak {best / 1e12:g} TFLOP/s each" if best else ""
    return (
        f"{type(experiment.objective).__name__}, {count_params(params):,} parameters, batch "
        f"{experiment.batch_size}, {dtype}; mesh {dict(mesh.shape)} of {mesh.size} x {device.device_kind}{known}"
    )


def table(rows: Sequence[Row], unit: str, item: str, dtype: Dtype, devices: int) -> list[str]:
    """The rows below one another; the first is what the others' times are divided by.

    Args:
        rows: at least one.
        unit: what `seconds` are for: "step".
        item: what is counted: "items".
        dtype: that the model computes in.
        devices: that it runs on.

    Returns:
        Lines of text; "-" stands for what is not known.
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
