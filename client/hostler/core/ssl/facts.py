"""The facts of a certificate, as plain values for tables, records and messages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from hostler.core.ssl.certificate import AlternativeName, Certificate, CertificateFacts
from hostler.core.ssl.strength import weak_digest

if TYPE_CHECKING:
    from cryptography import x509

_MOST_NAMES = 10_000
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)


def facts_of(certificate: Certificate) -> CertificateFacts:
    """Answer what a certificate says. What is malformed is named in `faults`, never raised."""
    from cryptography import x509
    from cryptography.x509.oid import AuthorityInformationAccessOID as Access

    basic = certificate.extension(x509.BasicConstraints)
    extended = certificate.extension(x509.ExtendedKeyUsage)
    weak = weak_digest(certificate)
    return CertificateFacts(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        names=alternative_names(certificate),
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_before,
        not_after=certificate.not_after,
        key=certificate.key_facts,
        signature_algorithm=signature_algorithm(certificate),
        fingerprint_sha256=certificate.fingerprint_sha256,
        fingerprint_sha1=hashlib.sha1(certificate.data, usedforsecurity=False).hexdigest(),
        is_ca=certificate.is_ca,
        path_length=basic.path_length if basic else None,
        self_issued=certificate.self_issued,
        usages=usages_of(certificate),
        extended_usages=tuple(_usage_name(oid) for oid in extended) if extended else None,
        ca_issuers=access_uris(certificate, Access.CA_ISSUERS),
        ocsp=access_uris(certificate, Access.OCSP),
        crls=crl_uris(certificate),
        weaknesses=(*certificate.key_facts.weaknesses, *((weak,) if weak else ())),
        faults=(certificate.extensions_fault,) if certificate.extensions_fault else (),
    )


def alternative_names(certificate: Certificate) -> tuple[AlternativeName, ...]:
    """The names of subjectAltName, in its order."""
    from cryptography import x509

    found = certificate.extension(x509.SubjectAlternativeName)
    return tuple(alternative_name(name) for name in list(found or ())[:_MOST_NAMES])


def alternative_name(name: x509.GeneralName) -> AlternativeName:
    """One name as plain values."""
    from cryptography import x509

    if isinstance(name, x509.DNSName):
        return AlternativeName("dns", name.value)
    if isinstance(name, x509.IPAddress):
        return AlternativeName("ip", str(name.value))
    if isinstance(name, x509.RFC822Name):
        return AlternativeName("email", name.value)
    if isinstance(name, x509.UniformResourceIdentifier):
        return AlternativeName("uri", name.value)
    if isinstance(name, x509.DirectoryName):
        return AlternativeName("dn", name.value.rfc4514_string())
    if isinstance(name, x509.RegisteredID):
        return AlternativeName("rid", name.value.dotted_string)
    if isinstance(name, x509.OtherName):
        return AlternativeName("other", name.type_id.dotted_string)
    return AlternativeName("other", type(name).__name__)


def signature_algorithm(certificate: Certificate) -> str:
    """The name of the signature's algorithm; its numbers if it has none here."""
    oid = certificate.parsed.signature_algorithm_oid
    name = getattr(oid, "_name", "")
    return oid.dotted_string if name in ("", "Unknown OID") else str(name)


def usages_of(certificate: Certificate) -> tuple[str, ...] | None:
    """What keyUsage allows; None if it is absent."""
    from cryptography import x509

    found = certificate.extension(x509.KeyUsage)
    if found is None:
        return None
    return tuple(usage for usage in _USAGES if getattr(found, usage))


def access_uris(certificate: Certificate, method: x509.ObjectIdentifier) -> tuple[str, ...]:
    """The URIs that authorityInfoAccess has for a method, in its order."""
    from cryptography import x509

    found = certificate.extension(x509.AuthorityInformationAccess)
    return tuple(_uris(d.access_location for d in found or () if d.access_method == method))


def crl_uris(certificate: Certificate) -> tuple[str, ...]:
    """The URIs of the CRLs that would name it."""
    from cryptography import x509

    found = certificate.extension(x509.CRLDistributionPoints)
    return tuple(_uris(name for point in found or () for name in point.full_name or ()))


def _uris(names: Iterable[x509.GeneralName]) -> Iterator[str]:
    from cryptography import x509

    for name in names:
        if isinstance(name, x509.UniformResourceIdentifier):
            yield name.value


def _usage_name(oid: x509.ObjectIdentifier) -> str:
    name = getattr(oid, "_name", "")
    return oid.dotted_string if name in ("", "Unknown OID") else str(name)
