"""CCS injection: keys of nothing, taken before there are any. Source: CVE-2014-0224.

A sound server refuses a ChangeCipherSpec that comes before the keys as unexpected. A flawed one
takes it, and then finds that the next record is not protected by them.
"""

from __future__ import annotations

from collections.abc import Sequence

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.checks.suites import Suites
from hostler.core.ssl.scan.connect import Dialer
from hostler.core.ssl.scan.errors import ClosedEarly, NotTls
from hostler.core.ssl.scan.exchange import listen
from hostler.core.ssl.scan.hello import Hello
from hostler.core.ssl.scan.records import read_alert, read_record, write_record

_BAD_MAC, _DECRYPTION_FAILED = 20, 21


async def probe(dialer: Dialer, found: Sequence[Suites]) -> bool | None:
    """Whether it is flawed; None if only TLS 1.3 is spoken. Raises ScanError."""
    old = [each for each in found if each.is_supported and each.version < words.TLS13]
    if not old:
        return None
    best = max(old, key=lambda each: each.version)
    hello = Hello(best.version, best.suites, name=dialer.endpoint.name)
    async with dialer.open() as channel:
        await channel.write(hello.record())
        if not (await listen(channel, whole=True)).done:
            return False
        await channel.write(
            write_record(words.CHANGE_CIPHER_SPEC, best.version, b"\1")
            + write_record(words.HANDSHAKE, best.version, bytes(64))
        )
        try:
            record = await read_record(channel)
        except (ClosedEarly, NotTls):
            return False
    return record.kind == words.ALERT and read_alert(record) in (_BAD_MAC, _DECRYPTION_FAILED)
