"""What extensions must be, in leaves and in CAs alike. Source: RFC 5280, 4.2."""

from __future__ import annotations

from collections.abc import Iterator

from hostler.core.ssl.certificate import Certificate
from hostler.core.ssl.profile import ANY_USAGE_OID, USAGE_OIDS, Usage
from hostler.core.ssl.verdict import Code

Finding = tuple[Code, str]
POLICY_EXTENSIONS = frozenset(
    # certificatePolicies, policyMappings, policyConstraints, inhibitAnyPolicy
    ("2.5.29.32", "2.5.29.33", "2.5.29.36", "2.5.29.54")
)
# keyUsage, subjectAltName, basicConstraints, nameConstraints, extKeyUsage
_UNDERSTOOD = POLICY_EXTENSIONS | {
    "2.5.29.15",
    "2.5.29.17",
    "2.5.29.19",
    "2.5.29.30",
    "2.5.29.37",
}
_POLICY_CONSTRAINTS = "2.5.29.36"
# Never critical: subjectKeyIdentifier, authorityKeyIdentifier, authority- and subjectInfoAccess.
_NEVER_CRITICAL = {
    "2.5.29.14": "subjectKeyIdentifier",
    "2.5.29.35": "authorityKeyIdentifier",
    "1.3.6.1.5.5.7.1.1": "authorityInfoAccess",
    "1.3.6.1.5.5.7.1.11": "subjectInfoAccess",
}


def unknown_critical(certificate: Certificate) -> Iterator[Finding]:
    """Each critical extension that is not understood. Source: RFC 5280, 4.2 and 6.1.5 (f)."""
    for found in certificate.layout.extensions:
        if found.critical and found.oid not in _UNDERSTOOD and found.oid not in _NEVER_CRITICAL:
            yield Code.UNKNOWN_CRITICAL_EXTENSION, f"critical extension {found.oid}"


def misplaced_criticality(certificate: Certificate) -> Iterator[Finding]:
    """Extensions that may not be critical and are, or must be and are not."""
    for found in certificate.layout.extensions:
        if found.critical and found.oid in _NEVER_CRITICAL:
            yield Code.EXTENSION_MISUSED, f"{_NEVER_CRITICAL[found.oid]} is critical"
        if not found.critical and found.oid == _POLICY_CONSTRAINTS:
            yield Code.EXTENSION_MISUSED, "policyConstraints is not critical"


def extended_usage_faults(certificate: Certificate, usage: Usage) -> Iterator[Finding]:
    """An extended key usage that leaves out what the leaf is for; in CAs it limits all below.

    Source: RFC 5280, 4.2.1.12; for CAs CA/B BR 7.1.2.2 and every client.
    """
    from cryptography import x509

    if usage is Usage.ANY:
        return
    found = certificate.extension(x509.ExtendedKeyUsage)
    if found is None:
        return
    oids = {oid.dotted_string for oid in found}
    if USAGE_OIDS[usage] not in oids and ANY_USAGE_OID not in oids:
        yield Code.EXTENDED_KEY_USAGE_FORBIDS, f"its extended key usage leaves out {usage}"


def authority_key_faults(certificate: Certificate, *, anchor: bool = False) -> Iterator[Finding]:
    """A missing or odd authorityKeyIdentifier. Source: RFC 5280, 4.2.1.1; CA/B BR 7.1.2.1.3."""
    from cryptography import x509

    yield from misplaced_criticality(certificate)
    found = certificate.extension(x509.AuthorityKeyIdentifier)
    if found is None:
        if not (anchor or certificate.self_issued):
            yield Code.EXTENSION_MISSING, "it has no authorityKeyIdentifier"
        return
    if found.key_identifier is None:
        yield Code.EXTENSION_MISUSED, "its authorityKeyIdentifier names no key"
    if not anchor:
        return
    if found.authority_cert_issuer is not None or found.authority_cert_serial_number is not None:
        yield Code.EXTENSION_MISUSED, "a root's authorityKeyIdentifier names issuer or serial"
    own = certificate.extension(x509.SubjectKeyIdentifier)
    if certificate.self_issued and own is not None and found.key_identifier != own.digest:
        yield Code.EXTENSION_MISUSED, "a root's authorityKeyIdentifier is not of its own key"
