"""The least of HTTP/1.1 that CRLs and OCSP need (RFC 9112): one request, one answer, the end.

Everything is bounded: the head, the body, the time for both, and the time to take the answer.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from http import HTTPStatus

MAX_HEAD_BYTES = 8192
MAX_BODY_BYTES = 4096
_LINE = re.compile(rb"(GET|POST|[A-Z]{1,16}) (/[!-~]{0,6000}) HTTP/1\.[01]")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_LENGTH = re.compile(rb"[0-9]{1,9}")


class Rejected(Exception):
    """A request that is answered by a status alone."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request: GET or POST, the path as it was sent, the body."""

    method: str
    path: str
    body: bytes


async def read(reader: asyncio.StreamReader) -> HttpRequest | None:
    """Read one request; None if there is the end before it. Raises Rejected."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as e:
        if e.partial:
            raise Rejected(HTTPStatus.BAD_REQUEST) from e
        return None
    except asyncio.LimitOverrunError as e:
        raise Rejected(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from e
    method, path, length = parse_head(head)
    try:
        return HttpRequest(method, path, await reader.readexactly(length))
    except asyncio.IncompleteReadError as e:
        raise Rejected(HTTPStatus.BAD_REQUEST) from e


def parse_head(head: bytes) -> tuple[str, str, int]:
    """Answer method, path and length of the body. Raises Rejected."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    found = _LINE.fullmatch(first)
    if found is None:
        raise Rejected(HTTPStatus.BAD_REQUEST)
    method = found[1].decode()
    headers: dict[bytes, bytes] = {}
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None or (
            header[1].lower() == b"content-length" and b"content-length" in headers
        ):
            raise Rejected(HTTPStatus.BAD_REQUEST)
        headers[header[1].lower()] = header[2]
    if method not in ("GET", "POST"):
        raise Rejected(HTTPStatus.METHOD_NOT_ALLOWED)
    if b"transfer-encoding" in headers:
        raise Rejected(HTTPStatus.LENGTH_REQUIRED)
    return method, found[2].decode(), _body_length(method, headers.get(b"content-length"))


def _body_length(method: str, value: bytes | None) -> int:
    if value is None:
        if method == "POST":
            raise Rejected(HTTPStatus.LENGTH_REQUIRED)
        return 0
    if not _LENGTH.fullmatch(value):
        raise Rejected(HTTPStatus.BAD_REQUEST)
    if int(value) > MAX_BODY_BYTES:
        raise Rejected(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return int(value)


def answer(status: HTTPStatus, body: bytes = b"", kind: str = "text/plain") -> bytes:
    """Write an answer, after which the connection ends."""
    if status is not HTTPStatus.OK:
        body = f"{status.value} {status.phrase}\n".encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
