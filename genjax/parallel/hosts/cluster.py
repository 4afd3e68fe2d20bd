"""Detects index, count and coordinator of this process: from flags, or from a launcher's environment variables.

    flags          --coordinator=HOST:PORT --num_processes=N --process_id=K
    variables      JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID or JOB_COMPLETION_INDEX (Kubernetes)
    SLURM          within a step (srun): SLURM_STEP_NODELIST, SLURM_STEP_NUM_TASKS, SLURM_PROCID
    MPI            OMPI_COMM_WORLD_SIZE and _RANK, or PMI_SIZE and PMI_RANK
    TPU            TPU_WORKER_HOSTNAMES and TPU_WORKER_ID (Kubernetes), else the metadata server of a TPU VM;
                   slices by MEGASCALE_NUM_SLICES, MEGASCALE_SLICE_ID, MEGASCALE_COORDINATOR_ADDRESS

With one process, by flags or environment, nothing is detected and nothing is initialised.
"""

import os
import re
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from genjax.core.errors import UserError

PORT = 8471  # if the environment names a host without a port
METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"
ACCELERATORS = ("/dev/accel0", "/dev/vfio/0")  # a TPU VM has one of them

Environment = Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """The place of one process in a run.

    Attributes:
        coordinator: "HOST:PORT" of process 0; empty if unknown.
        count: number of processes.
        index: index of this process, 0 ... count - 1.
        found: source of this information, for messages.
        local: (index, count) among the processes of this machine, if known.
    """

    coordinator: str
    count: int
    index: int
    found: str
    local: tuple[int, int] | None = None

    @property
    def host(self) -> str:
        """Host of process 0."""
        return self.coordinator.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Port of process 0."""
        return int(self.coordinator.rpartition(":")[2])


def first_host(nodes: str) -> str:
    """The first host of a SLURM node list such as "node[003-010,12],other", "a,b" or "rack[1-2]n[07,9]"."""
    depth, end = 0, len(nodes)
    for at, letter in enumerate(nodes):
        depth += (letter == "[") - (letter == "]")
        if letter == "," and not depth:
            end = at
            break
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", nodes[:end])


def _variables(env: Environment) -> Place | None:
    if "JAX_NUM_PROCESSES" not in env:
        return None
    index = env.get("JAX_PROCESS_ID", env.get("JOB_COMPLETION_INDEX", "-1"))
    address = env.get("JAX_COORDINATOR_ADDRESS", "")
    address += f":{env.get('JAX_COORDINATOR_PORT', PORT)}" if address and ":" not in address else ""
    return Place(address, int(env["JAX_NUM_PROCESSES"]), int(index), "JAX_NUM_PROCESSES")


def _slurm(env: Environment) -> Place | None:
    needed = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
    if not all(name in env for name in needed):
        return None
    port = 61440 + int(env["SLURM_JOB_ID"]) % 4096  # jobs on one machine rarely collide
    tasks = re.match(r"\d+", env.get("SLURM_STEP_TASKS_PER_NODE", ""))
    local = (int(env["SLURM_LOCALID"]), int(tasks[0])) if tasks and "SLURM_LOCALID" in env else None
    address = f"{first_host(env['SLURM_STEP_NODELIST'])}:{port}"
    return Place(address, int(env["SLURM_STEP_NUM_TASKS"]), int(env["SLURM_PROCID"]), "SLURM", local)


def _mpi(env: Environment) -> Place | None:
    """Ranks; Open MPI 4 and older also give the host of mpirun, where process 0 runs."""
    if "OMPI_COMM_WORLD_SIZE" in env:
        local = None
        if "OMPI_COMM_WORLD_LOCAL_SIZE" in env:
            local = int(env["OMPI_COMM_WORLD_LOCAL_RANK"]), int(env["OMPI_COMM_WORLD_LOCAL_SIZE"])
        found = re.match(
            r"(\d+)\..*?(?:tcp://([^,:;]+)|tcp6://\[([^],]+))", env.get("OMPI_MCA_orte_hnp_uri", "")
        )
        address = ""
        if found:
            port = 61440 + int(found[1]) // 4096 % 4096
            address = f"{found[2]}:{port}" if found[2] else f"[{found[3]}]:{port}"
        count, index = env["OMPI_COMM_WORLD_SIZE"], env["OMPI_COMM_WORLD_RANK"]
        return Place(address, int(count), int(index), "Open MPI", local)
    if "PMI_SIZE" in env:
        return Place("", int(env["PMI_SIZE"]), int(env["PMI_RANK"]), "MPI")
    return None


def _metadata(name: str) -> str:
    request = urllib.request.Request(METADATA + name, headers={"Metadata-Flavor": "Google"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return str(reply.read().decode())


def _tpu(env: Environment, fetch: Callable[[str], str]) -> Place | None:
    """Workers of a TPU slice in their order; several slices are numbered one after the other."""
    hosts, worker = env.get("TPU_WORKER_HOSTNAMES"), env.get("TPU_WORKER_ID")
    if hosts is None or worker is None:
        if "TPU_SKIP_MDS_QUERY" in env or not any(Path(device).exists() for device in ACCELERATORS):
            return None
        try:
            hosts, worker = fetch("worker-network-endpoints"), fetch("agent-worker-number")
        except OSError:
            return None  # not a TPU
        hosts = ",".join(part.split(":")[-1] for part in hosts.split(","))  # "name:id:address" or a name
    names, slices = hosts.split(","), int(env.get("MEGASCALE_NUM_SLICES", 1))
    first = env.get("MEGASCALE_COORDINATOR_ADDRESS", names[0]).partition(":")[0]
    index = int(env.get("MEGASCALE_SLICE_ID", 0)) * len(names) + int(worker)
    return Place(f"{first}:{PORT}", len(names) * slices, index, "TPU")


def detect(env: Environment, fetch: Callable[[str], str] = _metadata) -> Place | None:
    """Reads the place of this process from the environment.

    Args:
        env: environment variables.
        fetch: reads an attribute from the metadata server of a TPU VM.

    Returns:
        The place of this process; None in a single-process run.

    Raises:
        UserError: a variable cannot be parsed.
    """
    try:
        found = _variables(env) or _slurm(env) or _mpi(env) or _tpu(env, fetch)
    except (ValueError, KeyError) as error:
        raise UserError(
            f"the environment variables of a multi-process run cannot be read ({error}): give "
            "coordinator=HOST:PORT, num_processes=N and process_id=K"
        ) from None
    return found if found is not None and found.count > 1 else None


def find(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    env: Environment = os.environ,
    fetch: Callable[[str], str] = _metadata,
) -> Place | None:
    """Finds the place of this process: by flags, and by the environment for flags that are None.

    Args:
        coordinator: "HOST:PORT" of process 0.
        num_processes: number of processes; 1 is a single-process run, whatever the environment.
        process_id: index of this process.
        env: environment variables.
        fetch: reads an attribute from the metadata server of a TPU VM.

    Returns:
        The place; None for a single-process run.

    Raises:
        UserError: flags that contradict each other, or too little information in flags and environment.
    """
    flags = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    given = {name for name, value in flags.items() if value is not None}
    if num_processes == 1 and not process_id:
        return None
    detected = detect(env, fetch) if len(given) < 3 else None
    if detected is None and not given:
        return None
    if detected is None and len(given) < 3:
        words = lambda names: " and ".join(f"{name}=..." for name in names)
        raise UserError(
            f"{words(sorted(given))} without {words(name for name in flags if name not in given)}: give all "
            "three (the environment does not contain the number of processes)"
        )
    detected = detected or Place("", 1, 0, "flags")
    place = replace(
        detected,
        coordinator=detected.coordinator if coordinator is None else coordinator,
        count=detected.count if num_processes is None else num_processes,
        index=detected.index if process_id is None else process_id,
    )
    return _check(place)


def _check(place: Place) -> Place:
    if not place.coordinator:
        raise UserError(
            f"{place.found} gives {place.count} processes but no address of process 0: give "
            "coordinator=HOST:PORT"
        )
    if not re.fullmatch(r"(\[[^]]+\]|[^:\s]+):\d{1,5}", place.coordinator) or not 0 < place.port < 65536:
        raise UserError(
            f"coordinator={place.coordinator} is not of the form HOST:PORT, with a port of 1 ... 65535"
        )
    if place.count < 1:
        raise UserError(f"num_processes={place.count} must be at least 1")
    if not 0 <= place.index < place.count:
        raise UserError(
            f"process_id={place.index} must be one of 0 ... {place.count - 1}: there are {place.count} processes"
        )
    return place
