"""Settings under which XLA compiles quickly: tests compile for seconds and run for milliseconds.

They change how fast a compiled program is, not what it computes. A flag that this version of XLA does not know would
end the process, so that each is looked up in XLA's library first.
"""

import mmap
from pathlib import Path

import jaxlib

FLAGS = {"xla_cpu_use_fusion_emitters": "false", "xla_cpu_parallel_codegen_split_count": "1"}


def _known(flags: dict[str, str]) -> list[str]:
    """The flags that some library of jaxlib names."""
    found = set()
    for path in Path(jaxlib.__file__).parent.glob("*.so"):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as code:
            found |= {name for name in flags if code.find(name.encode()) >= 0}
    return [f"--{name}={value}" for name, value in flags.items() if name in found]


XLA_FLAGS = " ".join(_known(FLAGS))


def environment(devices: int) -> dict[str, str]:
    """Variables for a program that a test starts: so many virtual CPU devices; each program is compiled once."""
    return {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
