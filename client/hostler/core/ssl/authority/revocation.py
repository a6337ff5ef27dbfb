"""What is told of revoked certificates: the CRL and the answers of OCSP (RFC 5280, RFC 6960)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

from hostler.core.certificates import BACKDATED
from hostler.core.ssl.authority.issue import Signer

MAX_OCSP_REQUEST_BYTES = 4096
MAX_NONCE_BYTES = 128
ANSWER_LIFETIME = timedelta(hours=1)
# RFC 5280, 3.3: an entry stays until it was on a list made after the certificate's end.
KEPT_AFTER_END = timedelta(days=7)

REASONS = {
    "unspecified": x509.ReasonFlags.unspecified,
    "key_compromise": x509.ReasonFlags.key_compromise,
    "affiliation_changed": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessation_of_operation": x509.ReasonFlags.cessation_of_operation,
    "privilege_withdrawn": x509.ReasonFlags.privilege_withdrawn,
}


@dataclass(frozen=True, slots=True)
class Revoked:
    """A certificate that is revoked: since when, and why, as a word of `REASONS`."""

    serial: int
    time: datetime
    reason: str = "unspecified"


def crl(
    signer: Signer, revoked: Iterable[Revoked], number: int, now: datetime, lifetime: timedelta
) -> bytes:
    """Sign the list of revoked certificates; DER."""
    issuer_ski = signer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.certificate.subject)
        .last_update((now - BACKDATED).replace(microsecond=0))
        .next_update((now + lifetime).replace(microsecond=0))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_ski.value),
            critical=False,
        )
    )
    for each in revoked:
        builder = builder.add_revoked_certificate(_entry(each))
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _entry(each: Revoked) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(each.serial)
        .revocation_date(each.time.replace(microsecond=0))
    )
    # RFC 5280, 5.3.1: what is not said is left out.
    if each.reason != "unspecified":
        builder = builder.add_extension(x509.CRLReason(REASONS[each.reason]), critical=False)
    return builder.build()


@dataclass(frozen=True, slots=True)
class Responder:
    """Who answers OCSP for one authority, with a key that this authority has delegated it to.

    `look_up` answers whether a serial number was issued, and its revocation if there is one.
    """

    issuer: x509.Certificate
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    look_up: Callable[[int], tuple[bool, Revoked | None]] = field(repr=False)

    @property
    def until(self) -> datetime:
        """Until when it may answer."""
        return self.certificate.not_valid_after_utc

    def is_asked(self, request: ocsp.OCSPRequest) -> bool:
        """Whether a request is about certificates of this issuer."""
        name = self.issuer.subject.public_bytes()
        key = self.issuer.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        digest = request.hash_algorithm.name
        return (
            hashlib.new(digest, name, usedforsecurity=False).digest() == request.issuer_name_hash
            and hashlib.new(digest, key, usedforsecurity=False).digest() == request.issuer_key_hash
        )


def ocsp_answer(data: bytes, responders: Sequence[Responder], now: datetime) -> bytes:
    """Answer one OCSP request; DER. Never raises for what a request holds."""
    if len(data) > MAX_OCSP_REQUEST_BYTES:
        return _unsuccessful(ocsp.OCSPResponseStatus.MALFORMED_REQUEST)
    try:
        request = ocsp.load_der_ocsp_request(data)
        nonce = _nonce(request)
        if request.serial_number < 0:
            raise ValueError("serial number")
        asked = [r for r in responders if r.is_asked(request)]
    except NotImplementedError:
        # More than one certificate in a request: nobody asks so, and nobody need answer.
        return _unsuccessful(ocsp.OCSPResponseStatus.UNAUTHORIZED)
    except (ValueError, UnsupportedAlgorithm):
        return _unsuccessful(ocsp.OCSPResponseStatus.MALFORMED_REQUEST)
    if not asked:
        return _unsuccessful(ocsp.OCSPResponseStatus.UNAUTHORIZED)
    if (
        not asked[0].certificate.not_valid_before_utc
        <= now
        < asked[0].certificate.not_valid_after_utc
    ):
        return _unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
    return _answer(request, asked[0], nonce, now)


def _answer(
    request: ocsp.OCSPRequest, responder: Responder, nonce: bytes | None, now: datetime
) -> bytes:
    issued, revoked = responder.look_up(request.serial_number)
    status = ocsp.OCSPCertStatus.GOOD if issued else ocsp.OCSPCertStatus.UNKNOWN
    reason = None
    if revoked is not None:
        status = ocsp.OCSPCertStatus.REVOKED
        reason = None if revoked.reason == "unspecified" else REASONS[revoked.reason]
    builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
        issuer_name_hash=request.issuer_name_hash,
        issuer_key_hash=request.issuer_key_hash,
        serial_number=request.serial_number,
        algorithm=request.hash_algorithm,
        cert_status=status,
        this_update=now - BACKDATED,
        next_update=now + ANSWER_LIFETIME,
        revocation_time=revoked.time if revoked else None,
        revocation_reason=reason,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, responder.certificate)
    builder = builder.certificates([responder.certificate])
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    signed = builder.sign(responder.key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


def _nonce(request: ocsp.OCSPRequest) -> bytes | None:
    """Answer the request's nonce. Raises ValueError for one that is too long (RFC 9654)."""
    try:
        nonce = request.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        return None
    if not 1 <= len(nonce) <= MAX_NONCE_BYTES:
        raise ValueError("nonce")
    return nonce


def _unsuccessful(status: ocsp.OCSPResponseStatus) -> bytes:
    made = ocsp.OCSPResponseBuilder.build_unsuccessful(status)
    return made.public_bytes(serialization.Encoding.DER)
