"""Certificates, keys and CRLs out of the bytes of a file: PEM, DER, PKCS #7 and PKCS #12.

The kind is told by the content, never by a file's suffix. Whatever is wrong is named with its
place, and the rest is read: nothing here raises, whatever the bytes are. Private keys are described
and forgotten.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from hostler.core.ssl import der, pem
from hostler.core.ssl.certificate import Certificate, CertificateUnreadable, parse_errors
from hostler.core.ssl.der import DerError, Tlv
from hostler.core.ssl.kdf import check_work
from hostler.core.ssl.key import KeyFacts, private_key_facts

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

MAX_BYTES = 4 << 20
MAX_CERTIFICATES = 5_000
_MOST_FAULTS = 100
_SIGNED_DATA = "1.2.840.113549.1.7.2"


class FaultCode(StrEnum):
    """What is wrong with a file. The names are never changed."""

    TOO_LARGE = "TOO_LARGE"
    TOO_MANY = "TOO_MANY"
    EMPTY = "EMPTY"
    UNKNOWN_FORMAT = "UNKNOWN_FORMAT"
    PEM_MALFORMED = "PEM_MALFORMED"
    CERTIFICATE_MALFORMED = "CERTIFICATE_MALFORMED"
    CONTAINER_MALFORMED = "CONTAINER_MALFORMED"
    KEY_MALFORMED = "KEY_MALFORMED"
    PASSPHRASE_NEEDED = "PASSPHRASE_NEEDED"  # noqa: S105 # a name
    PASSPHRASE_WRONG = "PASSPHRASE_WRONG"  # noqa: S105 # a name


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that could not be read, where, and why."""

    code: FaultCode
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(frozen=True, slots=True)
class Key:
    """A private key that a file holds: its facts, and where. Never the key."""

    facts: KeyFacts
    place: str


@dataclass(frozen=True, slots=True)
class Contents:
    """What bytes hold, in their order. `kind` is pem, der, pkcs7, pkcs12 or empty."""

    kind: str = ""
    certificates: tuple[Certificate, ...] = ()
    keys: tuple[Key, ...] = ()
    crls: tuple[bytes, ...] = ()
    faults: tuple[Fault, ...] = ()


def read_contents(
    data: bytes,
    source: str,
    passphrase: bytes | None = None,
    *,
    max_bytes: int = MAX_BYTES,
    max_certificates: int = MAX_CERTIFICATES,
) -> Contents:
    """Read all that bytes hold; what is wrong is in the answer's `faults`. Never raises.

    `source` is what places begin with: a path or a URI. A key or PKCS #12 that is encrypted needs
    the passphrase; without it an encrypted key is answered as that, of no known kind.
    """
    reader = _Reader(source, passphrase, max_certificates)
    if len(data) > max_bytes:
        reader.fault(FaultCode.TOO_LARGE, source, f"{len(data)} bytes, more than {max_bytes}")
    elif not data.strip(b"\0 \t\r\n"):
        reader.fault(FaultCode.EMPTY, source, "nothing is in it")
    elif pem.looks_like_pem(data):
        reader.read_pem(data)
    else:
        reader.read_der(data, source)
    return reader.contents()


@dataclass
class _Reader:
    source: str
    passphrase: bytes | None
    max_certificates: int
    kind: str = ""
    certificates: list[Certificate] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    crls: list[bytes] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def contents(self) -> Contents:
        return Contents(
            self.kind,
            tuple(self.certificates),
            tuple(self.keys),
            tuple(self.crls),
            tuple(self.faults),
        )

    def fault(self, code: FaultCode, place: str, message: object) -> None:
        if len(self.faults) < _MOST_FAULTS:
            self.faults.append(Fault(code, place, " ".join(str(message).split())[:300]))

    # PEM

    def read_pem(self, data: bytes) -> None:
        self.kind = "pem"
        for block in pem.blocks(data):
            place = f"{self.source}:{block.line}"
            if block.fault:
                self.fault(FaultCode.PEM_MALFORMED, place, block.fault)
            if block.body is not None:
                self._pem_block(block, block.body, place)
            if self._full(place):
                return

    def _pem_block(self, block: pem.Block, body: bytes, place: str) -> None:
        label = block.label
        if label in ("CERTIFICATE", "X509 CERTIFICATE"):
            self._certificate(body, place)
        elif label == "TRUSTED CERTIFICATE":
            self._trusted(body, place)
        elif label in ("PKCS7", "CMS"):
            self._pkcs7(body, place)
        elif label == "X509 CRL":
            self._crl(body, place)
        elif label.endswith("PRIVATE KEY") and label != "OPENSSH PRIVATE KEY":
            self._pem_key(block, body, place)

    def _trusted(self, body: bytes, place: str) -> None:
        # OpenSSL appends what it is trusted for.
        try:
            self._certificate(der.read(body)[0].whole, place)
        except DerError as error:
            self.fault(FaultCode.CERTIFICATE_MALFORMED, place, error)

    def _pem_key(self, block: pem.Block, body: bytes, place: str) -> None:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        encrypted = block.encrypted
        self._key(body, place, encrypted, lambda p: load_pem_private_key(block.text, p))

    # DER

    def read_der(self, data: bytes, place: str) -> None:
        self.kind = "der"
        if data[:2] == b"\x30\x80":
            # Indefinite lengths: BER, which some write PKCS #7 in.
            self._pkcs7(data, place)
            return
        try:
            first, end = der.read(data)
            parts = der.children(first.expect(der.SEQUENCE, "the outermost value"))
        except DerError as error:
            self.fault(FaultCode.UNKNOWN_FORMAT, place, f"neither PEM nor DER: {error}")
            return
        kind = _kind(parts)
        if kind is None:
            self.fault(FaultCode.UNKNOWN_FORMAT, place, "DER that is no certificate, key or list")
            return
        kind(self, first.whole, place)
        if end != len(data):
            self._rest(data, end)

    def _rest(self, data: bytes, at: int) -> None:
        """Certificates that follow the first one, as some concatenate them."""
        index = 2
        while at < len(data) and self.certificates and not self._full(self.source):
            place = f"{self.source}#{index}"
            try:
                value, at = der.read(data, at)
            except DerError as error:
                self.fault(FaultCode.CERTIFICATE_MALFORMED, place, f"bytes that follow: {error}")
                return
            self._certificate(value.whole, place)
            index += 1

    # Values

    def _full(self, place: str) -> bool:
        if len(self.certificates) < self.max_certificates:
            return False
        self.fault(
            FaultCode.TOO_MANY, place, f"more than {self.max_certificates} certificates: not read"
        )
        return True

    def _certificate(self, body: bytes, place: str) -> None:
        try:
            self.certificates.append(Certificate.read(body, place))
        except CertificateUnreadable as error:
            self.fault(FaultCode.CERTIFICATE_MALFORMED, place, error)

    def certificate_or_crl(self, body: bytes, place: str) -> None:
        if _is_crl(body):
            self._crl(body, place)
        else:
            self._certificate(body, place)

    def _crl(self, body: bytes, place: str) -> None:
        from cryptography import x509

        try:
            x509.load_der_x509_crl(body)
        except parse_errors() as error:
            self.fault(FaultCode.CONTAINER_MALFORMED, place, f"CRL: {error}")
        else:
            self.crls.append(body)

    def _pkcs7(self, body: bytes, place: str) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

        self.kind = self.kind if self.kind == "pem" else "pkcs7"
        try:
            with warnings.catch_warnings():
                # It warns of BER, which some write.
                warnings.simplefilter("ignore")
                found = pkcs7.load_der_pkcs7_certificates(body)
        except parse_errors() as error:
            self.fault(FaultCode.CONTAINER_MALFORMED, place, f"PKCS #7: {error}")
            return
        for index, certificate in enumerate(found, 1):
            if self._full(place):
                return
            self._certificate(certificate.public_bytes(Encoding.DER), f"{place}#{index}")

    def _pkcs12(self, body: bytes, place: str) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, pkcs12

        self.kind = "pkcs12"
        try:
            check_work(body)
            found = pkcs12.load_pkcs12(body, self.passphrase)
        except DerError as error:
            self.fault(FaultCode.CONTAINER_MALFORMED, place, f"PKCS #12: {error}")
        except parse_errors() as error:
            self.fault(self._passphrase_fault(error), place, f"PKCS #12: {error}")
        else:
            bags = [found.cert, *found.additional_certs]
            for index, bag in enumerate((bag for bag in bags if bag), 1):
                at = f"{place}#{index}"
                self._certificate(bag.certificate.public_bytes(Encoding.DER), at)
            if found.key is not None:
                encrypted = self.passphrase is not None
                self.keys.append(Key(private_key_facts(found.key, encrypted=encrypted), place))

    def _der_key(self, body: bytes, place: str, *, encrypted: bool) -> None:
        from cryptography.hazmat.primitives.serialization import load_der_private_key

        self._key(body, place, encrypted, lambda p: load_der_private_key(body, p))

    def _key(
        self,
        body: bytes,
        place: str,
        encrypted: bool,
        load: Callable[[bytes | None], PrivateKeyTypes],
    ) -> None:
        if encrypted and self.passphrase is None:
            self.keys.append(Key(KeyFacts("unknown", 0, "", "", (), True, True), place))
            self.fault(FaultCode.PASSPHRASE_NEEDED, place, "the key is encrypted")
            return
        try:
            if encrypted:
                check_work(body)
            key = load(self.passphrase if encrypted else None)
            self.keys.append(Key(private_key_facts(key, encrypted=encrypted), place))
        except DerError as error:
            self.fault(FaultCode.KEY_MALFORMED, place, f"key: {error}")
        except parse_errors() as error:
            code = self._passphrase_fault(error) if encrypted else FaultCode.KEY_MALFORMED
            self.fault(code, place, f"key: {error}")

    def _passphrase_fault(self, error: Exception) -> FaultCode:
        text = str(error).lower()
        if self.passphrase is None:
            return FaultCode.PASSPHRASE_NEEDED if "password" in text else _MALFORMED
        return FaultCode.PASSPHRASE_WRONG if "password" in text or "decrypt" in text else _MALFORMED


_MALFORMED = FaultCode.CONTAINER_MALFORMED
_Kind = Callable[[_Reader, bytes, str], None]


def _encrypted_key(reader: _Reader, body: bytes, place: str) -> None:
    reader._der_key(body, place, encrypted=True)


def _plain_key(reader: _Reader, body: bytes, place: str) -> None:
    reader._der_key(body, place, encrypted=False)


# The tags of the first parts tell what it is; a longer beginning is compared first.
_KINDS: Mapping[tuple[int, ...], _Kind] = {
    (der.SEQUENCE, der.SEQUENCE, der.BIT_STRING): _Reader.certificate_or_crl,
    (der.INTEGER, der.SEQUENCE, der.OCTET_STRING): _plain_key,
    (der.INTEGER, der.INTEGER): _plain_key,
    (der.INTEGER, der.OCTET_STRING): _plain_key,
    (der.SEQUENCE, der.OCTET_STRING): _encrypted_key,
    (der.INTEGER, der.SEQUENCE): _Reader._pkcs12,
    (der.OID, 0xA0): _Reader._pkcs7,
}


def _kind(parts: list[Tlv]) -> _Kind | None:
    tags = tuple(part.tag for part in parts[:3])
    return _KINDS.get(tags) or _KINDS.get(tags[:2])


def _is_crl(body: bytes) -> bool:
    """Whether a signed value is a CRL: a time stands where a certificate has a sequence of two."""
    try:
        fields = der.children(der.children(der.read_only(body))[0])
    except DerError:
        return False
    return any(field.tag in (der.UTC_TIME, der.GENERALIZED_TIME) for field in fields[:6])
