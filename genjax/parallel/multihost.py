"""Runs of several processes: they come together before anything touches a device, and end together.

    with joined(place, watchdog):           # nothing for a run of one process
        ...

Process 0 opens a hub at the coordinator's address, at which all processes come together and stay in touch (see
`genjax.parallel.hosts`); JAX's own service is at another port of the same host, which the hub tells.

JAX has one connection to the others for each process, made once; so there is one `Member` here.
"""

import contextlib
import itertools
import logging
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from genjax.core.errors import UserError
from genjax.parallel.hosts.client import Member, Unreachable, end, join
from genjax.parallel.hosts.cluster import Place
from genjax.parallel.hosts.rendezvous import LOST, Hub
from genjax.parallel.hosts.tcp_proxy import relay
from genjax.parallel.mesh import batch_sharding

LEFT_TO_JAX = 3600  # seconds more than the watchdog's after which JAX would end processes in its own way
CLOSING = 20.0  # seconds for JAX to take leave of the others once all are done

T = TypeVar("T")
_member: Member | None = None


def member() -> Member | None:
    """This process's part in a run of several; None in a run of one."""
    return _member


def _listen(port: int, limit: float) -> socket.socket:
    """A socket at a port that an earlier attempt of this run may still hold for a moment.

    Raises:
        UserError: another program listens there.
    """
    until = time.monotonic() + min(limit, 30.0)
    while True:
        with contextlib.suppress(OSError, ValueError):  # no IPv6 here, or the port is taken
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        try:
            return socket.create_server(("", port))
        except OSError as error:
            if time.monotonic() > until:
                raise UserError(f"process 0 cannot listen at port {port}: {error.strerror}") from None
        time.sleep(0.2)


def _initialize(place: Place, port: int, watchdog: float) -> None:
    """Starts JAX's service and client; several processes of one machine with GPUs take one each."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Ours, in `hosts.member`, covers more signals and the time outside the training loop.
    jax.config.update("jax_enable_preemption_service", False)
    local = None
    if place.local and place.local[1] > 1 and os.environ.get("CUDA_VISIBLE_DEVICES", ",").count(",") > 0:
        local = place.local[0]
    address = f"127.0.0.1:{port}" if place.index == 0 else relay(place.host, port)
    os.environ["no_grpc_proxy"] = "127.0.0.1"  # noqa: SIM112
    logging.getLogger("jax._src.distributed").setLevel(logging.ERROR)
    try:
        jax.distributed.initialize(
            address,
            place.count,
            place.index,
            local_device_ids=local,
            cluster_detection_method="deactivate",
            initialization_timeout=int(watchdog) + 60,
            heartbeat_timeout_seconds=int(watchdog) + LEFT_TO_JAX,
        )
    except RuntimeError as error:
        raise Unreachable(f"jax.distributed does not start: {' '.join(str(error).split())[:200]}") from error


def _close(code: int) -> None:
    """Takes leave of JAX's service; if that hangs, the process ends all the same: everything is done."""
    late = threading.Timer(CLOSING, os._exit, (code,))
    late.daemon = True
    late.start()
    jax.distributed.shutdown()
    late.cancel()


@contextlib.contextmanager
def joined(place: Place | None, watchdog: float) -> Iterator[None]:
    """Comes together with the other processes, and ends with them.

    An error of this process is told to the others and ends it here, after it was printed: to raise it further
    would be to wait for them.

    Args:
        place: of this process; None does nothing.
        watchdog: seconds to wait for the others, of a process's silence, and of a step.

    Yields:
        Once all processes are there.

    Raises:
        UserError: they do not come together.
        SystemExit: as what is inside raises it, once all have.
    """
    global _member
    if place is None:
        yield
        return
    if watchdog < 2:
        raise UserError(f"--watchdog={watchdog:g} must be at least 2 seconds")
    hub = Hub(_listen(place.port, watchdog), place.count, watchdog) if place.index == 0 else None
    host = "127.0.0.1" if hub else place.host
    _member, port = join((host, place.port), place.index, place.count, watchdog)
    code = 0
    try:
        _initialize(place, port, watchdog)
        yield
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except UserError as error:
        _member.fail(error.code, str(error))
        end(error.code, str(error))
    except BaseException as error:
        if _member.signal:  # others are leaving already, which ends what is done with them
            end(128 + _member.signal, "")
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        _member.fail(LOST, words)
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(1)
    _member.finish(code)
    _close(code)
    _member.close()
    if hub:
        hub.close()
    _member = None
    if code:
        raise SystemExit(code)


def agreed(value: T) -> T:
    """Waits for all processes; a value that JSON can hold, as process 0 has it."""
    return value if _member is None else _member.meet(value)


def first(action: Callable[[], None]) -> None:
    """Does something on process 0 alone, while the others wait; an error of it ends them all."""
    if jax.process_index() == 0:
        action()
    agreed(None)


def connect(mesh: Mesh) -> None:
    """Makes gloo connect the processes along each set of the mesh's axes, now that all are here.

    It does so when a collective first needs it, and gives up after 30 s: the time by which one process may compile
    longer than another. Other backends have no such limit.
    """
    if _member is None or jax.default_backend() != "cpu":
        return
    names = [name for name in mesh.axis_names if mesh.shape[name] > 1]
    place = NamedSharding(mesh, P(*names))
    one = lambda index: np.ones((1,) * len(names), np.float32)
    x = jax.make_array_from_callback(tuple(mesh.shape[name] for name in names), place, one)
    for axes in itertools.chain(*(itertools.combinations(names, k + 1) for k in range(len(names)))):
        rest = P(*(None if name in axes else name for name in names))
        total = jax.shard_map(
            lambda x, axes=axes: jax.lax.psum(x, axes), mesh=mesh, in_specs=place.spec, out_specs=rest
        )
        run = jax.jit(total).lower(x).compile()
        agreed(None)
        jax.block_until_ready(run(x))
    agreed(None)
    multihost_utils.sync_global_devices("connect")  # those of `gather`, and of arrays put on all devices


def block(mesh: Mesh, size: int) -> tuple[int, int]:
    """Which of how many equal consecutive blocks of a batch's rows this process's devices hold.

    Processes that share rows, because the mesh splits over them something else than the batch, hold the same block.

    Args:
        mesh: the devices of all processes.
        size: rows of the batch, which the mesh can split.

    Returns:
        (index, count), as `Batches` takes them.

    Raises:
        UserError: this process's rows are no such block.
    """
    places = batch_sharding(mesh).addressable_devices_indices_map((size,)).values()
    spans = sorted({rows[0].indices(size)[:2] for rows in places if rows is not None})
    start, stop = spans[0][0], spans[-1][1]
    covered = sum(end - begin for begin, end in spans)
    if covered != stop - start or size % covered or start % covered:
        raise UserError(
            f"a process would hold rows {spans} of a batch of {size}: choose a mesh that gives each process "
            "consecutive rows (the axes that split the batch first)"
        )
    return start // covered, size // covered
