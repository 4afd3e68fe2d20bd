"""Messages between processes: one JSON object a line over TCP."""

import json
import socket
import threading
from typing import Any

PULSE = 1.0  # seconds between signs of life
Message = dict[str, Any]


class Wire:
    """One end of a connection; messages may be sent from any thread and are received by one."""

    def __init__(self, connection: socket.socket):
        """Takes over a connected socket."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(10.0)
        self._socket, self._rest, self._lock = connection, b"", threading.Lock()

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def send(self, **message: Any) -> bool:
        """Sends a message; False if nobody is there to read it."""
        try:
            with self._lock:
                self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self) -> list[Message] | None:
        """Waits for what comes, and gives the messages that are whole; None once the other end is gone."""
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError:
            return None  # something that is no process of ours
        return messages if all(isinstance(message, dict) for message in messages) else None

    def close(self) -> None:
        """Lets the other end know that this one is gone."""
        self._socket.close()
