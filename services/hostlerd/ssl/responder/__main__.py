"""Hands out what the daemon put into a folder: `__main__.py FOLDER [--listen PORT]`.

Started by systemd with the listening socket, as a user of its own; gone when nobody asks. It knows
one kind of request, and answers it with a file whose name it has checked. RFC 8555, 8.3.
"""

from __future__ import annotations

import os
import re
import select
import socket
import sys
import threading
import time
from contextlib import suppress

IDLE_S = 60.0
REQUEST_S = 10.0
MAX_REQUEST = 8192
MAX_ANSWER = 1024
MAX_CONNECTIONS = 64
ASKED = re.compile(rb"(GET|HEAD) /\.well-known/acme-challenge/([A-Za-z0-9_-]{16,256}) HTTP/1\.[01]")


def answer_to(head: bytes, folder: int) -> bytes:
    """Answer the head of a request."""
    found = ASKED.fullmatch(head.split(b"\r\n", 1)[0])
    content = _content(folder, found[2].decode()) if found else None
    if found is None or content is None:
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    fields = f"Content-Type: application/octet-stream\r\nContent-Length: {len(content)}\r\n"
    whole = f"HTTP/1.1 200 OK\r\n{fields}Connection: close\r\n\r\n".encode()
    return whole + content if found[1] == b"GET" else whole


def _content(folder: int, token: str) -> bytes | None:
    try:
        fd = os.open(token, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read(MAX_ANSWER)


def serve_one(peer: socket.socket, folder: int) -> None:
    """Answer one caller, who has some seconds for all that it says."""
    deadline = time.monotonic() + REQUEST_S
    head = b""
    with peer, suppress(OSError):
        while b"\r\n\r\n" not in head and len(head) < MAX_REQUEST:
            peer.settimeout(max(0.01, deadline - time.monotonic()))
            got = peer.recv(MAX_REQUEST - len(head))
            if not got or time.monotonic() > deadline:
                return
            head += got
        peer.sendall(answer_to(head, folder))


def serve(listener: socket.socket, folder: int, idle_s: float = IDLE_S) -> None:
    """Answer callers until there has been none for a while."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while poll.poll(idle_s * 1000):
        with suppress(OSError):
            peer, _ = listener.accept()
            if threading.active_count() > MAX_CONNECTIONS:
                peer.close()
                continue
            threading.Thread(target=serve_one, args=(peer, folder)).start()


def main(argv: list[str]) -> None:
    """Serve the folder that the first word names."""
    if len(argv) not in (1, 3) or argv[1:2] not in ([], ["--listen"]):
        sys.exit("responder: expects FOLDER [--listen PORT]")
    folder = os.open(argv[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if argv[1:]:
        serve(socket.create_server(("127.0.0.1", int(argv[2]))), folder)
        return
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        sys.exit("responder: expects one socket from systemd")
    serve(socket.socket(fileno=3), folder)


if __name__ == "__main__":
    main(sys.argv[1:])
