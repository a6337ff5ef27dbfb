"""A real HTTP server of raw answers on loopback, for what certificates point to."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Server:
    """A server; a path without an answer is not found, one that drips never ends."""

    port: int = 0
    answers: dict[str, bytes] = field(default_factory=dict)
    drips: set[str] = field(default_factory=set)
    stays_open: set[str] = field(default_factory=set)
    requests: list[bytes] = field(default_factory=list)

    def uri(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def file(self, path: str, body: bytes, head: str = "") -> None:
        start = head or f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n"
        self.answers[path] = start.encode() + b"\r\n" + body

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(30)
            try:
                request = connection.recv(65536)
                self.requests.append(request)
                path = request.split(b" ")[1].decode()
                connection.sendall(self.answers.get(path, b"HTTP/1.0 404 Not Found\r\n\r\n"))
                while path in self.drips:
                    connection.sendall(b"x")
                    time.sleep(0.05)
                if path in self.stays_open:
                    connection.recv(1)
            except OSError:
                return  # the client has gone


@contextmanager
def serving() -> Iterator[Server]:
    """Serve until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(listener.getsockname()[1])
        threading.Thread(target=server.serve, args=(listener,), daemon=True).start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
