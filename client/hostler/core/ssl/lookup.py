"""The addresses of a host, within a deadline that the resolver itself does not have."""

from __future__ import annotations

import queue
import socket
import threading
import time

# A family, and where to connect to: address and port.
Address = tuple[int, tuple[str, int]]


class HostNotFound(Exception):
    """A host without addresses, or whose name server did not answer in time."""


def addresses(host: str, port: int, ends_at: float) -> list[Address]:
    """Look a host up; `ends_at` is of time.monotonic(). Raises HostNotFound.

    A thread does it, which may be left behind to end by itself.
    """
    answers: queue.SimpleQueue[list[Address] | str] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            answers.put(f"not found: {error}")
        else:
            answers.put([(family, (str(where[0]), port)) for family, _, _, _, where in found])

    threading.Thread(target=look_up, daemon=True).start()
    try:
        answer = answers.get(timeout=max(0.001, ends_at - time.monotonic()))
    except queue.Empty:
        raise HostNotFound("not found in time") from None
    if isinstance(answer, str):
        raise HostNotFound(answer)
    return answer


def connected(address: Address, timeout_s: float) -> socket.socket:
    """Connect to an address. Raises TimeoutError, OSError."""
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.connect(where)
    except OSError:
        sock.close()
        raise
    return sock
