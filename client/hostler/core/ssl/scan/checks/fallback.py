"""Downgrade protection: TLS_FALLBACK_SCSV. Source: RFC 7507."""

from __future__ import annotations

from collections.abc import Sequence

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.checks.suites import Suites
from hostler.core.ssl.scan.connect import Dialer
from hostler.core.ssl.scan.exchange import ask
from hostler.core.ssl.scan.hello import Hello


async def probe(dialer: Dialer, found: Sequence[Suites]) -> bool | None:
    """Whether a fallback is noticed; None if there is nothing to fall back to. Raises ScanError."""
    supported = sorted((each for each in found if each.is_supported), key=lambda each: each.version)
    if len(supported) < 2 or supported[-2].version < words.SSL3:
        return None
    lower = supported[-2]
    offered = [*lower.suites, words.FALLBACK_SCSV]
    answer = await ask(dialer, Hello(lower.version, offered, name=dialer.endpoint.name))
    return answer.hello is None
