"""Sessions that are taken up again: by id, by ticket, by the tickets of TLS 1.3."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.checks.suites import Suites
from hostler.core.ssl.scan.connect import Dialer
from hostler.core.ssl.scan.errors import ClosedEarly, Refused, Unsupported
from hostler.core.ssl.scan.handshake12 import Known, handshake12
from hostler.core.ssl.scan.handshake13 import Session13, handshake13
from hostler.core.ssl.scan.session import Ticket

_MOST_RECORDS = 20


@dataclass(frozen=True, slots=True)
class Resumption:
    """What was taken up again; None where the version, or a suite we can speak, is missing.

    `lifetime_s` is how long the server says that a ticket is good, `early_data_bytes` how much it
    would take before the handshake has ended.
    """

    by_id: bool | None = None
    by_ticket: bool | None = None
    by_tls13: bool | None = None
    lifetime_s: int = 0
    early_data_bytes: int = 0


async def probe(dialer: Dialer, found: Sequence[Suites]) -> Resumption:
    """Do handshakes twice. Raises ScanError."""
    old = [each for each in found if each.is_supported and words.SSL3 < each.version < words.TLS13]
    best = max(old, key=lambda each: each.version, default=None)
    new = any(each.version == words.TLS13 and each.is_supported for each in found)
    by_id, by_ticket, (ticket, is_resumed) = await asyncio.gather(
        _of_old(dialer, best, with_ticket=False),
        _of_old(dialer, best, with_ticket=True),
        _of_tls13(dialer, new),
    )
    if ticket is None:
        return Resumption(by_id, by_ticket, is_resumed)
    return Resumption(by_id, by_ticket, is_resumed, ticket.lifetime_s, ticket.early_data_bytes)


async def _of_old(dialer: Dialer, best: Suites | None, *, with_ticket: bool) -> bool | None:
    if best is None:
        return None
    try:
        async with handshake12(
            dialer, best.version, only=best.suites, with_ticket=with_ticket
        ) as session:
            agreed, master = session.agreed, session.master
    except (Unsupported, Refused):
        return None
    identity = agreed.tickets[0].identity if agreed.tickets else b""
    if not (identity if with_ticket else agreed.session_id):
        return False
    known = Known(agreed.suite, master, b"" if with_ticket else agreed.session_id, identity)
    try:
        async with handshake12(
            dialer, best.version, only=(agreed.suite,), known=known, with_ticket=with_ticket
        ) as session:
            return session.agreed.is_resumed
    except Refused:
        return False


async def _of_tls13(dialer: Dialer, is_spoken: bool) -> tuple[Ticket | None, bool | None]:
    if not is_spoken:
        return None, None
    try:
        async with handshake13(dialer, extra_s=dialer.limits.quiet_s) as session:
            await _wait_for_ticket(session)
            tickets = session.agreed.tickets
    except (Unsupported, Refused):
        return None, None
    if not tickets:
        return None, False
    try:
        async with handshake13(dialer, ticket=tickets[0]) as session:
            return tickets[0], session.agreed.is_resumed
    except Refused:
        return tickets[0], False


async def _wait_for_ticket(session: Session13) -> None:
    """A server sends tickets when it likes to, which most do at once."""
    try:
        async with asyncio.timeout(session.channel.quiet_s):
            for _ in range(_MOST_RECORDS):
                record = await session.receive()
                if session.agreed.tickets or record.kind == words.ALERT:
                    return
    except (TimeoutError, ClosedEarly):
        return
