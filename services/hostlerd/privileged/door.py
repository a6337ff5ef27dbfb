"""A door: one unix socket, who may come in, a thread for each caller, the end after idleness."""

from __future__ import annotations

import os
import pwd
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROOT = frozenset({0})


def listening_socket(
    program: str, path: Path | None, kind: int = socket.SOCK_STREAM, backlog: int = 64
) -> socket.socket:
    """The socket that systemd passes as descriptor 3, or one for this user alone, made at `path`.

    Source: sd_listen_fds(3).
    """
    if path is not None:
        listener = socket.socket(socket.AF_UNIX, kind)
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(backlog)
        return listener
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        sys.exit(f"{program}: expects one socket from systemd, or --listen PATH")
    os.set_inheritable(3, False)
    return socket.socket(fileno=3)


def uid_of(user: str) -> frozenset[int]:
    """The user's number; none if this host does not have it."""
    try:
        return frozenset({pwd.getpwnam(user).pw_uid})
    except KeyError:
        return frozenset()


def peer_uid(peer: socket.socket) -> int:
    """The user at the other end, as it was when it connected. unix(7), SO_PEERCRED."""
    _, uid, _ = struct.unpack("iII", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def serve(
    listener: socket.socket,
    answer: Callable[[socket.socket], None],
    allowed: frozenset[int],
    max_connections: int,
    idle_s: float,
) -> None:
    """Have callers answered until there has been none for a while. The socket stays with systemd.

    `answer` is given each caller in a thread of its own, and ends it by coming back. It may leave
    by OSError: the caller has gone. Strangers, and who comes when all is taken, are sent away.
    """
    threads: list[threading.Thread] = []
    last = time.monotonic()
    # select(2) ends at descriptor 1024.
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        threads = [t for t in threads if t.is_alive()]
        if threads:
            last = time.monotonic()
        if time.monotonic() - last > idle_s:
            return
        if not poll.poll(min(1.0, idle_s / 4) * 1000):
            continue
        try:
            peer, _ = listener.accept()
        except OSError:
            continue
        last = time.monotonic()
        if peer_uid(peer) not in allowed or len(threads) >= max_connections:
            peer.close()
            continue
        # Not a daemon's: what is being carried out is brought to its end before the program ends.
        thread = threading.Thread(target=_answer, args=(peer, answer))
        thread.start()
        threads.append(thread)


def _answer(peer: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    with peer, suppress(OSError):
        answer(peer)
