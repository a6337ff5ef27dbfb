"""Certificates of the internal CA: who a host or user is, and nothing about what it may do.

ECDSA P-256 with SHA-256. A leaf holds exactly one URI SAN, the identity; a host's also holds its
DNS names and addresses. Source: RFC 5280; SPIFFE X.509-SVID for the URI SAN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hostler.core.names import (
    Identity,
    InvalidField,
    check_alternative_names,
    check_name,
    check_trust_domain,
    serial_hex,
)

CA_LIFETIME = timedelta(days=3650)
HOST_LIFETIME = timedelta(days=30)
USER_LIFETIME = timedelta(days=7)
# Clocks differ: what is issued now must be good on a host that is some minutes behind.
BACKDATED = timedelta(minutes=5)
MAX_PEM_BYTES = 256 * 1024

_COMMON_NAME_LIMIT = 64


class CertificateUnreadable(Exception):
    """Bytes that are not the certificate or key they should be. The message says why."""


class KeyEncrypted(CertificateUnreadable):
    """A key that is encrypted, and not with the passphrase that was given."""


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when a certificate holds. What is not given follows from the rest.

    `not_before` defaults to 5 minutes ago, `not_after` to `lifetime` from now, `lifetime` to that
    of the kind of certificate.
    """

    not_before: datetime | None = None
    not_after: datetime | None = None
    lifetime: timedelta | None = None

    def resolve(self, default: timedelta) -> tuple[datetime, datetime]:
        """Answer both ends in whole seconds of UTC. Raises InvalidField."""
        if self.not_after is not None and self.lifetime is not None:
            raise InvalidField("lifetime", "give either not_after or lifetime")
        lifetime = default if self.lifetime is None else self.lifetime
        if lifetime <= timedelta(0):
            raise InvalidField("lifetime", "must be positive")
        now = datetime.now(UTC)
        start = self.not_before or now - BACKDATED
        end = self.not_after or (self.not_before or now) + lifetime
        return _whole_seconds("not_before", start), _whole_seconds("not_after", end)


DEFAULT_VALIDITY = Validity()


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says, without its key.

    `identity` is the URI SAN as it stands; of a CA it is `spiffe://TRUST-DOMAIN`, or empty if a
    foreign CA has none. `serial` is as `serial_hex()` writes it; `fingerprint` is SHA-256 of the
    DER in hex.
    """

    kind: Literal["ca", "host", "user"]
    name: str
    identity: str
    serial: str
    not_before: datetime
    not_after: datetime
    dns_names: tuple[str, ...]
    ip_addresses: tuple[str, ...]
    fingerprint: str

    @property
    def renew_time(self) -> datetime:
        """From when on it is to be renewed: two thirds of its life."""
        return self.not_before + (self.not_after - self.not_before) * 2 / 3


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate just made, with its key, both as PEM."""

    certificate: Certificate
    pem: bytes
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA that can sign: its certificate and the key to it."""

    trust_domain: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def load(cls, ca_pem: bytes, key_pem: bytes, passphrase: bytes = b"") -> Issuer:
        """Load the CA whose certificate in `ca_pem` belongs to the key.

        `ca_pem` may hold more than one certificate. Raises CertificateUnreadable, KeyEncrypted.
        """
        return cls.of(ca_pem, load_key(key_pem, passphrase))

    @classmethod
    def of(cls, ca_pem: bytes, key: ec.EllipticCurvePrivateKey) -> Issuer:
        """The CA whose certificate in `ca_pem` belongs to the key. Raises CertificateUnreadable."""
        for certificate in load_certificates(ca_pem):
            if certificate.public_key() == key.public_key():
                trust_domain = describe(certificate).name
                if not is_ca(certificate) or not trust_domain:
                    raise CertificateUnreadable("the certificate is not that of a Hostler CA")
                return cls(trust_domain, certificate, key)
        raise CertificateUnreadable("no CA certificate belongs to the CA's key")


def make_key() -> ec.EllipticCurvePrivateKey:
    """Draw a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def make_ca(
    trust_domain: str,
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    validity: Validity = DEFAULT_VALIDITY,
) -> Issued:
    """Make a self-signed CA that signs leaves only (path length 0), good for 10 years.

    Raises InvalidTrustDomain, InvalidField.
    """
    check_trust_domain(trust_domain)
    key = key or make_key()
    start, end = validity.resolve(CA_LIFETIME)
    _check_order(start, end)
    subject = _distinguished_name(f"Hostler CA {trust_domain}")
    builder = (
        _builder(subject, key.public_key(), start, end)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .add_extension(_uri_san(f"spiffe://{trust_domain}"), critical=False)
    )
    return _issued(builder.sign(key, hashes.SHA256()), key)


def issue_host(
    issuer: Issuer,
    name: str,
    dns_names: Sequence[str] = (),
    ip_addresses: Sequence[str] = (),
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    validity: Validity = DEFAULT_VALIDITY,
) -> Issued:
    """Issue a host's certificate for serverAuth and clientAuth, good for 30 days.

    The host's name is its first DNS name, given or not. Raises InvalidField and its subclasses.
    """
    key = key or make_key()
    public = key.public_key()
    return _issued(sign_host(issuer, name, public, dns_names, ip_addresses, validity=validity), key)


def sign_host(
    issuer: Issuer,
    name: str,
    key: ec.EllipticCurvePublicKey,
    dns_names: Sequence[str] = (),
    ip_addresses: Sequence[str] = (),
    *,
    validity: Validity = DEFAULT_VALIDITY,
) -> x509.Certificate:
    """Sign a host's certificate for a key that is elsewhere. Otherwise as `issue_host()`."""
    check_name("host", name)
    names, addresses = check_alternative_names((name, *dns_names), ip_addresses)
    alternatives: list[x509.GeneralName] = [x509.DNSName(dns_name) for dns_name in names]
    alternatives += [x509.IPAddress(address) for address in addresses]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    identity = Identity(issuer.trust_domain, "host", name)
    ends = validity.resolve(HOST_LIFETIME)
    return _sign_leaf(issuer, identity, alternatives, usages, key, ends)


def issue_user(
    issuer: Issuer,
    name: str,
    *,
    key: ec.EllipticCurvePrivateKey | None = None,
    validity: Validity = DEFAULT_VALIDITY,
) -> Issued:
    """Issue a user's certificate for clientAuth, good for 7 days.

    Raises InvalidField and its subclasses.
    """
    key = key or make_key()
    return _issued(sign_user(issuer, name, key.public_key(), validity=validity), key)


def sign_user(
    issuer: Issuer,
    name: str,
    key: ec.EllipticCurvePublicKey,
    *,
    validity: Validity = DEFAULT_VALIDITY,
) -> x509.Certificate:
    """Sign a user's certificate for a key that is elsewhere. Otherwise as `issue_user()`."""
    identity = Identity(issuer.trust_domain, "user", check_name("user", name))
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    ends = validity.resolve(USER_LIFETIME)
    return _sign_leaf(issuer, identity, [], usages, key, ends)


def describe(certificate: x509.Certificate) -> Certificate:
    """Say what a certificate holds. Raises CertificateUnreadable.

    A leaf must have exactly one URI SAN that is an identity of Hostler.
    """
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        san = x509.SubjectAlternativeName([])
    except ValueError as e:
        raise CertificateUnreadable(f"the certificate's extensions are malformed: {e}") from e
    uris = san.get_values_for_type(x509.UniformResourceIdentifier)
    kind: Literal["ca", "host", "user"]
    if is_ca(certificate):
        kind, identity = "ca", uris[0] if len(uris) == 1 else ""
        name = identity.removeprefix("spiffe://")
    else:
        parsed = _leaf_identity(uris)
        kind, name, identity = parsed.kind, parsed.name, str(parsed)
    return Certificate(
        kind=kind,
        name=name,
        identity=identity,
        serial=serial_hex(certificate.serial_number),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        dns_names=tuple(san.get_values_for_type(x509.DNSName)),
        ip_addresses=tuple(str(a) for a in san.get_values_for_type(x509.IPAddress)),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
    )


def read_certificate(pem: bytes) -> Certificate:
    """Say what the first certificate of a PEM text holds, such as a TLS peer's.

    Raises CertificateUnreadable. Says nothing about who signed it.
    """
    return describe(load_certificates(pem)[0])


def load_certificates(pem: bytes) -> list[x509.Certificate]:
    """Load all certificates of a PEM text, one at least. Raises CertificateUnreadable."""
    if len(pem) > MAX_PEM_BYTES:
        raise CertificateUnreadable(f"more than {MAX_PEM_BYTES} bytes of PEM")
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as e:
        raise CertificateUnreadable(f"not a PEM certificate: {e}") from e


def load_key(pem: bytes, passphrase: bytes = b"") -> ec.EllipticCurvePrivateKey:
    """Load a P-256 key, with its passphrase if it is encrypted.

    Raises CertificateUnreadable, of which KeyEncrypted is one.
    """
    if not is_encrypted(pem):
        passphrase = b""
    elif not passphrase:
        raise KeyEncrypted("the key is encrypted, and no passphrase was given")
    try:
        key = serialization.load_pem_private_key(pem, password=passphrase or None)
    except (ValueError, TypeError) as e:
        if passphrase:
            raise KeyEncrypted("the key cannot be read with this passphrase") from e
        raise CertificateUnreadable("not a PEM key without password") from e
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise CertificateUnreadable("not an ECDSA P-256 key")
    return key


def is_ca(certificate: x509.Certificate) -> bool:
    """Tell whether a certificate may sign others. Raises CertificateUnreadable."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    except ValueError as e:
        raise CertificateUnreadable(f"the certificate's extensions are malformed: {e}") from e
    return found.value.ca


def to_pem(certificate: x509.Certificate) -> bytes:
    """Write a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def is_encrypted(pem: bytes) -> bool:
    """Tell whether a key is encrypted as PKCS #8, as `key_to_pem` does. Source: RFC 7468 11."""
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem


def key_to_pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes = b"") -> bytes:
    """Write a key as PEM (PKCS #8), encrypted if there is a passphrase."""
    how: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        how = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def _sign_leaf(
    issuer: Issuer,
    identity: Identity,
    alternatives: list[x509.GeneralName],
    usages: list[x509.ObjectIdentifier],
    key: ec.EllipticCurvePublicKey,
    ends: tuple[datetime, datetime],
) -> x509.Certificate:
    start, end = ends[0], min(ends[1], issuer.certificate.not_valid_after_utc)
    _check_order(start, end)
    alternatives = [*alternatives, x509.UniformResourceIdentifier(str(identity))]
    issuer_ski = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    builder = (
        _builder(_distinguished_name(identity.name), key, start, end)
        .issuer_name(issuer.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_ski.value),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    )
    return builder.sign(issuer.key, hashes.SHA256())


def _builder(
    subject: x509.Name, public_key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _issued(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    return Issued(describe(certificate), to_pem(certificate), key_to_pem(key))


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    # The CA also signs bundles, hence digital_signature.
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _uri_san(uri: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])


def _distinguished_name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:_COMMON_NAME_LIMIT])])


def _leaf_identity(uris: list[str]) -> Identity:
    if len(uris) != 1:
        raise CertificateUnreadable(f"the certificate has {len(uris)} URI names, not one")
    try:
        return Identity.parse(uris[0])
    except InvalidField as e:
        raise CertificateUnreadable(f"the certificate's URI name: {e.reason}") from e


def _check_order(start: datetime, end: datetime) -> None:
    if end <= start:
        raise InvalidField(
            "not_after", f"{end:%Y-%m-%d %H:%M:%SZ} is not after {start:%Y-%m-%d %H:%M:%SZ}"
        )


def _whole_seconds(field_name: str, moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise InvalidField(field_name, "has no time zone")
    return moment.astimezone(UTC).replace(microsecond=0)
