"""SSL 2: whether it is spoken, and with which ciphers. Source: draft-hickman-netscape-ssl-00."""

from __future__ import annotations

from dataclasses import dataclass

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.connect import Channel, Dialer
from hostler.core.ssl.scan.errors import ClosedEarly, NotTls
from hostler.core.ssl.scan.hello import ssl2_hello
from hostler.core.ssl.scan.wire import Reader

_SERVER_HELLO = 4
_MOST_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Ssl2:
    """What SSL 2 accepts. It may be spoken without a cipher, which DROWN needs no more of."""

    is_supported: bool = False
    suites: tuple[int, ...] = ()
    certificate: bytes = b""


async def probe(dialer: Dialer) -> Ssl2:
    """Find out. Raises ScanError."""
    async with dialer.open() as channel:
        await channel.write(ssl2_hello())
        try:
            return await _read(channel)
        except ClosedEarly:
            return Ssl2()


async def _read(channel: Channel) -> Ssl2:
    head = await channel.read(2)
    if not head[0] & 0x80:
        # A server that knows better versions answers with an alert of theirs.
        kind = head[0]
        if kind in (words.ALERT, words.HANDSHAKE) and head[1] == 3:
            return Ssl2()
        raise NotTls("it speaks another protocol, or none")
    length = int.from_bytes(head, "big") & 0x7FFF
    if length > _MOST_BYTES:
        raise NotTls(f"a record of {length} bytes")
    reader = Reader(await channel.read(length))
    if reader.number(1) != _SERVER_HELLO:
        return Ssl2()
    reader.take(2)  # Whether it knows our session, and the type of its certificate.
    if reader.number(2) != words.SSL2:
        return Ssl2()
    certificate_size, suites_size, _id_size = (reader.number(2) for _ in range(3))
    certificate, suites = reader.take(certificate_size), reader.take(suites_size)
    found = tuple(int.from_bytes(suites[at : at + 3], "big") for at in range(0, len(suites), 3))
    return Ssl2(True, found, certificate)
