"""The command `genjax VERB [flags]`; from a clone, `python -m experiments VERB` and `./launch/local.sh VERB`.

It sets environment variables that the interpreter and JAX read when they start, and replaces itself by
`python -P -m PACKAGE.VERB`; -P keeps the current folder, which may have its own `experiments/`, from being imported.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genjax.training.variations import Trial

PACKAGE = __package__ or "experiments"  # genjax.experiments where it is installed
DEVICES = "--xla_force_host_platform_device_count"
QUEUES = ("sweep", "suite")  # their runs choose the number of devices
NOT_VERBS = ("cli", "dry_run", "used", "published", "decoding_speed_wavenet")
MALLOC = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


def verbs() -> list[str]:
    """The programs of this folder."""
    found = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
    return [name for name in found if name not in NOT_VERBS]


def command(verb: str, *words: str) -> list[str]:
    """The words that start a program as another process, wherever this package is installed."""
    return [sys.executable, "-P", "-m", PACKAGE, verb, *words]


def run_command(trial: "Trial", root: Path, verb: str = "train") -> list[str]:
    """The command of one run of a sweep or a suite."""
    from genjax.api import sweep  # here: the command itself starts with the standard library alone

    return command(verb, *sweep.arguments(trial, root, verb))


def environment(verb: str, given: Mapping[str, str], cores: int) -> dict[str, str]:
    """The environment of a program, as `launch/local.sh` sets it.

    On CPU: one virtual device per core, rounded down to a power of two and at most 8, and a malloc that keeps freed
    memory. Neither affects GPU and TPU.

    Args:
        verb: the program.
        given: the current environment; a number of devices in XLA_FLAGS is kept.
        cores: number of cores of this process.

    Returns:
        The new environment.
    """
    env = {**given, **MALLOC, "TF_CPP_MIN_LOG_LEVEL": given.get("TF_CPP_MIN_LOG_LEVEL", "2")}
    flags = given.get("XLA_FLAGS", "")
    if verb not in QUEUES and DEVICES not in flags:
        devices = min(8, 1 << (max(cores, 1).bit_length() - 1))
        env["XLA_FLAGS"] = f"{flags} {DEVICES}={devices}"
    if "." not in PACKAGE:  # a clone: child processes find the same code
        root = str(Path(__file__).parents[1])
        rest = [path for path in given.get("PYTHONPATH", "").split(os.pathsep) if path not in ("", root)]
        env["PYTHONPATH"] = os.pathsep.join([root, *rest])
    return env


def cpu_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(argv: Sequence[str] | None = None) -> None:
    """Replaces this process by the program that the first argument names."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in verbs():
        known = f"usage: genjax VERB [flags]; verbs: {', '.join(verbs())}; flags: genjax VERB --help"
        if words[:1] in ([], ["-h"], ["--help"], ["help"]):
            print(known)
            raise SystemExit(0 if words else 2)
        print(f"error: no verb '{words[0]}'; {known}", file=sys.stderr)
        raise SystemExit(2)
    env = environment(words[0], os.environ, cpu_cores())
    os.execve(sys.executable, [sys.executable, "-P", "-m", f"{PACKAGE}.{words[0]}", *words[1:]], env)


if __name__ == "__main__":
    main()
