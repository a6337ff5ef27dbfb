"""A session: what a full handshake has led to, and how to go on in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.connect import Channel
from hostler.core.ssl.scan.errors import ClosedEarly, ScanError
from hostler.core.ssl.scan.records import Record


@dataclass(slots=True)
class Agreed:
    """What a handshake has led to. `group` is None where none was used or it has no name."""

    version: int
    suite: int
    group: int | None = None
    certificates: tuple[bytes, ...] = ()
    stapled: bytes = b""
    alpn: str = ""
    wants_certificate: bool = False
    is_resumed: bool = False
    session_id: bytes = b""
    tickets: list[Ticket] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a session may be resumed with. `early_data_bytes` is 0 where none is welcome."""

    suite: int
    identity: bytes = field(repr=False)
    secret: bytes = field(repr=False)
    lifetime_s: int = 0
    age_add: int = 0
    early_data_bytes: int = 0
    version: int = words.TLS13


class Session(ABC):
    """A connection on which both sides have finished their handshake."""

    def __init__(self, channel: Channel, agreed: Agreed) -> None:
        self.channel = channel
        self.agreed = agreed

    @abstractmethod
    async def send(self, kind: int, body: bytes) -> None:
        """Send a protected record. Raises ScanError."""

    @abstractmethod
    async def receive(self) -> Record:
        """Receive a record and open it. Raises ScanError."""

    async def end(self) -> None:
        """Say goodbye: OpenSSL forgets a session that ended without. Source: SSL_shutdown(3)."""
        with suppress(ScanError):
            await self.send(words.ALERT, b"\1\0")

    async def talk(self, said: bytes, most_bytes: int, begins: bytes, until: bytes) -> bytes:
        """Send data, and answer what came back up to a mark, the end or so many bytes.

        What does not begin as it should is not listened to any further.
        """
        await self.send(words.APPLICATION_DATA, said)
        found = b""
        while len(found) < most_bytes and until not in found:
            try:
                record = await self.receive()
            except ClosedEarly:
                break
            if record.kind == words.ALERT:
                break
            if record.kind == words.APPLICATION_DATA:
                found += record.body
                if found[: len(begins)] != begins[: len(found)]:
                    break
        return found
