"""The launcher's door: one request at a time per connection, with the descriptors it brings."""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hostlerd.privileged import door
from hostlerd.privileged.lines import parse
from hostlerd.privileged.refused import Refused

from . import eviction, grammar, handles, processes, runs, tasks
from .waiting import readable

DAEMON_USER = "hostler-netns"
MAX_REQUEST = 384 * 1024
MAX_ANSWER = 60 * 1024
MAX_FDS = 250
MAX_CONNECTIONS = 512
BACKLOG = 256
IDLE_S = 30.0
SEND_TIMEOUT_S = 30.0


class Connection:
    """One caller. It is closed when it says nothing for a while."""

    def __init__(self, peer: socket.socket) -> None:
        self._socket = peer
        peer.settimeout(SEND_TIMEOUT_S)

    def serve(self) -> None:
        """Answer requests until the caller goes, is silent, or breaks the protocol."""
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
            self._send(Refused.by_system(e).answer())
        finally:
            for fd in fds:
                with suppress(OSError):
                    os.close(fd)
        return True

    def _answer(self, data: bytes, fds: list[int]) -> None:
        request = grammar.check_request(parse(data))
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
    """Answer callers until there has been none for a while."""
    allowed = door.ROOT | door.uid_of(DAEMON_USER)
    door.serve(listener, lambda peer: Connection(peer).serve(), allowed, MAX_CONNECTIONS, idle_s)


def listening_socket(path: Path | None) -> socket.socket:
    """The socket that systemd passes, or one made at `path`: a packet is a request."""
    return door.listening_socket("launcher", path, socket.SOCK_SEQPACKET, BACKLOG)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
