"""Virtual hosts: which certificate each name gets, and what comes without a name."""

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


@dataclass(frozen=True, slots=True)
class Named:
    """What a name gets: a chain, or a refusal. An empty name is none."""

    name: str
    chain: tuple[bytes, ...] = ()
    refusal: str = ""


async def probe(dialer: Dialer, found: Sequence[Suites], names: Sequence[str]) -> tuple[Named, ...]:
    """Ask for each name, and without one. Raises ScanError."""
    supported = [each for each in found if each.is_supported]
    if not supported:
        return ()
    # Before TLS 1.3 certificates come in the clear, which costs neither side a key exchange.
    old = [each for each in supported if each.version < words.TLS13]
    best = max(old or supported, key=lambda each: each.version)
    return tuple([await _ask(dialer, best, name) for name in dict.fromkeys(("", *names))])


async def _ask(dialer: Dialer, best: Suites, name: str) -> Named:
    if best.version == words.TLS13:
        try:
            async with handshake13(dialer, name=name) as session:
                return Named(name, session.agreed.certificates)
        except Refused as error:
            return Named(name, refusal=str(error))
    answer = await ask(dialer, Hello(best.version, best.suites, name=name), whole=True)
    if answer.certificates:
        return Named(name, answer.certificates)
    refused = words.alert_name(answer.alert) if answer.alert is not None else "closed"
    return Named(name, refusal=f"refused by {refused}")
