"""Which CAs are trusted, in one file of PEM: some are added, some go, all others stay."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes

from hostler.core.certificates import describe, is_ca, load_certificates, to_pem


def changed(pem: bytes, added: bytes, removed: Iterable[str]) -> bytes:
    """The trust of `pem` with the CAs of `added` behind it, and without those of `removed`.

    `removed` are fingerprints. What is there stays in its order; the first CA is the one that
    signs. Raises CertificateUnreadable.
    """
    gone = frozenset(removed)
    found: dict[str, x509.Certificate] = {}
    for one in (*load_certificates(pem), *(load_certificates(added) if added else ())):
        found.setdefault(fingerprint(one), one)
    return b"".join(to_pem(one) for name, one in found.items() if name not in gone)


def first(pem: bytes, leading: bytes) -> bytes:
    """The trust of `pem`, the CA of `leading` before all others. Raises CertificateUnreadable."""
    return changed(leading, pem, ())


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of its DER in hex, as `Certificate.fingerprint`."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def fingerprints(pem: bytes) -> tuple[str, ...]:
    """The fingerprints of all certificates, in order. Raises CertificateUnreadable."""
    return tuple(fingerprint(one) for one in load_certificates(pem))


def issuer_of(leaf: x509.Certificate, pem: bytes) -> str:
    """The fingerprint of the certificate in `pem` that has issued a leaf; empty if none has.

    Raises CertificateUnreadable.
    """
    for one in load_certificates(pem):
        try:
            leaf.verify_directly_issued_by(one)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return fingerprint(one)
    return ""


def is_hostler_ca(certificate: x509.Certificate, trust_domain: str) -> bool:
    """Whether a certificate is that of a CA of this trust domain. Raises CertificateUnreadable."""
    return is_ca(certificate) and describe(certificate).name == trust_domain
