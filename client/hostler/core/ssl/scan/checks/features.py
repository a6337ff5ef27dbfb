"""Extensions that a server of TLS 1.2 and before answers to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.checks.suites import Suites
from hostler.core.ssl.scan.ciphers import suite
from hostler.core.ssl.scan.connect import Dialer
from hostler.core.ssl.scan.exchange import ask
from hostler.core.ssl.scan.hello import Hello


@dataclass(frozen=True, slots=True)
class Features:
    """Which extensions were answered to. `encrypt_then_mac` is None without a suite in CBC."""

    secure_renegotiation: bool
    session_ticket: bool
    extended_master_secret: bool
    encrypt_then_mac: bool | None
    heartbeat: bool


async def probe(dialer: Dialer, found: Sequence[Suites]) -> Features | None:
    """Ask for all of them; None if only TLS 1.3 is spoken. Raises ScanError."""
    old = [each for each in found if each.is_supported and each.version < words.TLS13]
    if not old:
        return None
    best = max(old, key=lambda each: each.version)
    chained = [number for number in best.suites if suite(number).is_cbc]
    hello = Hello(
        best.version,
        chained or best.suites,
        name=dialer.endpoint.name,
        extended_master=True,
        heartbeat=True,
        extra=((words.ENCRYPT_THEN_MAC, b""),),
    )
    answer = (await ask(dialer, hello)).hello
    extensions = answer.extensions if answer else {}
    return Features(
        words.RENEGOTIATION_INFO in extensions,
        words.SESSION_TICKET in extensions,
        words.EXTENDED_MASTER_SECRET in extensions,
        words.ENCRYPT_THEN_MAC in extensions if chained else None,
        words.HEARTBEAT_EXTENSION in extensions,
    )
