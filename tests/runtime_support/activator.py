"""Plays systemd's part for socket activation: holds sockets, starts the daemon when one is used.

Arguments: the local socket's path, then the daemon's argv. Prints the TCP port, then a line for
each start. Ends the daemon and itself on SIGTERM. Source: sd_listen_fds(3).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import types

child = 0


def start(argv: list[str], fds: list[int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    for place, fd in enumerate(fds, 3):
        os.dup2(fd, place, inheritable=True)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = str(len(fds))
    os.environ["LISTEN_FDNAMES"] = ":".join(["rpc"] * len(fds))
    os.execv(argv[0], argv)  # noqa: S606 - the daemon takes this process's id, as under systemd


def listen(path: str) -> list[socket.socket]:
    tcp, local = socket.socket(socket.AF_INET6), socket.socket(socket.AF_UNIX)
    tcp.bind(("::", 0))
    local.bind(path)
    for sock in (tcp, local):
        sock.listen(4096)
        sock.setblocking(False)
    return [tcp, local]


def end(signum: int, frame: types.FrameType | None) -> None:
    if child:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
    os._exit(0)


def main(path: str, argv: list[str]) -> None:
    global child
    signal.signal(signal.SIGTERM, end)
    sockets = listen(path)
    # Out of the way of 3 and 4, where the daemon wants them.
    high = [os.dup2(sock.fileno(), 100 + n, inheritable=False) for n, sock in enumerate(sockets)]
    print(sockets[0].getsockname()[1], flush=True)
    while True:
        select.select(high, [], [])
        child = start(argv, high)
        print(f"start {child}", flush=True)
        _, status = os.waitpid(child, 0)
        child = 0
        if status:
            print(f"failed {status}", flush=True)


main(sys.argv[1], sys.argv[2:])
