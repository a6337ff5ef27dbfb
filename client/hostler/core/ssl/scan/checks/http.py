"""HTTP inside TLS: whether browsers are told to come by TLS alone. Source: RFC 6797 (HSTS)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.checks.suites import Suites
from hostler.core.ssl.scan.connect import Dialer
from hostler.core.ssl.scan.errors import Refused, TimedOut, Unsupported
from hostler.core.ssl.scan.handshake12 import handshake12
from hostler.core.ssl.scan.handshake13 import handshake13

if TYPE_CHECKING:
    from hostler.core.ssl.scan.session import Session

_MOST_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Http:
    """What an HTTP server says in its headers. `max_age_s` is None without HSTS."""

    status: int
    server: str = ""
    max_age_s: int | None = None
    include_subdomains: bool = False
    preload: bool = False


async def probe(dialer: Dialer, found: Sequence[Suites]) -> Http | None:
    """Ask for the headers; None if it is no HTTP server, or cannot be spoken with.

    Raises ScanError.
    """
    supported = [each for each in found if each.is_supported and each.version > words.SSL3]
    if not supported or dialer.endpoint.starttls:
        return None
    best = max(supported, key=lambda each: each.version)
    alpn = ("http/1.1",)
    session: AbstractAsyncContextManager[Session]
    if best.version == words.TLS13:
        session = handshake13(dialer, alpn=alpn)
    else:
        session = handshake12(dialer, best.version, only=best.suites, alpn=alpn)
    host = dialer.endpoint.name or dialer.endpoint.host
    host = f"[{host}]" if ":" in host else host
    said = f"GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: hostler\r\nConnection: close\r\n\r\n"
    try:
        async with session as talking:
            answer = await talking.talk(
                said.encode("latin-1", "replace"), _MOST_BYTES, b"HTTP/", b"\r\n\r\n"
            )
    except (Refused, Unsupported, TimedOut):
        return None
    return read(answer)


def read(answer: bytes) -> Http | None:
    """Read the headers of an answer; None if it is none of HTTP."""
    lines = answer.split(b"\r\n\r\n", 1)[0].decode("latin-1").split("\r\n")
    status = re.match(r"HTTP/\d(?:\.\d)? (\d{3})", lines[0])
    if status is None:
        return None
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        # Of several only the first counts. Source: RFC 6797 8.1.
        headers.setdefault(name.strip().lower(), value.strip())
    policy = headers.get("strict-transport-security")
    server = headers.get("server", "")[:200]
    if policy is None:
        return Http(int(status[1]), server)
    directives = {
        name.strip().lower(): value.strip().strip('"')
        for name, _, value in (part.partition("=") for part in policy.split(";"))
    }
    age = directives.get("max-age", "")
    return Http(
        int(status[1]),
        server,
        int(age) if re.fullmatch(r"\d{1,12}", age) else None,
        "includesubdomains" in directives,
        "preload" in directives,
    )
