"""Description of the hardware of a measurement, and its clock."""

import os
import time
from pathlib import Path

import jax


def hardware() -> str:
    """The devices of the run and, on CPU, the processor and its available cores: "1 cpu device, 1 core of Xeon"."""
    kind, count = jax.devices()[0].device_kind, jax.device_count()
    words = f"{count} {kind} device{'s' if count > 1 else ''}"
    if jax.default_backend() != "cpu":
        return words
    return f"{words}, {cores()} core{'s' if cores() > 1 else ''} of {processor()}"


def cores() -> int:
    """Number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_one_core() -> bool:
    """Whether the computation runs on a single CPU core."""
    return jax.default_backend() == "cpu" and cores() == 1 and jax.process_count() == 1


def busy() -> float:
    """Seconds for timing: CPU time of this process on a single core, else wall-clock time.

    On a single core both agree on an idle machine, and only CPU time is correct on a busy one.
    """
    return time.process_time() if on_one_core() else time.perf_counter()


def processor(listing: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, if the system lists it."""
    try:
        lines = listing.read_text().splitlines()
    except OSError:
        return "an unnamed processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join(names[0].split()) if names else "an unnamed processor"
