"""A TCP proxy from this process to the JAX service of process 0 that stays open when process 0 dies.

JAX's client aborts its process, with a C++ trace, as soon as its connection to the service closes. Through a proxy in
its own process it sees no disconnect, and `hosts.client` ends the process with one line instead.
"""

import contextlib
import socket
import threading


def _forward(source: socket.socket, target: socket.socket, hold: bool) -> None:
    """Copies data until EOF of the source; then closes both sockets, unless `hold` keeps them open."""
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
            near.close()  # the service is not up yet: JAX's client retries
            continue
        far.settimeout(None)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for source, target, hold in ((near, far, False), (far, near, True)):
            threading.Thread(
                target=_forward, args=(source, target, hold), name="tcp proxy", daemon=True
            ).start()


def open_proxy(host: str, port: int) -> str:
    """Opens a proxy to HOST:PORT for the lifetime of the process.

    Returns:
        The local address "127.0.0.1:PORT" to connect to instead.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve, args=(listener, host, port), name="tcp proxy", daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"
