"""Index, count and coordinator of a process: by flags, and by environment variables of launchers."""

import pytest

from genjax.core.errors import UserError
from genjax.parallel.hosts import cluster
from genjax.parallel.hosts.cluster import Place

SLURM = {
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_NODELIST": "node[003-010,12],gpu7",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_STEP_TASKS_PER_NODE": "2(x8)",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}
JOBSET = {
    "JAX_COORDINATOR_ADDRESS": "run-0-0.run",
    "JAX_COORDINATOR_PORT": "99",
    "JAX_NUM_PROCESSES": "3",
    "JOB_COMPLETION_INDEX": "2",
}
SLICES = {
    "TPU_WORKER_HOSTNAMES": "t0,t1",
    "TPU_WORKER_ID": "1",
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
    "MEGASCALE_COORDINATOR_ADDRESS": "s0:8080",
}


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, None),
        (SLURM, ("node003:61441", 16, 5, (1, 2))),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        (
            {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},
            None,
        ),  # the batch script, not a step
        (OPEN_MPI, ("10.96.0.1:62624", 4, 3, None)),
        (JOBSET, ("run-0-0.run:99", 3, 2, None)),
        (SLICES, ("s0:8471", 4, 3, None)),
        ({"TPU_WORKER_HOSTNAMES": "t0,t1,t2", "TPU_WORKER_ID": "0"}, ("t0:8471", 3, 0, None)),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, None),
    ],
)
def test_environment_variables_give_the_place_of_a_process(env, expected):
    place = cluster.find(env=env)
    found = place and (place.coordinator, place.count, place.index, place.local)
    assert found == expected


def test_a_tpu_vm_reads_its_metadata_server(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "ACCELERATORS", (tmp_path,))
    answers = {"worker-network-endpoints": "a:b:10.0.0.1,a:b:10.0.0.2", "agent-worker-number": "1"}
    place = cluster.find(env={}, fetch=answers.__getitem__)
    assert (place.coordinator, place.count, place.index) == ("10.0.0.1:8471", 2, 1)

    def unreachable(name):
        raise OSError

    assert cluster.find(env={}, fetch=unreachable) is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("a,b", "a"), ("n[07,9]", "n07"), ("r[1-2]n[03-4],x", "r1n03"), ("n[1-2]-ib", "n1-ib")],
)
def test_first_host_of_a_slurm_node_list(nodes, first):
    assert cluster.first_host(nodes) == first


def test_flags_override_the_environment():
    assert cluster.find("h:1", 2, 1, env=SLURM) == Place("h:1", 2, 1, "flags")
    assert cluster.find(num_processes=1, env=SLURM) is None
    moved = cluster.find("[::1]:7", env=SLURM)
    assert (moved.host, moved.port, moved.count, moved.index) == ("::1", 7, 16, 5)


@pytest.mark.parametrize(
    ("flags", "env", "words"),
    [
        (
            ("h:1", None, None),
            {},
            "coordinator=... without num_processes=... and process_id=...: give all three",
        ),
        ((None, 2, 1), {}, "without coordinator=..."),
        (("h", 2, 1), {}, "coordinator=h is not of the form HOST:PORT"),
        (("h:99999", 2, 1), {}, "not of the form HOST:PORT"),
        (("h:1", 2, 2), {}, "process_id=2 must be one of 0 ... 1"),
        (("h:1", 0, 0), {}, "num_processes=0 must be at least 1"),
        ((None, None, None), {"PMI_SIZE": "2", "PMI_RANK": "0"}, "no address of process 0"),
        ((None, None, None), {"JAX_NUM_PROCESSES": "many"}, "cannot be read"),
    ],
)
def test_contradicting_flags_and_environments_raise(flags, env, words):
    with pytest.raises(UserError, match=words):
        cluster.find(*flags, env=env)
