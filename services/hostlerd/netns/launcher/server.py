"""The socket: who may ask, one request at a time per connection, and the end after idleness."""

from __future__ import annotations

import array
import json
import os
import pwd
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import eviction, grammar, handles, processes, runs, tasks
from .refused import Refused
from .waiting import readable

DAEMON_USER = "hostler-netns"
MAX_REQUEST = 384 * 1024
MAX_ANSWER = 60 * 1024
MAX_FDS = 250
MAX_CONNECTIONS = 512
IDLE_S = 30.0
SEND_TIMEOUT_S = 30.0


class Connection:
    """One caller. It is closed when it says nothing for a while."""

    def __init__(self, peer: socket.socket) -> None:
        self._socket = peer
        peer.settimeout(SEND_TIMEOUT_S)

    def serve(self) -> None:
        """Answer requests until the caller goes, is silent, or breaks the protocol."""
        with self._socket:
            while self._readable() and self._one():
                pass

    def _readable(self) -> bool:
        return readable(IDLE_S, self._socket)[0]

    def _one(self) -> bool:
        room = socket.CMSG_SPACE(MAX_FDS * 4)
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                MAX_REQUEST, room, socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            return False
        fds = _descriptors(ancillary)
        try:
            if not data:
                return False
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise Refused("MALFORMED", "the request is too large")
            self._answer(data, fds)
        except Refused as e:
            self._send(e.answer())
        except OSError as e:
            self._send(Refused("SYSTEM", f"{e.filename or 'kernel'}: {e.strerror}").answer())
        finally:
            for fd in fds:
                with suppress(OSError):
                    os.close(fd)
        return True

    def _answer(self, data: bytes, fds: list[int]) -> None:
        try:
            request = grammar.check_request(json.loads(data))
        except (ValueError, RecursionError):
            raise Refused("MALFORMED", "the request is not JSON") from None
        op = request["op"]
        if fds and op not in {"attach", "run"}:
            raise Refused("MALFORMED", "this operation takes no descriptors")
        if op == "run":
            runs.run(request["unit"], fds, self._socket, self._send)
        elif op == "tasks":
            self._tasks(request)
        elif op == "status":
            names = (request.get("namespace", ""), request.get("name", ""))
            self._send_items("units", processes.status(*names))
            self._send({"ok": True, "units": []})
        else:
            self._send({"ok": True, **_do(op, request, fds)})

    def _tasks(self, request: dict[str, Any]) -> None:
        scan = tasks.Scan(
            with_argv=request.get("with_argv", False),
            net=request.get("net", 0),
            except_net=request.get("except_net", 0),
        )
        self._send_items("tasks", scan)
        self._send({"ok": True, "tasks": [], "truncated": scan.truncated})

    def _send_items(self, key: str, items: Iterable[dict[str, Any]]) -> None:
        """Send items, as many to a packet as fit."""
        batch: list[dict[str, Any]] = []
        size = 0
        for item in items:
            length = len(json.dumps(item)) + 2
            if batch and size + length > MAX_ANSWER:
                self._send({"more": True, key: batch})
                batch, size = [], 0
            batch.append(item)
            size += length
        if batch:
            self._send({"more": True, key: batch})

    def _send(self, answer: dict[str, Any]) -> None:
        with suppress(OSError):
            self._socket.send(json.dumps(answer).encode())


def _do(op: str, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Carry out one of the operations that have a single, small answer."""
    if op == "attach":
        handles.attach(request["names"], fds)
    elif op == "detach":
        handles.detach(request["names"])
    elif op == "evict":
        eviction.evict(request["namespace"])
    elif op == "start":
        return processes.start(request["unit"])
    elif op == "stop":
        processes.stop(request["namespace"], request["name"])
    elif op == "signal":
        processes.send_signal(request["namespace"], request["name"], request["signal"])
    return {}


def serve(listener: socket.socket, idle_s: float = IDLE_S) -> None:
    """Accept callers until there has been none for a while. The socket stays with systemd."""
    allowed = allowed_uids()
    threads: list[threading.Thread] = []
    last = time.monotonic()
    while True:
        threads = [t for t in threads if t.is_alive()]
        if threads:
            last = time.monotonic()
        if time.monotonic() - last > idle_s:
            return
        if not readable(min(1.0, idle_s / 4), listener)[0]:
            continue
        try:
            peer, _ = listener.accept()
        except OSError:
            continue
        last = time.monotonic()
        if peer_uid(peer) not in allowed or len(threads) >= MAX_CONNECTIONS:
            peer.close()
            continue
        thread = threading.Thread(target=Connection(peer).serve)
        thread.start()
        threads.append(thread)


def peer_uid(peer: socket.socket) -> int:
    """The user at the other end, as it was when it connected. unix(7), SO_PEERCRED."""
    _, uid, _ = struct.unpack("iII", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def allowed_uids() -> frozenset[int]:
    """Root, and the daemon's own user if this host has it."""
    try:
        return frozenset({0, pwd.getpwnam(DAEMON_USER).pw_uid})
    except KeyError:
        return frozenset({0})


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def listening_socket(argv: list[str]) -> socket.socket:
    """The socket that systemd passes as descriptor 3, or one made at the path of `--listen PATH`.

    Source: sd_listen_fds(3).
    """
    if argv[:1] == ["--listen"] and len(argv) == 2:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        Path(argv[1]).unlink(missing_ok=True)
        listener.bind(argv[1])
        Path(argv[1]).chmod(0o600)
        listener.listen(256)
        return listener
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        sys.exit("launcher: expects one socket from systemd, or --listen PATH")
    os.set_inheritable(3, False)
    return socket.socket(fileno=3)
