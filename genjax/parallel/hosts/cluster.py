"""Where this process stands among those of a run: from flags, or from what a launcher has put in the environment.

    flags          --coordinator=HOST:PORT --num_processes=N --process_id=K
    variables      JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID or JOB_COMPLETION_INDEX (Kubernetes)
    SLURM          of a step (srun): SLURM_STEP_NODELIST, SLURM_STEP_NUM_TASKS, SLURM_PROCID
    MPI            OMPI_COMM_WORLD_SIZE and _RANK, or PMI_SIZE and PMI_RANK
    TPU            TPU_WORKER_HOSTNAMES and TPU_WORKER_ID (Kubernetes), else the metadata server of a TPU VM;
                   slices by MEGASCALE_NUM_SLICES, MEGASCALE_SLICE_ID, MEGASCALE_COORDINATOR_ADDRESS

One process, or an environment that speaks of one, is no cluster: nothing is initialised then.
"""

import os
import re
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from genjax.core.errors import UserError

PORT = 8471  # where the environment names a host and no port
METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"
ACCELERATORS = ("/dev/accel0", "/dev/vfio/0")  # one of them is there on a TPU VM

Environment = Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """One process among those of a run.

    Attributes:
        coordinator: "HOST:PORT" of process 0; empty if the environment does not say.
        count: number of processes.
        index: this one, 0 ... count - 1.
        found: what said so, for messages.
        local: (index, count) among the processes of this machine, where that is known.
    """

    coordinator: str
    count: int
    index: int
    found: str
    local: tuple[int, int] | None = None

    @property
    def host(self) -> str:
        """Of process 0."""
        return self.coordinator.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Of process 0."""
        return int(self.coordinator.rpartition(":")[2])


def first_host(nodes: str) -> str:
    """The first of SLURM's "node[003-010,12],other", "a,b" or "rack[1-2]n[07,9]"."""
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
    port = 61440 + int(env["SLURM_JOB_ID"]) % 4096  # jobs of one machine rarely meet
    tasks = re.match(r"\d+", env.get("SLURM_STEP_TASKS_PER_NODE", ""))
    local = (int(env["SLURM_LOCALID"]), int(tasks[0])) if tasks and "SLURM_LOCALID" in env else None
    address = f"{first_host(env['SLURM_STEP_NODELIST'])}:{port}"
    return Place(address, int(env["SLURM_STEP_NUM_TASKS"]), int(env["SLURM_PROCID"]), "SLURM", local)


def _mpi(env: Environment) -> Place | None:
    """Ranks; older versions of Open MPI also say where mpirun runs, which is where process 0 is."""
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
    """A slice's workers in their order; of several slices all of the first come first."""
    hosts, worker = env.get("TPU_WORKER_HOSTNAMES"), env.get("TPU_WORKER_ID")
    if hosts is None or worker is None:
        if "TPU_SKIP_MDS_QUERY" in env or not any(Path(device).exists() for device in ACCELERATORS):
            return None
        try:
            hosts, worker = fetch("worker-network-endpoints"), fetch("agent-worker-number")
        except OSError:
            return None  # accelerators of another kind
        hosts = ",".join(part.split(":")[-1] for part in hosts.split(","))  # "name:id:address" or a name
    names, slices = hosts.split(","), int(env.get("MEGASCALE_NUM_SLICES", 1))
    first = env.get("MEGASCALE_COORDINATOR_ADDRESS", names[0]).partition(":")[0]
    index = int(env.get("MEGASCALE_SLICE_ID", 0)) * len(names) + int(worker)
    return Place(f"{first}:{PORT}", len(names) * slices, index, "TPU")


def detect(env: Environment, fetch: Callable[[str], str] = _metadata) -> Place | None:
    """What the environment says.

    Args:
        env: variables.
        fetch: reads an attribute from a TPU VM's metadata server.

    Returns:
        This process's place; None if it stands alone.

    Raises:
        UserError: a variable is no number.
    """
    try:
        found = _variables(env) or _slurm(env) or _mpi(env) or _tpu(env, fetch)
    except (ValueError, KeyError) as error:
        raise UserError(
            f"the environment's variables of several processes cannot be read ({error}): give --coordinator, "
            "--num_processes and --process_id"
        ) from None
    return found if found is not None and found.count > 1 else None


def find(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    env: Environment = os.environ,
    fetch: Callable[[str], str] = _metadata,
) -> Place | None:
    """This process's place: by the flags, and by the environment for those that are not given.

    Args:
        coordinator: "HOST:PORT" of process 0.
        num_processes: how many there are; 1 is a run of one process, whatever the environment says.
        process_id: this one.
        env: variables.
        fetch: reads an attribute from a TPU VM's metadata server.

    Returns:
        The place; None for a run of one process.

    Raises:
        UserError: flags that do not fit together, or an environment that does not say enough.
    """
    flags = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    given = {name for name, value in flags.items() if value is not None}
    if num_processes == 1 and not process_id:
        return None
    there = detect(env, fetch) if len(given) < 3 else None
    if there is None and not given:
        return None
    if there is None and len(given) < 3:
        missing = [f"--{name}" for name in flags if name not in given]
        raise UserError(
            f"--{' and --'.join(sorted(given))} without {' and '.join(missing)}: give all three (nothing in the "
            "environment says how many processes there are)"
        )
    there = there or Place("", 1, 0, "flags")
    place = replace(
        there,
        coordinator=there.coordinator if coordinator is None else coordinator,
        count=there.count if num_processes is None else num_processes,
        index=there.index if process_id is None else process_id,
    )
    return _check(place)


def _check(place: Place) -> Place:
    if not place.coordinator:
        raise UserError(
            f"{place.found} says that there are {place.count} processes, and not where process 0 is: give "
            "--coordinator=HOST:PORT"
        )
    if not re.fullmatch(r"(\[[^]]+\]|[^:\s]+):\d{1,5}", place.coordinator) or not 0 < place.port < 65536:
        raise UserError(
            f"--coordinator={place.coordinator} is not of the form HOST:PORT, with a port of 1 ... 65535"
        )
    if place.count < 1:
        raise UserError(f"--num_processes={place.count} must be at least 1")
    if not 0 <= place.index < place.count:
        raise UserError(
            f"--process_id={place.index} must be one of 0 ... {place.count - 1}: there are {place.count} processes"
        )
    return place
