"""Protocols inside TLS that a server agrees to. Source: RFC 7301."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.checks.suites import Suites
from hostler.core.ssl.scan.connect import Dialer
from hostler.core.ssl.scan.errors import Refused
from hostler.core.ssl.scan.exchange import ask
from hostler.core.ssl.scan.handshake13 import handshake13
from hostler.core.ssl.scan.hello import Hello

# Source: IANA, TLS ALPN Protocol IDs; the draft names of SPDY and HTTP/2 are out of use.
PROTOCOLS = (
    *("h2", "http/1.1", "http/1.0", "http/0.9", "spdy/3", "spdy/2", "acme-tls/1"),
    *("smtp", "imap", "pop3", "managesieve", "ftp", "xmpp-client", "xmpp-server", "postgresql"),
    *("dot", "mqtt", "irc", "nntp", "stun.turn", "webrtc", "coap", "grpc-exp"),
)


@dataclass(frozen=True, slots=True)
class Alpn:
    """The protocols agreed to, in the order of choice. `echoes` if one nobody knows is too."""

    protocols: tuple[str, ...] = ()
    echoes: bool = False


async def probe(dialer: Dialer, found: Sequence[Suites]) -> Alpn:
    """Offer them, leaving out what was chosen. Raises ScanError."""
    supported = [each for each in found if each.is_supported and each.version > words.SSL3]
    if not supported:
        return Alpn()
    old = [each for each in supported if each.version < words.TLS13]
    best = max(old or supported, key=lambda each: each.version)
    left, chosen = list(PROTOCOLS), list[str]()
    while left:
        protocol = await _chosen(dialer, best, left)
        if protocol not in left:
            break
        chosen.append(protocol)
        left.remove(protocol)
    if not chosen:
        return Alpn()
    return Alpn(tuple(chosen), await _chosen(dialer, best, ["hostler-unknown"]) != "")


async def _chosen(dialer: Dialer, best: Suites, offered: Sequence[str]) -> str:
    if best.version == words.TLS13:
        try:
            async with handshake13(dialer, alpn=offered) as session:
                return session.agreed.alpn
        except Refused:
            return ""
    hello = Hello(best.version, best.suites, name=dialer.endpoint.name, alpn=offered)
    answer = (await ask(dialer, hello)).hello
    return answer.alpn if answer else ""
