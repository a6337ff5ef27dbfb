"""What the reader may be asked, and nothing else: no path, no process, no name comes from outside.

A request is one line of JSON: {"op": "libraries", "static": bool}, {"op": "files"} or
{"op": "listeners"}. Answers are lines of JSON, each {KIND: VALUE}, the last one {"end": true}.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

MAX_REQUEST_BYTES = 4096
OPERATIONS = {"libraries": {"static"}, "files": set[str](), "listeners": set[str]()}


class RequestRefused(ValueError):
    """A request that is none."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for."""

    op: str
    static: bool = False


def parse(line: bytes) -> Request:
    """Check a request. Raises RequestRefused."""
    try:
        told: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise RequestRefused("the request is not JSON") from None
    if not isinstance(told, dict) or not isinstance(op := told.pop("op", None), str):
        raise RequestRefused("the request has no operation")
    if op not in OPERATIONS or told.keys() - OPERATIONS[op]:
        raise RequestRefused("the operation is not known, or does not take what is given")
    if any(type(value) is not bool for value in told.values()):
        raise RequestRefused("expects true or false")
    return Request(op, **told)
