"""The responder: CRLs, certificates of issuers and OCSP by HTTP, from what the signer published.

It has the delegated key alone, reads one folder, and keeps nothing. Slow callers end by a deadline,
many ones by limits; those over them are closed unheard.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote_to_bytes

from hostler.core.ssl.authority.revocation import ocsp_answer
from hostlerd.authority import http, publishing
from hostlerd.authority.http import HttpRequest, Rejected
from hostlerd.authority.issuer_names import ISSUERS
from hostlerd.authority.published import Published

MAX_CONNECTIONS = 256
MAX_PER_PEER = 32
REQUEST_S = 10.0
SEND_S = 30.0
IDLE_S = 60.0
_MOST_SOCKETS = 8
_FILES = {
    **{f"/{name}.cer": (f"{name}.cer", "application/pkix-cert") for name in ISSUERS},
    **{f"/{name}.crl": (f"{name}.crl", "application/pkix-crl") for name in ISSUERS},
}
_OCSP = "application/ocsp-response"


class HttpResponder:
    """Answers connections."""

    def __init__(self, published: Published, request_s: float = REQUEST_S) -> None:
        self._published = published
        self._request_s = request_s
        self._peers: Counter[str] = Counter()
        self.last = time.monotonic()

    @property
    def connections(self) -> int:
        """How many there are."""
        return self._peers.total()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request, answer it, and end the connection."""
        peer = str((writer.get_extra_info("peername") or ("",))[0])
        if self.connections >= MAX_CONNECTIONS or self._peers[peer] >= MAX_PER_PEER:
            writer.transport.abort()
            return
        self._peers[peer] += 1
        try:
            async with asyncio.timeout(self._request_s):
                answer = await self._answer(reader)
            if answer:
                writer.write(answer)
            async with asyncio.timeout(SEND_S):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):
            writer.transport.abort()
        finally:
            self._peers[peer] -= 1
            # What is zero stays otherwise, one for each address that ever came.
            self._peers += Counter()
            self.last = time.monotonic()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            request = await http.read(reader)
            return b"" if request is None else self.respond(request)
        except Rejected as e:
            return http.answer(e.status)

    def respond(self, request: HttpRequest) -> bytes:
        """Answer a request."""
        try:
            if request.path in _FILES and request.method == "GET":
                name, kind = _FILES[request.path]
                data = self._published.file(name)
                found = HTTPStatus.NOT_FOUND if data is None else HTTPStatus.OK
                return http.answer(found, data or b"", kind)
            asked = _ocsp_request(request)
            if asked is None:
                return http.answer(HTTPStatus.NOT_FOUND)
            told = ocsp_answer(asked, self._published.responders(), datetime.now(UTC))
            return http.answer(HTTPStatus.OK, told, _OCSP)
        except OSError as e:
            sys.stderr.write(f"responder: {e}\n")
            return http.answer(HTTPStatus.INTERNAL_SERVER_ERROR)


def _ocsp_request(request: HttpRequest) -> bytes | None:
    """The OCSP request in a request: the body, or base64 in the path. RFC 6960, A.1."""
    if request.method == "POST":
        return request.body if request.path.rstrip("/") == "/ocsp" else None
    if not request.path.startswith("/ocsp/"):
        return None
    # Some put a slash too many between the responder's URL and the request.
    text = unquote_to_bytes(request.path.removeprefix("/ocsp/").lstrip("/"))
    with suppress(binascii.Error, ValueError):
        return base64.b64decode(text, validate=True)
    return b""


async def serve(
    responder: HttpResponder, listeners: list[socket.socket], idle_s: float = IDLE_S
) -> None:
    """Answer until nobody has come for a while. The sockets stay with systemd."""
    servers = [
        await asyncio.start_server(
            responder.connected, sock=listener, limit=http.MAX_HEAD_BYTES, backlog=256
        )
        for listener in listeners
    ]
    while responder.connections or time.monotonic() - responder.last < idle_s:
        await asyncio.sleep(min(1.0, idle_s / 4))
    for server in servers:
        server.close()
    while responder.connections:
        await asyncio.sleep(0.1)


def main(folder: Path | None) -> None:
    """Serve at the sockets that systemd passes. Source: sd_listen_fds(3)."""
    count = os.environ.get("LISTEN_FDS", "")
    ours = os.environ.get("LISTEN_PID") == str(os.getpid())
    if not ours or not count.isdigit() or not 1 <= int(count) <= _MOST_SOCKETS:
        sys.exit("responder: expects sockets from systemd")
    listeners = []
    for fd in range(3, 3 + int(count)):
        os.set_inheritable(fd, False)
        listeners.append(socket.socket(fileno=fd))
    asyncio.run(serve(HttpResponder(Published(folder or publishing.FOLDER)), listeners))
