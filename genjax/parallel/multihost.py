"""Multi-process runs: the processes connect before anything initialises a device, and exit together.

    with join_processes(place, watchdog):           # no-op for a single process
        ...

Process 0 opens a rendezvous at the coordinator's address, where all processes connect and send heartbeats (see
`genjax.parallel.hosts`); JAX's own service uses another port of the same host, which the rendezvous announces.

A process initialises JAX's distributed runtime once, so this module holds one global `Client`.
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
from genjax.parallel.hosts.client import Client, Unreachable, exit_process, join
from genjax.parallel.hosts.cluster import Place
from genjax.parallel.hosts.rendezvous import LOST, Rendezvous
from genjax.parallel.hosts.tcp_proxy import open_proxy
from genjax.parallel.mesh import batch_sharding

JAX_EXTRA_TIMEOUT = 3600  # seconds added to the watchdog for JAX's own heartbeat, which must not fire first
SHUTDOWN_TIMEOUT = 20.0  # seconds for jax.distributed.shutdown once all processes are done

T = TypeVar("T")
_client: Client | None = None


def client() -> Client | None:
    """This process's connection to the rendezvous; None in a single-process run."""
    return _client


def _listen(port: int, limit: float) -> socket.socket:
    """Opens a listening socket, with retries while a previous attempt of this run still holds the port.

    Raises:
        UserError: another program uses the port.
    """
    until = time.monotonic() + min(limit, 30.0)
    while True:
        with contextlib.suppress(OSError, ValueError):  # no IPv6, or the port is in use
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        try:
            return socket.create_server(("", port))
        except OSError as error:
            if time.monotonic() > until:
                raise UserError(f"process 0 cannot listen on port {port}: {error.strerror}") from None
        time.sleep(0.2)


def _initialize(place: Place, port: int, watchdog: float) -> None:
    """Starts JAX's distributed runtime; several processes on one machine with several GPUs use one GPU each."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # `hosts.client` replaces it: it handles more signals, also outside the training loop.
    jax.config.update("jax_enable_preemption_service", False)
    local = None
    if place.local and place.local[1] > 1 and os.environ.get("CUDA_VISIBLE_DEVICES", ",").count(",") > 0:
        local = place.local[0]
    address = f"127.0.0.1:{port}" if place.index == 0 else open_proxy(place.host, port)
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
            heartbeat_timeout_seconds=int(watchdog) + JAX_EXTRA_TIMEOUT,
        )
    except RuntimeError as error:
        raise Unreachable(
            f"jax.distributed.initialize failed: {' '.join(str(error).split())[:200]}"
        ) from error


def _shutdown(code: int) -> None:
    """Shuts down JAX's distributed runtime; exits if that hangs, since all work is done."""
    timer = threading.Timer(SHUTDOWN_TIMEOUT, os._exit, (code,))
    timer.daemon = True
    timer.start()
    jax.distributed.shutdown()
    timer.cancel()


@contextlib.contextmanager
def join_processes(place: Place | None, watchdog: float) -> Iterator[None]:
    """Context of a multi-process run: connects all processes on entry, and waits for all of them on exit.

    An exception inside is printed and sent to the other processes, and the process exits here: raising it further
    would wait for the others.

    Args:
        place: rank and coordinator of this process; None does nothing.
        watchdog: timeout in seconds for connecting, for a process without heartbeats, and for a step.

    Yields:
        None, once all processes are connected.

    Raises:
        UserError: not all processes connect in time, or the watchdog is less than 2 seconds.
        SystemExit: raised inside, re-raised once all processes are done.
    """
    global _client
    if place is None:
        yield
        return
    if watchdog < 2:
        raise UserError(f"watchdog={watchdog:g} must be at least 2 seconds")
    rendezvous = (
        Rendezvous(_listen(place.port, watchdog), place.count, watchdog) if place.index == 0 else None
    )
    host = "127.0.0.1" if rendezvous else place.host
    _client, port = join((host, place.port), place.index, place.count, watchdog)
    code = 0
    try:
        _initialize(place, port, watchdog)
        yield
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except UserError as error:
        _client.fail(error.code, str(error))
        exit_process(error.code, str(error))
    except BaseException as error:
        if _client.signal:  # other processes already exit, which makes collectives fail here
            exit_process(128 + _client.signal, "")
        message = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        _client.fail(LOST, message)
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(1)
    _client.finish(code)
    _shutdown(code)
    _client.close()
    if rendezvous:
        rendezvous.close()
    _client = None
    if code:
        raise SystemExit(code)


def broadcast(value: T) -> T:
    """Waits for all processes and returns the value of process 0, which must be JSON-serialisable."""
    return value if _client is None else _client.broadcast(value)


def on_first_process(action: Callable[[], None]) -> None:
    """Runs `action` on process 0 only, while the others wait; an exception of it ends all processes."""
    if jax.process_index() == 0:
        action()
    broadcast(None)


def connect(mesh: Mesh) -> None:
    """Connects the processes in gloo along each subset of the mesh's axes, while all processes are in step.

    Otherwise gloo connects at the first collective and fails after 30 s, which differences in compilation time can
    exceed. Other backends have no such limit.
    """
    if _client is None or jax.default_backend() != "cpu":
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
        broadcast(None)
        jax.block_until_ready(run(x))
    broadcast(None)
    multihost_utils.sync_global_devices("connect")  # the groups of `gather` and of replicated `device_put`


def block(mesh: Mesh, size: int) -> tuple[int, int]:
    """The block of a batch's rows that the devices of this process hold, among equal consecutive blocks.

    Processes that the mesh separates along other axes than the batch's hold the same block.

    Args:
        mesh: the devices of all processes.
        size: number of rows of the batch, divisible by the batch shards of the mesh.

    Returns:
        (index, count) of the block, as `Batches` takes them.

    Raises:
        UserError: the rows of this process are not consecutive.
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
