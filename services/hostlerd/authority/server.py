"""The signer's door: requests of any number of callers, carried out one at a time."""

from __future__ import annotations

import socket
import sqlite3
import threading
from contextlib import suppress
from typing import Any

from hostlerd.authority import wanted, wire
from hostlerd.authority.authority import Authority
from hostlerd.authority.wire import WireBroken
from hostlerd.privileged import door
from hostlerd.privileged.refused import Refused

CALLER = "hostler-ssl"
MAX_CONNECTIONS = 64
IDLE_S = 30.0
REQUEST_S = 10.0
SEND_S = 30.0


class Server:
    """Answers callers of one socket. Requests are carried out one at a time."""

    def __init__(self, authority: Authority, allowed: frozenset[int]) -> None:
        self._authority = authority
        self._allowed = allowed
        self._turn = threading.Lock()

    def serve(self, listener: socket.socket, idle_s: float = IDLE_S) -> None:
        """Answer callers until there has been none for a while."""
        door.serve(listener, self._answer_all, self._allowed, MAX_CONNECTIONS, idle_s)

    def _answer_all(self, peer: socket.socket) -> None:
        """Answer requests until the caller goes, is silent, or breaks the protocol."""
        with suppress(WireBroken):
            while request := wire.receive(peer, wire.MAX_REQUEST_BYTES, REQUEST_S):
                peer.settimeout(SEND_S)
                wire.send(peer, self._answer(request), wire.MAX_ANSWER_BYTES)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            op, fields = wanted.check(request)
            with self._turn:
                return {"ok": True, **self._authority.do(op, fields)}
        except Refused as e:
            return _refusal(e)
        except (OSError, sqlite3.Error) as e:
            words = e.strerror if isinstance(e, OSError) else str(e)
            return _refusal(Refused("SYSTEM", f"the authority's files: {words}"))


def _refusal(refused: Refused) -> dict[str, Any]:
    """A refusal as callers of the signer know it, where what is at fault is not always a field."""
    faults = [list(fault) for fault in refused.faults]
    return {"ok": False, "reason": refused.reason, "message": refused.message, "faults": faults}
