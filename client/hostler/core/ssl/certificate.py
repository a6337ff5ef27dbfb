"""One certificate: its bytes, what cryptography reads in them, and its facts as plain values.

Source: RFC 5280. cryptography is imported when the first certificate is read.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, cached_property
from typing import TYPE_CHECKING, TypeVar

from hostler.core.ssl import der
from hostler.core.ssl.der import DerError
from hostler.core.ssl.key import KeyFacts, public_key_facts
from hostler.core.ssl.layout import Layout, layout_of

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

MAX_CERTIFICATE_BYTES = 1 << 20
_EC_KEY = "1.2.840.10045.2.1"
E = TypeVar("E", bound="x509.ExtensionType")


class CertificateUnreadable(ValueError):
    """Bytes that are no X.509 certificate."""


@dataclass(frozen=True, slots=True)
class AlternativeName:
    """A name a certificate is good for: `kind` is dns, ip, email, uri, dn, rid or other."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says, as plain values; times are UTC, hashes lower-case hex.

    `usages` and `extended_usages` are None where the extension is absent, which allows all;
    `path_length` is None for no limit. `faults` are parts that cannot be read.
    """

    subject: str
    issuer: str
    names: tuple[AlternativeName, ...]
    serial: str
    not_before: datetime
    not_after: datetime
    key: KeyFacts
    signature_algorithm: str
    fingerprint_sha256: str
    fingerprint_sha1: str
    is_ca: bool
    path_length: int | None
    self_issued: bool
    usages: tuple[str, ...] | None
    extended_usages: tuple[str, ...] | None
    ca_issuers: tuple[str, ...]
    ocsp: tuple[str, ...]
    crls: tuple[str, ...]
    weaknesses: tuple[str, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Certificate:
    """A certificate that could be read. Equal to another if the bytes are; `place` does not count.

    Made by `Certificate.read`; the extensions are read when asked for, and may be malformed still.
    """

    data: bytes = field(repr=False)
    place: str = field(default="", compare=False)

    @classmethod
    def read(cls, data: bytes, place: str = "") -> Certificate:
        """Read DER. Raises CertificateUnreadable."""
        if len(data) > MAX_CERTIFICATE_BYTES:
            raise CertificateUnreadable(f"larger than {MAX_CERTIFICATE_BYTES} bytes")
        made = cls(data, place)
        try:
            # Lazy parts that everything after this counts on.
            _ = made.layout, made.subject, made.issuer, made.not_before, made.not_after
            _ = made.serial_number
        except parse_errors() as error:
            raise CertificateUnreadable(_words(error)) from error
        return made

    @cached_property
    def parsed(self) -> x509.Certificate:
        """The certificate of cryptography."""
        from cryptography import x509

        with warnings.catch_warnings():
            # What it warns of are faults that `writing.py` names.
            warnings.simplefilter("ignore")
            return x509.load_der_x509_certificate(self.data)

    @cached_property
    def layout(self) -> Layout:
        """How it is written. Raises DerError."""
        return layout_of(self.data)

    @cached_property
    def serial_number(self) -> int:
        """Its serial number, of whatever sign."""
        return int.from_bytes(self.layout.serial, "big", signed=True)

    @cached_property
    def subject(self) -> x509.Name:
        """Its name."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.parsed.subject

    @cached_property
    def issuer(self) -> x509.Name:
        """The name of what signed it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.parsed.issuer

    @cached_property
    def label(self) -> str:
        """The subject for people: RFC 4514, shortened; the serial if it is empty."""
        text = self.subject.rfc4514_string() or f"serial {self.serial_number:x}"
        return text if len(text) <= 200 else f"{text[:199]}…"

    @cached_property
    def subject_key(self) -> bytes:
        """The subject in the form in which names are compared."""
        return canonical(self.subject)

    @cached_property
    def issuer_key(self) -> bytes:
        """The issuer in the form in which names are compared."""
        return canonical(self.issuer)

    @cached_property
    def self_issued(self) -> bool:
        """Whether issuer and subject are one name. RFC 5280, 3.2."""
        return self.subject_key == self.issuer_key

    @cached_property
    def not_before(self) -> datetime:
        """From when it is good."""
        return self.parsed.not_valid_before_utc

    @cached_property
    def not_after(self) -> datetime:
        """Until when it is good, that second included."""
        return self.parsed.not_valid_after_utc

    @cached_property
    def public_key(self) -> CertificatePublicKeyTypes | None:
        """The key that it is about; None if it is of no kind that is known, or malformed."""
        try:
            return self.parsed.public_key()
        except parse_errors():
            return None

    @cached_property
    def spki_sha256(self) -> str:
        """The hash of the public key with its algorithm: what tells keys apart everywhere."""
        return hashlib.sha256(self.layout.spki).hexdigest()

    @cached_property
    def spki_is_plain(self) -> bool:
        """Whether an EC key names its curve, as RFC 5480, 2.1.1 wants it; true of other keys."""
        try:
            algorithm = der.children(der.children(der.read_only(self.layout.spki))[0])
            is_ec = der.dotted(algorithm[0].content) == _EC_KEY
            return not is_ec or (len(algorithm) == 2 and algorithm[1].tag == der.OID)
        except (DerError, IndexError):
            return False

    @cached_property
    def fingerprint_sha256(self) -> str:
        """The hash of all of it."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def extensions(self) -> x509.Extensions | None:
        """Its extensions; None if they are malformed, see `extensions_fault`."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self.parsed.extensions
        except parse_errors() as error:
            # A frozen dataclass keeps its cached values in its dictionary.
            self.__dict__["extensions_fault"] = _words(error)
            return None

    @cached_property
    def extensions_fault(self) -> str:
        """Why the extensions cannot be read; empty if they can."""
        fault = "" if self.extensions is not None else self.__dict__.get("extensions_fault", "")
        return str(fault)

    def extension(self, kind: type[E]) -> E | None:
        """The value of one extension; None if it is absent or all of them are malformed."""
        found = self.extension_with_criticality(kind)
        return found[0] if found else None

    def extension_with_criticality(self, kind: type[E]) -> tuple[E, bool] | None:
        """The value of one extension and whether it is critical; None as `extension` says."""
        # The key is the type of the value.
        return self._by_type.get(kind)  # type: ignore[return-value]

    @cached_property
    def _by_type(self) -> dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool]]:
        return {type(found.value): (found.value, found.critical) for found in self.extensions or ()}

    @cached_property
    def is_ca(self) -> bool:
        """Whether basicConstraints says that it is a CA."""
        from cryptography import x509

        found = self.extension(x509.BasicConstraints)
        return found is not None and found.ca

    @cached_property
    def facts(self) -> CertificateFacts:
        """All facts as plain values."""
        from hostler.core.ssl.facts import facts_of

        return facts_of(self)

    @cached_property
    def key_facts(self) -> KeyFacts:
        """Type, size and hash of the public key."""
        return public_key_facts(self.public_key, self.spki_sha256)


@cache
def parse_errors() -> tuple[type[Exception], ...]:
    """What cryptography raises of malformed values: errors of families that are not related."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    return (
        ValueError,
        TypeError,
        OverflowError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    )


def canonical(name: x509.Name) -> bytes:
    """A name in the form in which names are compared: case folded, runs of space made one.

    Source: RFC 5280, 7.1.
    """
    parts: list[str] = []
    for rdn in name.rdns:
        attributes = sorted(f"{a.oid.dotted_string}={canonical_value(a.value)}" for a in rdn)
        parts.append("\x01".join(attributes))
    return "\x00".join(parts).encode("utf-8", "surrogatepass")


def canonical_value(value: str | bytes) -> str:
    """A value of a name in the form in which values are compared."""
    return value.hex() if isinstance(value, bytes) else " ".join(value.casefold().split())


def _words(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
