"""Certificates of an authority for servers and clients, and those of the authority itself.

Source: RFC 5280; of CA/Browser baseline requirements 7.1 the serial number of 64 random bits or
more (here 159).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID as Access
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hostler.core.certificates import BACKDATED, CertificateUnreadable, is_ca
from hostler.core.names import InvalidField
from hostler.core.ssl.authority.profile import Names
from hostler.core.ssl.authority.request import PublicKey, RequestInvalid, check_key

ROOT_LIFETIME = timedelta(days=3650)
RESPONDER_LIFETIME = timedelta(days=7)
MAX_CHAIN = 5
_USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
_COMMON_NAME_LIMIT = 64


@dataclass(frozen=True, slots=True)
class Published:
    """Where an authority's certificate, CRL and OCSP responder are, by http. Empty: nowhere."""

    certificate: str = ""
    crl: str = ""
    ocsp: str = ""


@dataclass(frozen=True, slots=True)
class Signer:
    """An authority that can sign. `chain` is its certificate and those above it."""

    chain: tuple[x509.Certificate, ...]
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    published: Published = Published()

    @property
    def certificate(self) -> x509.Certificate:
        """The authority's own certificate."""
        return self.chain[0]


def root(name: str, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    """Make a self-signed authority that signs leaves only, good for 10 years."""
    subject = _subject(name)
    builder = _builder(subject, key.public_key(), now - BACKDATED, now + ROOT_LIFETIME)
    return (
        builder.issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def request(name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Make the request by which an authority elsewhere is to sign this one; DER."""
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_subject(name))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return csr.public_bytes(Encoding.DER)


def check_chain(
    chain: Sequence[x509.Certificate], key: ec.EllipticCurvePrivateKey, now: datetime
) -> tuple[x509.Certificate, ...]:
    """Answer a chain whose first certificate is for the key and may issue. Raises InvalidField.

    Each must be signed by the next; the last need not be self-signed.
    """
    at = "chain"
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise InvalidField(at, f"must be 1 to {MAX_CHAIN} certificates")
    if chain[0].public_key() != key.public_key():
        raise InvalidField(at, "the first certificate is not for the key of this authority")
    for number, (lower, upper) in enumerate(pairwise(chain)):
        try:
            lower.verify_directly_issued_by(upper)
        except Exception as e:  # noqa: BLE001 - of many classes, and all mean the same
            why = str(e)[:100] or "bad signature"
            raise InvalidField(
                at, f"certificate {number} is not issued by the next: {why}"
            ) from None
    for number, certificate in enumerate(chain):
        _check_authority(certificate, at, number, now)
    return tuple(chain)


def _check_authority(certificate: x509.Certificate, at: str, number: int, now: datetime) -> None:
    try:
        extensions = certificate.extensions
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        length = extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        signs = is_ca(certificate) and usage.key_cert_sign and usage.crl_sign
    except (x509.ExtensionNotFound, ValueError, CertificateUnreadable) as e:
        raise InvalidField(at, f"certificate {number} is not that of an authority: {e}") from e
    if not signs:
        raise InvalidField(at, f"certificate {number} may not sign certificates and CRLs")
    if length is not None and length < number:
        raise InvalidField(at, f"certificate {number} allows only {length} below it")
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise InvalidField(at, f"certificate {number} is not good at this time")


def leaf(
    signer: Signer,
    key: PublicKey,
    names: Names,
    usages: Sequence[str],
    ends: tuple[datetime, datetime],
) -> x509.Certificate:
    """Sign a certificate for servers or clients. The caller has checked that it may be.

    It ends with its issuer at the latest. Raises InvalidField if that would be before it begins.
    """
    # A name of kind URI would be somebody's identity; whoever calls, there is none here.
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names.dns]
    alternatives += [x509.IPAddress(address) for address in names.addresses]
    words = [word for word in names.words() if len(word) <= _COMMON_NAME_LIMIT]
    subject = _subject(words[0]) if words else x509.Name([])
    builder = _below(signer, subject, key, ends)
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            _key_usage(encipher=isinstance(key, rsa.RSAPublicKey) and "server" in usages),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([_USAGES[u] for u in usages]), critical=False)
        # RFC 5280, 4.2.1.6: without a subject, the names are all there is.
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=not words)
    )
    return _where(builder, signer.published).sign(signer.key, hashes.SHA256())


def responder(signer: Signer, key: ec.EllipticCurvePublicKey, now: datetime) -> x509.Certificate:
    """Sign the certificate of an OCSP responder, good for 7 days. RFC 6960, 4.2.2.2."""
    ends = (now - BACKDATED, now + RESPONDER_LIFETIME)
    return (
        _below(signer, _subject("OCSP responder"), key, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), critical=False)
        # Short-lived instead: who would ask a responder whether it is to be asked.
        .add_extension(x509.OCSPNoCheck(), critical=False)
        .sign(signer.key, hashes.SHA256())
    )


def check_not_own(key: PublicKey, signers: Sequence[Signer]) -> None:
    """Refuse to certify the key of an authority itself. Raises RequestInvalid."""
    check_key(key)
    if any(key == signer.key.public_key() for signer in signers):
        raise RequestInvalid("has the key of the authority itself")


def _below(
    signer: Signer,
    subject: x509.Name,
    key: PublicKey,
    ends: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    start, end = ends[0], min(ends[1], *(c.not_valid_after_utc for c in signer.chain))
    if end <= start:
        raise InvalidField("validity", f"the authority itself ends at {end:%Y-%m-%d %H:%M:%SZ}")
    issuer_ski = signer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return (
        _builder(subject, key, start, end)
        .issuer_name(signer.certificate.subject)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_ski.value),
            critical=False,
        )
    )


def _builder(
    subject: x509.Name, key: PublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start.replace(microsecond=0))
        .not_valid_after(end.replace(microsecond=0))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _where(builder: x509.CertificateBuilder, at: Published) -> x509.CertificateBuilder:
    kinds = ((Access.OCSP, at.ocsp), (Access.CA_ISSUERS, at.certificate))
    access = [
        x509.AccessDescription(kind, x509.UniformResourceIdentifier(url))
        for kind, url in kinds
        if url
    ]
    if access:
        builder = builder.add_extension(x509.AuthorityInformationAccess(access), critical=False)
    if at.crl:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(at.crl)], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    return builder


def _key_usage(*, authority: bool = False, encipher: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=encipher,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:_COMMON_NAME_LIMIT])])
