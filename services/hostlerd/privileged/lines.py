"""Requests and answers of JSON, a line each, over a stream."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from typing import Any

from hostlerd.privileged.refused import Refused


def answer_lines(
    peer: socket.socket,
    answer: Callable[[Any], Mapping[str, Any]],
    max_request_bytes: int,
    idle_s: float,
    send_timeout_s: float,
) -> None:
    """Answer a caller's requests until it goes, is silent, or writes a line that does not end.

    `answer` carries out one request that may be anything JSON is. It raises Refused or OSError,
    which become the answer. Raises OSError, as TimeoutError is.
    """
    peer.settimeout(idle_s)
    with peer.makefile("rb") as lines:
        while line := lines.readline(max_request_bytes):
            peer.settimeout(send_timeout_s)
            peer.sendall(json.dumps(_told(line, answer)).encode() + b"\n")
            peer.settimeout(idle_s)
            if not line.endswith(b"\n"):
                return


def parse(data: bytes) -> Any:
    """Parse a request. Raises Refused, which never quotes it: the parser's own words might."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Refused("MALFORMED", "the request is not JSON") from None


def _told(line: bytes, answer: Callable[[Any], Mapping[str, Any]]) -> dict[str, Any]:
    try:
        return {"ok": True, **answer(parse(line))}
    except Refused as e:
        return e.answer()
    except OSError as e:
        return Refused.by_system(e).answer()
