"""Heartbleed: memory of the server for the asking. Source: CVE-2014-0160, RFC 6520.

The request claims to hold more than it does, by a few bytes only: enough to see the flaw, and
nothing of what is in the server's memory is kept. What follows it no server can leave unanswered,
so that a sound one is known at once and not by waiting.
"""

from __future__ import annotations

from collections.abc import Sequence

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.checks.suites import Suites
from hostler.core.ssl.scan.connect import Dialer
from hostler.core.ssl.scan.errors import ClosedEarly, NotTls
from hostler.core.ssl.scan.exchange import listen
from hostler.core.ssl.scan.hello import Hello
from hostler.core.ssl.scan.records import read_record, write_record
from hostler.core.ssl.scan.wire import numbers, vector

_REQUEST, _CLAIMED = 1, 32
_MOST_RECORDS = 10


async def probe(dialer: Dialer, found: Sequence[Suites]) -> bool | None:
    """Whether it bleeds; None if only TLS 1.3 is spoken. Raises ScanError."""
    old = [each for each in found if each.is_supported and each.version < words.TLS13]
    if not old:
        return None
    best = max(old, key=lambda each: each.version)
    hello = Hello(best.version, best.suites, name=dialer.endpoint.name, heartbeat=True)
    async with dialer.open() as channel:
        await channel.write(hello.record())
        if not (await listen(channel, whole=True)).done:
            return False
        request = bytes((_REQUEST,)) + numbers((_CLAIMED,))
        finished = bytes((words.FINISHED,)) + vector(bytes(12), 3)
        await channel.write(
            write_record(words.HEARTBEAT, best.version, request)
            + write_record(words.HANDSHAKE, best.version, finished)
        )
        try:
            for _ in range(_MOST_RECORDS):
                record = await read_record(channel)
                if record.kind == words.HEARTBEAT:
                    return len(record.body) > len(request)
                if record.kind == words.ALERT:
                    return False
        except (ClosedEarly, NotTls):
            return False
    return False
