"""Certificates in PEM, as far as a planner has to know them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.ssl.model.deployment import PEM_MOST_BYTES, Brought

CERTIFICATES_MOST = 16


def read(pem: str, path: str = "pem") -> tuple[Brought, ...]:
    """Read certificates that a caller brought. Raises InvalidRequest."""
    if len(pem.encode()) > PEM_MOST_BYTES:
        raise InvalidRequest.of([Violation(path, f"must be at most {PEM_MOST_BYTES} bytes")])
    from cryptography import x509

    if "PRIVATE KEY-----" in pem:
        words = "must not have a private key in it: keys are made on the host, and stay there"
        raise InvalidRequest.of([Violation(path, words)])
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except ValueError as e:
        raise InvalidRequest.of([Violation(path, "must be certificates in PEM")]) from e
    if len(found) > CERTIFICATES_MOST:
        raise InvalidRequest.of([Violation(path, f"must be at most {CERTIFICATES_MOST}")])
    return tuple(map(_brought, found))


def read_placed(texts: Iterable[str]) -> tuple[Brought, ...]:
    """Read what is in place; what cannot be read was not put there by us, and is left out."""
    from cryptography import x509

    found = []
    for text in texts:
        try:
            found.append(_brought(x509.load_pem_x509_certificate(text.encode())))
        except ValueError:
            continue
    return tuple(found)


def _brought(certificate: object) -> Brought:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    assert isinstance(certificate, x509.Certificate)  # noqa: S101
    public = certificate.public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Brought(
        hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
        hashlib.sha256(spki).hexdigest(),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        _names(certificate),
    )


def _names(certificate: object) -> frozenset[str]:
    from cryptography import x509

    assert isinstance(certificate, x509.Certificate)  # noqa: S101
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return frozenset()
    dns = (name.lower() for name in found.get_values_for_type(x509.DNSName))
    return frozenset([*dns, *map(str, found.get_values_for_type(x509.IPAddress))])
