"""Messages over the signer's socket: four bytes of length and so much JSON, in both directions."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

MAX_REQUEST_BYTES = 256 * 1024
MAX_ANSWER_BYTES = 32 << 20
_LENGTH_BYTES = 4


class WireBroken(Exception):
    """The other end sent no message of ours, or not in time. The message says which."""


def send(peer: socket.socket, message: dict[str, Any], most_bytes: int) -> None:
    """Send a message. Raises WireBroken if it is too long, OSError."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > most_bytes:
        raise WireBroken(f"a message of {len(data)} bytes is too long")
    peer.sendall(len(data).to_bytes(_LENGTH_BYTES) + data)


def receive(peer: socket.socket, most_bytes: int, within_s: float) -> dict[str, Any] | None:
    """Receive a message; None if the other end has closed before it. Raises WireBroken, OSError.

    The whole of it has to come `within_s`.
    """
    deadline = time.monotonic() + within_s
    head = _exactly(peer, _LENGTH_BYTES, deadline)
    if not head:
        return None
    length = int.from_bytes(head)
    if length > most_bytes:
        raise WireBroken(f"a message of {length} bytes is too long")
    try:
        message = json.loads(_exactly(peer, length, deadline))
    except (ValueError, RecursionError):
        raise WireBroken("a message is not JSON") from None
    if not isinstance(message, dict):
        raise WireBroken("a message is not an object")
    return message


def _exactly(peer: socket.socket, length: int, deadline: float) -> bytes:
    """Read so many bytes; none at all if there is the end before the first."""
    data = bytearray()
    while len(data) < length:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise WireBroken("a message did not come in time")
        peer.settimeout(left_s)
        try:
            part = peer.recv(min(length - len(data), 1 << 16))
        except TimeoutError:
            raise WireBroken("a message did not come in time") from None
        if not part:
            if data:
                raise WireBroken("a message was cut off")
            break
        data += part
    return bytes(data)
