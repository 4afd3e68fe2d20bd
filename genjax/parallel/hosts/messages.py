"""Messages between processes: one JSON object per line over TCP."""

import json
import socket
import threading
from typing import Any

HEARTBEAT = 1.0  # seconds between heartbeats
Message = dict[str, Any]


class Connection:
    """One end of a connection; any thread may send messages, one thread receives them."""

    def __init__(self, connection: socket.socket):
        """Takes ownership of a connected socket."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(10.0)
        self._socket, self._buffer, self._lock = connection, b"", threading.Lock()

    def fileno(self) -> int:
        """The file descriptor, for `select`."""
        return self._socket.fileno()

    def send(self, **message: Any) -> bool:
        """Sends a message; returns False if the connection is broken."""
        try:
            with self._lock:
                self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self) -> list[Message] | None:
        """Receives data and returns the complete messages, [] after a timeout; None at EOF or on invalid data."""
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError:
            return None  # not this protocol
        return messages if all(isinstance(message, dict) for message in messages) else None

    def close(self) -> None:
        """Closes the socket; the other end receives EOF."""
        self._socket.close()
