"""Fetching what a certificate points to: by http alone, bounded, and telling nothing of the caller.

A certificate is written by a stranger, and so are the URIs in it. No other scheme is opened, no
redirect followed, no credential, cookie or proxy used, no link-local address (where clouds keep
their secrets) asked. The deadline is one for all of it, name look-up and each byte included: a
server that drips does not move it.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import re
import socket
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from hostler.core.ssl.candidates import FetchFailed
from hostler.core.ssl.lookup import Address, HostNotFound, addresses, connected

MAX_BYTES = 1 << 20
MAX_HEAD_BYTES = 32 << 10
DEFAULT_SECONDS = 5.0
_MOST_ADDRESSES = 4
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,2000}")


@dataclass(frozen=True, slots=True)
class HttpFetcher:
    """Fetches a URI by http. `max_s` bounds each fetch, however long the caller would wait."""

    max_bytes: int = MAX_BYTES
    max_s: float = DEFAULT_SECONDS

    def __call__(self, uri: str, within_s: float) -> bytes:
        """Answer the body. Raises FetchFailed, at the latest when the time is up."""
        ends_at = time.monotonic() + min(within_s, self.max_s)
        try:
            return self._fetched(*_parts(uri), ends_at)
        except TimeoutError:
            raise FetchFailed("did not answer in time") from None

    def _fetched(self, host: str, port: int, target: str, ends_at: float) -> bytes:
        failure = "no address"
        for address in _addresses(host, port, ends_at)[:_MOST_ADDRESSES]:
            try:
                with connected(address, _left(ends_at)) as sock:
                    return self._asked(sock, host, port, target, ends_at)
            except TimeoutError:
                raise
            except OSError as error:
                failure = error.strerror or str(error)
        raise FetchFailed(f"cannot be reached: {failure}")

    def _asked(
        self, sock: socket.socket, host: str, port: int, target: str, ends_at: float
    ) -> bytes:
        named = f"[{host}]" if ":" in host else host
        # HTTP/1.0, so that the end of the body is the end of the connection.
        lines = (
            f"GET {target} HTTP/1.0",
            f"Host: {named}" if port == 80 else f"Host: {named}:{port}",
            "Accept: */*",
            "Connection: close",
        )
        sock.settimeout(_left(ends_at))
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
        return self._body(_received(sock, self.max_bytes + MAX_HEAD_BYTES, ends_at))

    def _body(self, answer: bytes) -> bytes:
        try:
            response = http.client.HTTPResponse(_Bytes(answer))  # type: ignore[arg-type]
            response.begin()
            if 300 <= response.status < 400:
                raise FetchFailed(f"redirects ({response.status}), which is not followed")
            if response.status != 200:
                raise FetchFailed(f"answers {response.status}")
            body = response.read(self.max_bytes + 1)
        except (http.client.HTTPException, ValueError) as error:
            raise FetchFailed(f"does not speak HTTP: {type(error).__name__}") from error
        if len(body) > self.max_bytes:
            raise FetchFailed(f"more than {self.max_bytes} bytes")
        if response.length:
            raise FetchFailed(f"ends {response.length} bytes early")
        return body


class _Bytes:
    """What HTTPResponse wants of a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def _parts(uri: str) -> tuple[str, int, str]:
    """Host, port and request target of a URI. Raises FetchFailed."""
    if not _PRINTABLE.fullmatch(uri):
        raise FetchFailed("is no URI")
    try:
        found = urlsplit(uri)
        host, port = found.hostname or "", found.port or 80
    except ValueError as error:
        raise FetchFailed(f"is no URI: {error}") from error
    if found.scheme.lower() != "http":
        raise FetchFailed(f"is {found.scheme or 'nothing'}:, and only http: is fetched")
    if not host or found.username is not None:
        raise FetchFailed("names no host, or credentials")
    target = found.path or "/"
    return host, port, f"{target}?{found.query}" if found.query else target


def _addresses(host: str, port: int, ends_at: float) -> list[Address]:
    """The addresses of a host that may be asked. Raises FetchFailed."""
    try:
        found = addresses(host, port, ends_at)
    except HostNotFound as error:
        raise FetchFailed(f"has a host that is {error}") from None
    allowed = [address for address in found if _may_be_asked(address[1][0])]
    if not allowed:
        raise FetchFailed("has a host of addresses that are not asked: link-local or of many")
    return allowed


def _may_be_asked(address: str) -> bool:
    plain = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(plain, "ipv4_mapped", None) or plain
    return not (mapped.is_link_local or mapped.is_multicast or mapped.is_unspecified)


def _received(sock: socket.socket, limit: int, ends_at: float) -> bytes:
    """Read to the end, to the announced length, or past the limit. Raises TimeoutError, OSError."""
    data, wanted = bytearray(), limit + 1
    while len(data) < wanted:
        sock.settimeout(_left(ends_at))
        chunk = sock.recv(min(64 << 10, wanted - len(data)))
        if not chunk:
            break
        seen = len(data)
        data += chunk
        head_end = data.find(b"\r\n\r\n", max(0, seen - 3))
        if head_end >= 0 and wanted == limit + 1:
            # A server that keeps the connection open after the body says how long that is.
            wanted = min(wanted, head_end + 4 + _announced(bytes(data[:head_end]), limit))
    return bytes(data)


def _announced(head: bytes, limit: int) -> int:
    found = re.search(rb"\r\ncontent-length:\s*(\d{1,12})\s*(?:\r\n|$)", head.lower())
    return int(found[1]) if found else limit + 1


def _left(ends_at: float) -> float:
    """The time that is left, in seconds. Raises TimeoutError if none is."""
    left_s = ends_at - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
