"""Renegotiation that a client may begin: work for the server at no cost. Source: RFC 5746.

Whether it is secure is told by the extension, see features; whether it is done at all by asking.
"""

from __future__ import annotations

from collections.abc import Sequence

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.checks.suites import Suites
from hostler.core.ssl.scan.connect import Dialer
from hostler.core.ssl.scan.errors import ClosedEarly, Malformed, Refused, TimedOut, Unsupported
from hostler.core.ssl.scan.handshake12 import Session12, handshake12
from hostler.core.ssl.scan.hello import Hello
from hostler.core.ssl.scan.records import Messages

_MOST_RECORDS = 20


async def probe(dialer: Dialer, found: Sequence[Suites], *, is_secure: bool = True) -> bool | None:
    """Whether the server begins anew when a client asks; None where that cannot be.

    Without secure renegotiation it is asked for in the insecure way. Raises ScanError.
    """
    old = [each for each in found if each.is_supported and words.SSL3 < each.version < words.TLS13]
    if not old:
        return None
    best = max(old, key=lambda each: each.version)
    try:
        async with handshake12(dialer, best.version, only=best.suites) as session:
            return await _ask_again(dialer, session, best, is_secure)
    except (Unsupported, Refused):
        return None
    except TimedOut:
        return False


async def _ask_again(dialer: Dialer, session: Session12, best: Suites, is_secure: bool) -> bool:
    hello = Hello(
        best.version,
        best.suites,
        name=dialer.endpoint.name,
        ticket=None,
        renegotiation=session.verify_data if is_secure else None,
    )
    messages = Messages()
    try:
        await session.send(words.HANDSHAKE, hello.message())
        for _ in range(_MOST_RECORDS):
            record = await session.receive()
            if record.kind == words.ALERT:
                return False
            if record.kind == words.HANDSHAKE:
                kinds = [kind for kind, _body, _raw in messages.feed(record.body)]
                if words.SERVER_HELLO in kinds:
                    return True
    except (ClosedEarly, Malformed):
        return False
    return False
