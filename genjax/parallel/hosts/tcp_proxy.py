"""A way from this process to process 0's JAX service that does not end when process 0 does.

JAX's client aborts its process, with a C++ trace, the moment the connection to the service ends. By way of a relay in
its own process it notices nothing, and the process ends as its watch says.
"""

import contextlib
import socket
import threading


def _pump(source: socket.socket, target: socket.socket, hold: bool) -> None:
    """Copies until the source ends; then ends the target too, unless it is to be held open."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    if not hold:
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _serve(listener: socket.socket, host: str, port: int) -> None:
    while True:
        near, _ = listener.accept()
        try:
            far = socket.create_connection((host, port), timeout=10.0)
        except OSError:
            near.close()  # the service is not up yet: JAX's client tries again
            continue
        far.settimeout(None)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for source, target, hold in ((near, far, False), (far, near, True)):
            threading.Thread(target=_pump, args=(source, target, hold), name="relay", daemon=True).start()


def relay(host: str, port: int) -> str:
    """Opens a way to HOST:PORT for the rest of the process's life.

    Returns:
        The address to use instead.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve, args=(listener, host, port), name="relay", daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"
