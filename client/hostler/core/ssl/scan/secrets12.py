"""Keys and record protection of SSL 3 to TLS 1.2. Sources: RFC 5246 5 and 6, RFC 4346, RFC 6101.

For records it has AES and 3DES in CBC, AES-GCM and ChaCha20; nobody can be made to speak without
one of them unless they do without any security at all.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.ciphers import CipherSuite, suites
from hostler.core.ssl.scan.errors import Malformed, Unsupported
from hostler.core.ssl.scan.records import Record
from hostler.core.ssl.scan.wire import Reader, numbers

_ENCRYPTIONS = (
    *("AES_128_CBC", "AES_256_CBC", "3DES_EDE_CBC"),
    *("AES_128_GCM", "AES_256_GCM", "CHACHA20_POLY1305"),
)


def can_speak(suite: CipherSuite, version: int) -> bool:
    """Whether a whole handshake can be done with a suite."""
    known = suite.kx in ("RSA", "DHE", "ECDHE") and suite.auth in ("RSA", "ECDSA", "DSS")
    return known and suite.enc in _ENCRYPTIONS and version > words.SSL3 and not suite.is_export


@cache
def speakable(version: int) -> tuple[int, ...]:
    """All suites with which a whole handshake can be done."""
    return tuple(
        number
        for number, suite in suites().items()
        if can_speak(suite, version) and suite.least_version <= version
    )


def prf(
    version: int, suite: CipherSuite, secret: bytes, label: bytes, seed: bytes, size: int
) -> bytes:
    """The pseudo-random function of a version, so many bytes of it."""
    if version == words.TLS12:
        algorithm = "sha384" if suite.name.endswith("SHA384") else "sha256"
        return _p_hash(algorithm, secret, label + seed, size)
    half = (len(secret) + 1) // 2
    left = _p_hash("md5", secret[:half], label + seed, size)
    right = _p_hash("sha1", secret[len(secret) - half :], label + seed, size)
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _p_hash(algorithm: str, secret: bytes, seed: bytes, size: int) -> bytes:
    found, chain = b"", seed
    while len(found) < size:
        chain = hmac.digest(secret, chain, algorithm)
        found += hmac.digest(secret, chain + seed, algorithm)
    return found[:size]


def digest_of(version: int, suite: CipherSuite, transcript: bytes) -> bytes:
    """What a Finished is made of."""
    if version == words.TLS12:
        algorithm = "sha384" if suite.name.endswith("SHA384") else "sha256"
        return hashlib.new(algorithm, transcript).digest()
    return (
        hashlib.md5(transcript, usedforsecurity=False).digest()
        + hashlib.sha1(transcript, usedforsecurity=False).digest()
    )


@dataclass(frozen=True, slots=True)
class _Shape:
    mac: str
    mac_size: int
    key_size: int
    iv_size: int


def _shape(suite: CipherSuite, version: int) -> _Shape:
    sizes = {"AES_128": 16, "AES_256": 32, "3DES_ED": 24, "CHACHA2": 32}
    key_size = sizes[suite.enc[:7]]
    if suite.is_aead:
        return _Shape("", 0, key_size, 12 if "CHACHA" in suite.enc else 4)
    mac = next((word for word in ("sha256", "sha384") if suite.name.lower().endswith(word)), "sha1")
    block = 8 if suite.is_3des else 16
    return _Shape(
        mac, hashlib.new(mac).digest_size, key_size, block if version == words.TLS10 else 0
    )


def protections(
    version: int, suite: CipherSuite, master: bytes, client: bytes, server: bytes
) -> tuple[Protection12, Protection12]:
    """What protects records from the client, and from the server. Raises Unsupported."""
    if not can_speak(suite, version):
        raise Unsupported(f"records of {suite.name}")
    shape = _shape(suite, version)
    sizes = [each for each in (shape.mac_size, shape.key_size, shape.iv_size) for _ in range(2)]
    block = Reader(prf(version, suite, master, b"key expansion", server + client, sum(sizes)))
    parts = [block.take(size) for size in sizes]
    ours, theirs = (Protection12(version, suite, shape, *parts[at::2]) for at in (0, 1))
    return ours, theirs


class Protection12:
    """Encrypts or decrypts the records of one direction, in their order."""

    def __init__(
        self, version: int, suite: CipherSuite, shape: _Shape, mac: bytes, key: bytes, iv: bytes
    ) -> None:
        self._version = version
        self._suite = suite
        self._shape = shape
        self._mac = mac
        self._key = key
        self._iv = iv
        self._count = 0

    def encrypt(self, kind: int, body: bytes) -> bytes:
        """A whole record."""
        sealed = self._seal if self._suite.is_aead else self._seal_cbc
        data = sealed(kind, body)
        self._count += 1
        return bytes((kind,)) + numbers((self._version, len(data))) + data

    def decrypt(self, record: Record) -> Record:
        """What is in a record. Raises Malformed if it is not from one with the same keys."""
        opened = self._open if self._suite.is_aead else self._open_cbc
        body = opened(record)
        self._count += 1
        return Record(record.kind, record.version, body)

    def _head(self, kind: int, size: int) -> bytes:
        return self._count.to_bytes(8, "big") + bytes((kind,)) + numbers((self._version, size))

    def _nonce(self, explicit: bytes) -> bytes:
        if "CHACHA" in self._suite.enc:
            return (int.from_bytes(self._iv, "big") ^ self._count).to_bytes(12, "big")
        return self._iv + explicit

    def _aead(self) -> Any:
        from cryptography.hazmat.primitives.ciphers import aead

        kind: Any = aead.ChaCha20Poly1305 if "CHACHA" in self._suite.enc else aead.AESGCM
        return kind(self._key)

    def _seal(self, kind: int, body: bytes) -> bytes:
        explicit = b"" if "CHACHA" in self._suite.enc else self._count.to_bytes(8, "big")
        head = self._head(kind, len(body))
        return explicit + bytes(self._aead().encrypt(self._nonce(explicit), body, head))

    def _open(self, record: Record) -> bytes:
        from cryptography.exceptions import InvalidTag

        size = 0 if "CHACHA" in self._suite.enc else 8
        explicit, data = record.body[:size], record.body[size:]
        head = self._head(record.kind, max(0, len(data) - 16))
        try:
            return bytes(self._aead().decrypt(self._nonce(explicit), data, head))
        except (InvalidTag, ValueError) as error:
            raise Malformed("a record that cannot be decrypted") from error

    def _cbc(self, iv: bytes) -> Any:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        if self._suite.is_3des:
            from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES

            return Cipher(TripleDES(self._key), modes.CBC(iv))
        return Cipher(algorithms.AES(self._key), modes.CBC(iv))

    @property
    def _block(self) -> int:
        return 8 if self._suite.is_3des else 16

    def _seal_cbc(self, kind: int, body: bytes) -> bytes:
        mac = hmac.digest(self._mac, self._head(kind, len(body)) + body, self._shape.mac)
        plain = body + mac
        pad = self._block - 1 - len(plain) % self._block
        plain += bytes((pad,)) * (pad + 1)
        explicit = b"" if self._shape.iv_size else os.urandom(self._block)
        encryptor = self._cbc(explicit or self._iv).encryptor()
        data = bytes(encryptor.update(plain) + encryptor.finalize())
        if self._shape.iv_size:
            self._iv = data[-self._block :]
        return explicit + data

    def _open_cbc(self, record: Record) -> bytes:
        explicit = 0 if self._shape.iv_size else self._block
        iv, data = record.body[:explicit] or self._iv, record.body[explicit:]
        if not data or len(data) % self._block or len(iv) != self._block:
            raise Malformed("a record that is no whole number of blocks")
        decryptor = self._cbc(iv).decryptor()
        plain = bytes(decryptor.update(data) + decryptor.finalize())
        if self._shape.iv_size:
            self._iv = data[-self._block :]
        end = len(plain) - plain[-1] - 1 - self._shape.mac_size
        if end < 0:
            raise Malformed("a record with wrong padding")
        body, mac = plain[:end], plain[end : end + self._shape.mac_size]
        wanted = hmac.digest(self._mac, self._head(record.kind, end) + body, self._shape.mac)
        if not hmac.compare_digest(mac, wanted):
            raise Malformed("a record with a wrong MAC")
        return body
