"""The reader's door: one request for each connection, answered by as many lines as it takes."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path

from hostlerd.privileged import door
from hostlerd.ssl.reader import grammar
from hostlerd.ssl.reader.answers import CONFIGURATION, Answers

DAEMON_USER = "hostler-ssl"
IDLE_S = 30.0
MAX_CONNECTIONS = 16
ANSWER_S = 50.0
READ_S = 45.0
REQUEST_S = 5.0
# Readings cost CPU: so many go on at once, the others wait.
_AT_ONCE = threading.BoundedSemaphore(2)


def serve(
    listener: socket.socket, configuration: Path = CONFIGURATION, idle_s: float = IDLE_S
) -> None:
    """Answer callers until there has been none for a while."""
    answers = Answers(configuration)
    allowed = door.ROOT | door.uid_of(DAEMON_USER)
    door.serve(listener, lambda peer: _serve(peer, answers), allowed, MAX_CONNECTIONS, idle_s)


def _serve(peer: socket.socket, answers: Answers) -> None:
    """Answer one request. A caller that goes, or says nothing, ends it by OSError."""
    peer.settimeout(REQUEST_S)
    with peer.makefile("rb") as lines:
        line = lines.readline(grammar.MAX_REQUEST_BYTES)
    peer.settimeout(ANSWER_S)
    with peer.makefile("wb", buffering=1 << 16) as out:
        try:
            request = grammar.parse(line)
        except grammar.RequestRefused as e:
            out.write(_line("refused", str(e)))
            return
        with _AT_ONCE:
            for kind, value in answers.to(request, time.monotonic() + READ_S):
                out.write(_line(kind, value))
        out.write(_line("end", True))


def _line(kind: str, value: object) -> bytes:
    return json.dumps({kind: value}, separators=(",", ":")).encode() + b"\n"
