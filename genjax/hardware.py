"""What a number was measured on, in words."""

import os
from pathlib import Path

import jax


def hardware() -> str:
    """The devices of the run and, on CPU, the processor and the cores it may use: "1 cpu device, 1 core of Xeon"."""
    kind, count = jax.devices()[0].device_kind, jax.device_count()
    words = f"{count} {kind} device{'s' if count > 1 else ''}"
    if jax.default_backend() != "cpu":
        return words
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{words}, {cores} core{'s' if cores > 1 else ''} of {processor()}"


def processor(listing: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, where the system lists it."""
    try:
        lines = listing.read_text().splitlines()
    except OSError:
        return "an unnamed processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join(names[0].split()) if names else "an unnamed processor"
