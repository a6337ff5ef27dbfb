"""ClientHellos as bytes, of every version. Source: RFC 8446 4.1.2, RFC 5246 7.4.1.2, RFC 6101."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from struct import pack

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.ciphers import SSL2_SUITES
from hostler.core.ssl.scan.wire import numbers, vector

# What is offered unless a check wants something else; hybrids have no use without a key share.
GROUPS = (29, 23, 24, 25, 30, 28, 27, 26, 22, 256, 257, 258, 259, 260, 4588, 4587, 4589)
SIGNATURES = (
    *(0x0403, 0x0503, 0x0603, 0x0807, 0x0808, 0x0804, 0x0805, 0x0806, 0x0809, 0x080A, 0x080B),
    *(0x0401, 0x0501, 0x0601, 0x0303, 0x0301, 0x0203, 0x0201, 0x0402, 0x0302, 0x0202, 0x0101),
)
COMMON_ALPN = ("h2", "http/1.1")


@dataclass(frozen=True, slots=True)
class Hello:
    """What a client says first. `alpn` and `groups` that are empty leave their extension out.

    `key_shares` are (group, public key); none at all makes a server of TLS 1.3 choose a group by a
    HelloRetryRequest. `extra` are further extensions, after the others.
    """

    version: int
    suites: Sequence[int]
    name: str = ""
    groups: Sequence[int] = GROUPS
    signatures: Sequence[int] = SIGNATURES
    alpn: Sequence[str] = ()
    compressions: Sequence[int] = (0,)
    key_shares: Sequence[tuple[int, bytes]] = ()
    session_id: bytes = b""
    ticket: bytes | None = b""
    status_request: bool = True
    extended_master: bool = False
    renegotiation: bytes | None = b""
    heartbeat: bool = False
    cookie: bytes = b""
    versions: Sequence[int] = ()
    extra: Sequence[tuple[int, bytes]] = ()
    random: bytes = field(default_factory=lambda: os.urandom(32))

    def message(self) -> bytes:
        """The handshake message."""
        legacy = min(self.version, words.TLS12)
        extensions = b""
        if self.version > words.SSL3:
            extensions = vector(self._extensions(), 2)
        session = self.session_id
        if self.version == words.TLS13 and not session:
            session = self.random  # Middleboxes want to see one. Source: RFC 8446 D.4.
        suites = list(self.suites)
        if self.version == words.SSL3 and self.renegotiation is not None:
            suites.append(words.RENEGOTIATION_SCSV)
        body = (
            numbers((legacy,))
            + self.random
            + vector(session, 1)
            + vector(numbers(suites), 2)
            + vector(bytes(self.compressions), 1)
            + extensions
        )
        return bytes((words.CLIENT_HELLO,)) + vector(body, 3)

    def record(self) -> bytes:
        """The record that carries it, of the version that old servers want to see."""
        version = min(self.version, words.TLS10)
        return bytes((words.HANDSHAKE,)) + numbers((version,)) + vector(self.message(), 2)

    def _extensions(self) -> bytes:
        found: list[bytes] = []
        if self.name:
            found.append(_server_name(self.name))
        if self.groups:
            found.append(_list_of(words.SUPPORTED_GROUPS, tuple(self.groups)))
            found.append(_extension(words.EC_POINT_FORMATS, b"\1\0"))
        if self.status_request:
            found.append(_extension(words.STATUS_REQUEST, b"\1\0\0\0\0"))
        if self.alpn:
            names = b"".join(vector(each.encode(), 1) for each in self.alpn)
            found.append(_extension(words.ALPN, vector(names, 2)))
        if self.heartbeat:
            found.append(_extension(words.HEARTBEAT_EXTENSION, b"\1"))
        if self.version >= words.TLS12:
            found.append(_list_of(words.SIGNATURE_ALGORITHMS, tuple(self.signatures)))
        if self.version <= words.TLS12 or self.versions:
            found += self._of_old_versions()
        if self.version == words.TLS13:
            found += self._of_tls13()
        return b"".join((*found, *(_extension(kind, data) for kind, data in self.extra)))

    def _of_old_versions(self) -> list[bytes]:
        found: list[bytes] = []
        if self.ticket is not None:
            found.append(_extension(words.SESSION_TICKET, self.ticket))
        if self.extended_master:
            found.append(_extension(words.EXTENDED_MASTER_SECRET, b""))
        if self.renegotiation is not None:
            found.append(_extension(words.RENEGOTIATION_INFO, vector(self.renegotiation, 1)))
        return found

    def _of_tls13(self) -> list[bytes]:
        versions = self.versions or (words.TLS13,)
        shares = b"".join(numbers((group,)) + vector(key, 2) for group, key in self.key_shares)
        found = [
            _extension(words.SUPPORTED_VERSIONS, vector(numbers(versions), 1)),
            _extension(words.PSK_MODES, b"\1\1"),
            _extension(words.KEY_SHARE, vector(shares, 2)),
        ]
        if self.cookie:
            found.append(_extension(words.COOKIE, vector(self.cookie, 2)))
        return found


def _extension(kind: int, data: bytes) -> bytes:
    return pack(">HH", kind, len(data)) + data


# A scan says hundreds of hellos that differ in their suites alone.
@lru_cache(maxsize=512)
def _server_name(name: str) -> bytes:
    entry = b"\0" + vector(name.encode("idna"), 2)
    return _extension(words.SERVER_NAME, vector(entry, 2))


@lru_cache(maxsize=512)
def _list_of(kind: int, values: tuple[int, ...]) -> bytes:
    return _extension(kind, vector(numbers(values), 2))


def ssl2_hello() -> bytes:
    """A CLIENT-HELLO of SSL 2 with all its ciphers. Source: draft-hickman-netscape-ssl-00."""
    suites = b"".join(number.to_bytes(3, "big") for number in SSL2_SUITES)
    challenge = os.urandom(16)
    lengths = numbers((len(suites), 0, len(challenge)))
    body = b"\1" + numbers((words.SSL2,)) + lengths + suites + challenge
    return numbers((0x8000 | len(body),)) + body
