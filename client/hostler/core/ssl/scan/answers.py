"""What servers answer, read from their messages. Source: RFC 8446 4.1.3, RFC 5246 7.4, RFC 8422."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.errors import Malformed
from hostler.core.ssl.scan.wire import Reader

# The random value that makes a ServerHello a HelloRetryRequest. Source: RFC 8446 4.1.3.
RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_MOST_CERTIFICATES = 100


@dataclass(frozen=True, slots=True)
class ServerHello:
    """What a server has chosen. `version` is the real one; `is_retry` asks for another hello."""

    version: int
    random: bytes
    session_id: bytes
    suite: int
    compression: int
    extensions: Mapping[int, bytes]

    @property
    def is_retry(self) -> bool:
        """Whether it is a HelloRetryRequest."""
        return self.random == RETRY

    @property
    def group(self) -> int | None:
        """The group of TLS 1.3; None if none is named."""
        share = self.extensions.get(words.KEY_SHARE, b"")
        return int.from_bytes(share[:2], "big") if len(share) >= 2 else None

    @property
    def share(self) -> bytes:
        """The server's public key of TLS 1.3. Raises Malformed."""
        reader = Reader(self.extensions.get(words.KEY_SHARE, b""))
        reader.take(2)
        return reader.vector(2)

    @property
    def alpn(self) -> str:
        """The protocol it has chosen, "" if none. Raises Malformed."""
        return read_alpn(self.extensions)

    @property
    def cookie(self) -> bytes:
        """What a HelloRetryRequest wants back."""
        data = self.extensions.get(words.COOKIE)
        return Reader(data).vector(2) if data else b""


@dataclass(frozen=True, slots=True)
class KeyExchange:
    """A ServerKeyExchange: a curve with the server's point, or a prime field.

    `bits` is the size of the prime; of a curve it is the curve's.
    """

    group: int | None = None
    bits: int = 0
    public: bytes = b""
    prime: int = 0
    generator: int = 0


@dataclass(slots=True)
class Answer:
    """What came after a hello, as far as it was listened to."""

    hello: ServerHello | None = None
    certificates: tuple[bytes, ...] = ()
    stapled: bytes = b""
    key_exchange: bytes = b""
    wants_certificate: bool = False
    done: bool = False
    alert: int | None = None
    is_closed: bool = False
    messages: list[bytes] = field(default_factory=list)

    def accepts(self, version: int) -> bool:
        """Whether the server has chosen this version."""
        return self.hello is not None and self.hello.version == version

    def take(self, kind: int, body: bytes) -> None:
        """Take a handshake message in. Raises Malformed."""
        if kind == words.SERVER_HELLO:
            self.hello = read_server_hello(body)
        elif kind == words.CERTIFICATE:
            self.certificates = read_certificates(body)
        elif kind == words.CERTIFICATE_STATUS:
            self.stapled = read_status(body)
        elif kind == words.SERVER_KEY_EXCHANGE:
            self.key_exchange = body
        elif kind == words.CERTIFICATE_REQUEST:
            self.wants_certificate = True
        elif kind == words.SERVER_HELLO_DONE:
            self.done = True


def read_extensions(reader: Reader) -> dict[int, bytes]:
    """A list of extensions; of one that comes twice the last. Raises Malformed."""
    found: dict[int, bytes] = {}
    inner = Reader(reader.vector(2))
    while len(inner):
        kind = inner.number(2)
        found[kind] = inner.vector(2)
    return found


def read_server_hello(body: bytes) -> ServerHello:
    """Read one. Raises Malformed."""
    reader = Reader(body)
    version, random = reader.number(2), reader.take(32)
    session_id, suite, compression = reader.vector(1), reader.number(2), reader.number(1)
    extensions = read_extensions(reader) if len(reader) else {}
    real = extensions.get(words.SUPPORTED_VERSIONS)
    if real is not None:
        version = int.from_bytes(real, "big")
    return ServerHello(version, random, session_id, suite, compression, extensions)


def read_certificates(body: bytes) -> tuple[bytes, ...]:
    """The certificates of a Certificate up to TLS 1.2, as DER. Raises Malformed."""
    reader = Reader(Reader(body).vector(3))
    found: list[bytes] = []
    while len(reader):
        found.append(reader.vector(3))
        if len(found) > _MOST_CERTIFICATES:
            raise Malformed(f"more than {_MOST_CERTIFICATES} certificates")
    return tuple(found)


def read_certificates13(body: bytes) -> tuple[tuple[bytes, ...], bytes]:
    """The certificates of TLS 1.3, and the OCSP response stapled to the first. Raises Malformed."""
    outer = Reader(body)
    outer.vector(1)
    reader = Reader(outer.vector(3))
    found: list[bytes] = []
    stapled = b""
    while len(reader):
        found.append(reader.vector(3))
        extensions = read_extensions(reader)
        if len(found) == 1 and words.STATUS_REQUEST in extensions:
            stapled = read_status(extensions[words.STATUS_REQUEST])
        if len(found) > _MOST_CERTIFICATES:
            raise Malformed(f"more than {_MOST_CERTIFICATES} certificates")
    return tuple(found), stapled


def read_status(body: bytes) -> bytes:
    """The OCSP response of a CertificateStatus as DER. Source: RFC 6066 8. Raises Malformed."""
    reader = Reader(body)
    return reader.vector(3) if reader.number(1) == 1 else b""


def read_alpn(extensions: Mapping[int, bytes]) -> str:
    """The protocol that a server has chosen. Raises Malformed."""
    data = extensions.get(words.ALPN)
    if data is None:
        return ""
    return Reader(Reader(data).vector(2)).vector(1).decode("ascii", "backslashreplace")


def read_key_exchange(body: bytes, kx: str) -> KeyExchange:
    """What a ServerKeyExchange holds, by the suite's key exchange. Raises Malformed."""
    reader = Reader(body)
    if kx.startswith("ECDH"):
        if reader.number(1) != 3:
            raise Malformed("a curve without a name")
        group = reader.number(2)
        return KeyExchange(group, words.group_bits(group), reader.vector(1))
    if kx.startswith("DH"):
        prime, generator, public = reader.vector(2), reader.vector(2), reader.vector(2)
        modulus = int.from_bytes(prime, "big")
        return KeyExchange(
            None, modulus.bit_length(), public, modulus, int.from_bytes(generator, "big")
        )
    raise Malformed(f"a ServerKeyExchange of the key exchange {kx}")
