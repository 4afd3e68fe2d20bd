"""Shared by the speed comparisons: machine settings, and alternating timing of the two libraries."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

CORES = len(os.sched_getaffinity(0))
ROOT = Path(__file__).parent.parent.parent
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


def configure() -> None:
    """Sets what launch/local.sh sets, for both libraries; call before importing JAX, restarts the program once.

    On CPUs one virtual device and one PyTorch thread per core, and an allocator that keeps freed memory; on GPUs no
    preallocation by JAX.
    """
    if torch.cuda.is_available():
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        torch.set_float32_matmul_precision("high")
    else:
        os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={CORES}")
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        torch.set_num_threads(CORES)
    if "MALLOC_ARENA_MAX" not in os.environ:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ.update(ALLOCATOR, PYTHONPATH=os.pathsep.join(paths))
        os.execv(sys.executable, [sys.executable, *sys.argv])


def alternate(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The value that each side returns in each round, alternating; the first round compiles and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            took = side()
            if number:
                seconds[name].append(took)
    return seconds
