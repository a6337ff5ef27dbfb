"""The key schedule of TLS 1.3 and its record protection. Source: RFC 8446, sections 5.2 and 7."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.errors import Malformed, Unsupported
from hostler.core.ssl.scan.records import Record
from hostler.core.ssl.scan.wire import numbers, vector

SUITES = (0x1301, 0x1302, 0x1303, 0x1304, 0x1305)
"""The suites whose records can be read here."""


def hash_of(suite: int) -> str:
    """The hash of a suite."""
    return "sha384" if suite == 0x1302 else "sha256"


def extract(algorithm: str, salt: bytes, secret: bytes) -> bytes:
    """HKDF-Extract. Source: RFC 5869."""
    size = hashlib.new(algorithm).digest_size
    return hmac.digest(salt or bytes(size), secret or bytes(size), algorithm)


def expand_label(algorithm: str, secret: bytes, label: str, context: bytes, size: int) -> bytes:
    """HKDF-Expand-Label."""
    info = size.to_bytes(2, "big") + vector(b"tls13 " + label.encode(), 1) + vector(context, 1)
    found, block = b"", b""
    for counter in range(1, -(-size // hashlib.new(algorithm).digest_size) + 1):
        block = hmac.digest(secret, block + info + bytes((counter,)), algorithm)
        found += block
    return found[:size]


def derive(algorithm: str, secret: bytes, label: str, transcript: bytes) -> bytes:
    """Derive-Secret; the transcript is all messages so far."""
    digest = hashlib.new(algorithm, transcript).digest()
    return expand_label(algorithm, secret, label, digest, len(digest))


class Schedule:
    """The secrets of one connection, from a key that was agreed on and perhaps a known one."""

    def __init__(self, suite: int, psk: bytes = b"") -> None:
        self.suite = suite
        self.hash = hash_of(suite)
        self.early = extract(self.hash, b"", psk)
        self._handshake = b""
        self._master = b""

    def binder(self, transcript: bytes) -> bytes:
        """The proof that we know the key of a session. Source: RFC 8446 4.2.11.2."""
        key = derive(self.hash, self.early, "res binder", b"")
        return self.finished(key, transcript)

    def agree(self, shared: bytes) -> None:
        """Go on to the secrets of the handshake."""
        self._handshake = extract(self.hash, derive(self.hash, self.early, "derived", b""), shared)
        self._master = extract(self.hash, derive(self.hash, self._handshake, "derived", b""), b"")

    def handshake_secret(self, who: str, transcript: bytes) -> bytes:
        """The handshake's secret of "c" or "s"."""
        return derive(self.hash, self._handshake, f"{who} hs traffic", transcript)

    def traffic_secret(self, who: str, transcript: bytes) -> bytes:
        """The secret of what follows the handshake."""
        return derive(self.hash, self._master, f"{who} ap traffic", transcript)

    def resumption_psk(self, transcript: bytes, nonce: bytes) -> bytes:
        """The key that a ticket stands for."""
        secret = derive(self.hash, self._master, "res master", transcript)
        return expand_label(self.hash, secret, "resumption", nonce, len(secret))

    def finished(self, secret: bytes, transcript: bytes) -> bytes:
        """What a Finished says."""
        size = hashlib.new(self.hash).digest_size
        key = expand_label(self.hash, secret, "finished", b"", size)
        return hmac.digest(key, hashlib.new(self.hash, transcript).digest(), self.hash)

    def protection(self, secret: bytes) -> Protection:
        """What protects the records of one direction."""
        return Protection(self.suite, self.hash, secret)


class Protection:
    """Encrypts or decrypts the records of one direction, in their order."""

    def __init__(self, suite: int, algorithm: str, secret: bytes) -> None:
        size = 16 if suite in (0x1301, 0x1304, 0x1305) else 32
        key = expand_label(algorithm, secret, "key", b"", size)
        self._nonce = int.from_bytes(expand_label(algorithm, secret, "iv", b"", 12), "big")
        self._cipher = _cipher(suite, key)
        self._tag_bytes = 8 if suite == 0x1305 else 16
        self._count = 0

    def encrypt(self, kind: int, body: bytes) -> bytes:
        """A whole record."""
        inner = body + bytes((kind,))
        head = b"\x17\x03\x03" + numbers((len(inner) + self._tag_bytes,))
        return head + bytes(self._cipher.encrypt(self._next(), inner, head))

    def decrypt(self, record: Record) -> Record:
        """What is in a record. Raises Malformed if its tag is wrong."""
        from cryptography.exceptions import InvalidTag

        head = bytes((record.kind,)) + numbers((record.version, len(record.body)))
        try:
            inner = bytes(self._cipher.decrypt(self._next(), record.body, head)).rstrip(b"\0")
        except (InvalidTag, ValueError) as error:
            raise Malformed("a record that cannot be decrypted") from error
        if not inner:
            raise Malformed("a record without a type")
        return Record(inner[-1], words.TLS13, inner[:-1])

    def _next(self) -> bytes:
        self._count += 1
        return (self._nonce ^ (self._count - 1)).to_bytes(12, "big")


def _cipher(suite: int, key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers import aead

    if suite in (0x1301, 0x1302):
        return aead.AESGCM(key)
    if suite == 0x1303:
        return aead.ChaCha20Poly1305(key)
    if suite in (0x1304, 0x1305):
        return aead.AESCCM(key, tag_length=16 if suite == 0x1304 else 8)
    raise Unsupported(f"records of the suite 0x{suite:04x}")
