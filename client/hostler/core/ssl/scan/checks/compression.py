"""Compression inside TLS, which gives secrets away. Source: RFC 3749, CVE-2012-4929 (CRIME)."""

from __future__ import annotations

from collections.abc import Sequence

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.checks.suites import Suites
from hostler.core.ssl.scan.connect import Dialer
from hostler.core.ssl.scan.exchange import ask
from hostler.core.ssl.scan.hello import Hello

_DEFLATE, _LZS = 1, 64
_NAMES = {_DEFLATE: "DEFLATE", _LZS: "LZS"}


async def probe(dialer: Dialer, found: Sequence[Suites]) -> str | None:
    """The method that is used, "" if none is; None where there is no such thing.

    Raises ScanError.
    """
    old = [each for each in found if each.is_supported and each.version < words.TLS13]
    if not old:
        return None
    best = max(old, key=lambda each: each.version)
    hello = Hello(
        best.version, best.suites, name=dialer.endpoint.name, compressions=(_DEFLATE, _LZS, 0)
    )
    answer = (await ask(dialer, hello)).hello
    if answer is None or answer.compression == 0:
        return ""
    return _NAMES.get(answer.compression, f"method {answer.compression}")
