"""The status page: read-only, for the user of this machine alone.

It listens on loopback, below a path that only its starter is told, and answers to the names of this
machine alone, so that neither another user nor a page of another site gets at it. All it can do is
to show what the board knows.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, ClassVar

from hostler.board.status import HostStatus, summary, worst_first

MOST_WATCHERS = 20
_REQUEST_S = 10.0
# A comment now and then finds watchers that are gone.
_ALIVE_S = 15.0
_FILES: Mapping[str, tuple[str, str]] = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Shown:
    """What the page shows; whoever waits for a newer one is woken."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 0
        self._document = b'{"summary": "Asking the hosts", "hosts": []}'
        self._ended = False

    def show(self, statuses: Sequence[HostStatus]) -> None:
        """Show these."""
        told = [each.as_dict() for each in worst_first(statuses)]
        document = json.dumps({"summary": summary(statuses), "hosts": told}).encode()
        with self._changed:
            self._number, self._document = self._number + 1, document
            self._changed.notify_all()

    def end(self) -> None:
        """Let all who wait go."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def now(self) -> tuple[int, bytes]:
        """Its number, and the document."""
        with self._changed:
            return self._number, self._document

    def after(self, number: int, within_s: float) -> tuple[int, bytes] | None:
        """The next one after a number, or None. Raises EOFError at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._number != number or self._ended, within_s)
            if self._ended:
                raise EOFError
            return None if self._number == number else (self._number, self._document)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], shown: Shown) -> None:
        host = ipaddress.ip_address(address[0])
        if not host.is_loopback:
            raise ValueError(f"{address[0]} is not this machine's own: the page has no log-in")
        if host.version == 6:
            import socket

            self.address_family = socket.AF_INET6
        self.shown = shown
        self.secret = secrets.token_urlsafe(16)
        self.watchers = threading.BoundedSemaphore(MOST_WATCHERS)
        super().__init__(address, _Handler)

    @property
    def names(self) -> frozenset[str]:
        """What a browser of this machine may call it."""
        port = self.server_address[1]
        return frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "hostler"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout: ClassVar[float | None] = _REQUEST_S

    def do_GET(self) -> None:
        """Answer the page, its parts, or the events."""
        prefix = f"/{self.server.secret}/"
        if self.headers.get("Host", "") not in self.server.names:
            self._answer(HTTPStatus.MISDIRECTED_REQUEST)
        elif not secrets.compare_digest(self.path[: len(prefix)].encode(), prefix.encode()):
            self._answer(HTTPStatus.NOT_FOUND)
        elif (name := self.path[len(prefix) :]) == "events":
            self._events()
        elif name == "status.json":
            _, document = self.server.shown.now()
            self._answer(HTTPStatus.OK, document, "application/json")
        elif name in _FILES:
            file, kind = _FILES[name]
            self._answer(HTTPStatus.OK, _part(file), kind)
        else:
            self._answer(HTTPStatus.NOT_FOUND)

    def _answer(self, status: HTTPStatus, body: bytes = b"", kind: str = "text/plain") -> None:
        body = body or status.phrase.encode()
        self.send_response(status)
        self._headers(kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _headers(self, kind: str) -> None:
        for name, value in {"Content-Type": kind, **_HEADERS}.items():
            self.send_header(name, value)

    def _events(self) -> None:
        if not self.server.watchers.acquire(blocking=False):
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        try:
            self.close_connection = True
            self.send_response(HTTPStatus.OK)
            self._headers("text/event-stream")
            self.end_headers()
            self._follow()
        except (EOFError, OSError):
            # The page was closed, or the command is ending.
            return
        finally:
            self.server.watchers.release()

    def _follow(self) -> None:
        number, document = self.server.shown.now()
        while True:
            self.wfile.write(b"data: " + document + b"\n\n")
            while (newer := self.server.shown.after(number, _ALIVE_S)) is None:
                self.wfile.write(b": alive\n\n")
            number, document = newer

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged: the path has the secret in it."""


@cache
def _part(file: str) -> bytes:
    return (files("hostler.board") / "page" / file).read_bytes()


@contextmanager
def served(address: str, port: int, shown: Shown) -> Iterator[str]:
    """Serve the page meanwhile; answers its URL. Port 0 takes any that is free.

    Raises ValueError for an address that is not loopback, OSError.
    """
    server = _Server((address, port), shown)
    thread = threading.Thread(target=server.serve_forever, name="hostler-web", daemon=True)
    thread.start()
    host = f"[{address}]" if ":" in address else address
    try:
        yield f"http://{host}:{server.server_address[1]}/{server.secret}/"
    finally:
        shown.end()
        server.shutdown()
        server.server_close()
        thread.join()
