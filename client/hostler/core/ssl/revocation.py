"""Whether a certificate was taken back: CRLs and OCSP answers, given or fetched.

A list that is of the issuer and cannot be used refuses the path, as does a certificate that nothing
is known of where `required` says so. Source: RFC 5280, 5 and 6.3; RFC 6960, 3.2 and 4.2.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from hostler.core.ssl.candidates import Fetch, FetchFailed
from hostler.core.ssl.certificate import Certificate, CertificateUnreadable, canonical, parse_errors
from hostler.core.ssl.facts import access_uris, crl_uris, usages_of
from hostler.core.ssl.profile import Profile
from hostler.core.ssl.reading import read_contents
from hostler.core.ssl.signatures import is_signed_by
from hostler.core.ssl.verdict import Code, Reason

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.x509 import ocsp

MAX_LIST_BYTES = 20 << 20
_MOST_URIS = 4


class Unusable(ValueError):
    """A CRL or OCSP answer that says nothing that can be believed."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """What is known of revocations, in DER, and whether to ask and to insist.

    With `fetch`, what certificates point to is asked for where nothing was given.
    """

    crls: tuple[bytes, ...] = ()
    ocsp: tuple[bytes, ...] = ()
    required: bool = False
    fetch: Fetch | None = None


def revoked(
    path: Sequence[Certificate],
    revocation: Revocation,
    moment: datetime,
    profile: Profile,
    ends_at: float,
) -> Iterator[Reason]:
    """What revocation says against a path; nothing if it is good. Ends by `ends_at`."""
    crls = [crl for crl in map(_read_crl, revocation.crls) if crl is not None]
    for certificate, issuer in pairwise(path):
        asked = _Asked(certificate, issuer, moment, profile)
        found = list(asked.by_crls(crls)) + list(asked.by_ocsp(revocation.ocsp))
        if not found and revocation.fetch is not None:
            found = list(asked.by_fetching(revocation.fetch, ends_at))
        for reason in found:
            if reason is not None:
                yield reason
        if not found and revocation.required:
            yield asked.reason(Code.REVOCATION_UNKNOWN, "nothing says whether it was revoked")


@dataclass(frozen=True)
class _Asked:
    """One certificate, with its issuer, of which revocation is asked. None is "not revoked"."""

    certificate: Certificate
    issuer: Certificate
    moment: datetime
    profile: Profile

    def reason(self, code: Code, message: str) -> Reason:
        return Reason(code, self.certificate.label, message, self.certificate.place)

    def by_crls(self, crls: Sequence[x509.CertificateRevocationList]) -> Iterator[Reason | None]:
        for crl in crls:
            if canonical(crl.issuer) == self.certificate.issuer_key:
                yield self._by_crl(crl)

    def _by_crl(self, crl: x509.CertificateRevocationList) -> Reason | None:
        from cryptography import x509

        try:
            check_crl(crl, self.issuer, self.moment, self.profile)
            entry = crl.get_revoked_certificate_by_serial_number(self.certificate.serial_number)
            if entry is None:
                return None
            why = [e.value for e in entry.extensions if isinstance(e.value, x509.CRLReason)]
        except parse_errors() as error:
            return self.reason(Code.REVOCATION_LIST_UNUSABLE, f"CRL of its issuer: {error}")
        words = f" ({why[0].reason.value})" if why else ""
        return self.reason(Code.REVOKED, f"revoked {entry.revocation_date_utc:%Y-%m-%d}{words}")

    def by_ocsp(self, answers: Sequence[bytes]) -> Iterator[Reason | None]:
        for answer in answers:
            try:
                single = _answer_about(answer, self.certificate, self.issuer)
                if single is not None:
                    yield self._by_answer(*single)
            except parse_errors() as error:
                yield self.reason(Code.REVOCATION_LIST_UNUSABLE, f"OCSP answer: {error}")

    def _by_answer(
        self, response: ocsp.OCSPResponse, single: ocsp.OCSPSingleResponse
    ) -> Reason | None:
        from cryptography.x509 import ocsp

        _check_responder(response, self.issuer, self.moment)
        if single.this_update_utc > self.moment:
            raise Unusable("it is of the future")
        if single.next_update_utc is not None and single.next_update_utc < self.moment:
            raise Unusable(f"it ended {single.next_update_utc:%Y-%m-%d %H:%M:%SZ}")
        if single.certificate_status is ocsp.OCSPCertStatus.GOOD:
            return None
        if single.certificate_status is ocsp.OCSPCertStatus.UNKNOWN:
            return self.reason(Code.REVOCATION_UNKNOWN, "the responder does not know it")
        return self.reason(Code.REVOKED, f"revoked {single.revocation_time_utc:%Y-%m-%d}")

    def by_fetching(self, fetch: Fetch, ends_at: float) -> Iterator[Reason | None]:
        """Ask the responders, then the lists, until one answers. What fails is not told."""
        from cryptography.x509.oid import AuthorityInformationAccessOID as Access

        asked = base64.b64encode(_request(self.certificate, self.issuer)).decode()
        quoted = asked.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
        for uri in access_uris(self.certificate, Access.OCSP)[:_MOST_URIS]:
            data = _fetched(fetch, f"{uri.rstrip('/')}/{quoted}", ends_at)
            if found := list(self.by_ocsp((data,))) if data else []:
                yield from found
                return
        for uri in crl_uris(self.certificate)[:_MOST_URIS]:
            data = _fetched(fetch, uri, ends_at)
            lists = read_contents(data, uri, max_bytes=MAX_LIST_BYTES).crls if data else ()
            read = [crl for crl in map(_read_crl, lists) if crl is not None]
            if found := list(self.by_crls(read)):
                yield from found
                return


def check_crl(
    crl: x509.CertificateRevocationList, issuer: Certificate, moment: datetime, profile: Profile
) -> None:
    """Raise Unusable unless a list is the issuer's, whole, and of now.

    The number that RFC 5280, 5.2.3 wants is often left out by CAs of one's own.
    """
    from cryptography import x509

    key, usages = issuer.public_key, usages_of(issuer)
    if usages is not None and "crl_sign" not in usages:
        raise Unusable("the issuer's key usage does not allow to sign it")
    try:
        signed = key is not None and crl.is_signature_valid(key)  # type: ignore[arg-type]
    except TypeError:
        signed = False
    if not signed:
        raise Unusable("the issuer did not sign it")
    for extension in crl.extensions:
        if extension.critical:
            raise Unusable(f"it has the critical extension {extension.oid.dotted_string}")
    numbered = any(isinstance(e.value, x509.CRLNumber) for e in crl.extensions)
    if profile.public and not numbered:
        raise Unusable("it has no number")
    if crl.last_update_utc > moment:
        raise Unusable("it is of the future")
    if crl.next_update_utc is None or crl.next_update_utc < moment:
        raise Unusable("it is out of date")


def _read_crl(data: bytes) -> x509.CertificateRevocationList | None:
    from cryptography import x509

    try:
        return x509.load_der_x509_crl(data)
    except parse_errors():
        return None


def _fetched(fetch: Fetch, uri: str, ends_at: float) -> bytes:
    left_s = ends_at - time.monotonic()
    if left_s <= 0:
        return b""
    try:
        return fetch(uri, left_s)
    except FetchFailed:
        return b""


def _request(certificate: Certificate, issuer: Certificate) -> bytes:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509 import ocsp

    # SHA-1 names the issuer here, and protects nothing: RFC 5019, 2.1.1 has it.
    builder = ocsp.OCSPRequestBuilder().add_certificate(
        certificate.parsed,
        issuer.parsed,
        hashes.SHA1(),  # noqa: S303
    )
    return builder.build().public_bytes(serialization.Encoding.DER)


def _answer_about(
    answer: bytes, certificate: Certificate, issuer: Certificate
) -> tuple[ocsp.OCSPResponse, ocsp.OCSPSingleResponse] | None:
    """The part of an answer that is about a certificate; None if no part is. Raises Unusable."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509 import ocsp

    response = ocsp.load_der_ocsp_response(answer)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise Unusable(f"the responder says {response.response_status.name.lower()}")
    for single in response.responses:
        if not isinstance(single.hash_algorithm, hashes.SHA1 | hashes.SHA256):
            continue
        own = ocsp.OCSPRequestBuilder().add_certificate(
            certificate.parsed, issuer.parsed, single.hash_algorithm
        )
        wanted = own.build()
        if (
            single.serial_number == wanted.serial_number
            and single.issuer_key_hash == wanted.issuer_key_hash
            and single.issuer_name_hash == wanted.issuer_name_hash
        ):
            return response, single
    return None


def _check_responder(response: ocsp.OCSPResponse, issuer: Certificate, moment: datetime) -> None:
    """Raise Unusable unless the issuer, or one it charged with that, has signed the answer."""
    signers = [issuer, *_delegates(response, issuer, moment)]
    if not any(_signed_answer(response, signer) for signer in signers):
        raise Unusable("neither the issuer nor its responder signed it")


def _delegates(
    response: ocsp.OCSPResponse, issuer: Certificate, moment: datetime
) -> Iterator[Certificate]:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.x509.oid import ExtendedKeyUsageOID

    for sent in response.certificates[:4]:
        try:
            delegate = Certificate.read(sent.public_bytes(serialization.Encoding.DER))
        except CertificateUnreadable:
            continue
        usage = delegate.extension(x509.ExtendedKeyUsage)
        if (
            usage is not None
            and ExtendedKeyUsageOID.OCSP_SIGNING in usage
            and delegate.not_before <= moment <= delegate.not_after
            and delegate.issuer_key == issuer.subject_key
            and is_signed_by(delegate, issuer)
        ):
            yield delegate


def _signed_answer(response: ocsp.OCSPResponse, signer: Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

    key = signer.public_key
    try:
        digest = response.signature_hash_algorithm
        signature, signed = response.signature, response.tbs_response_bytes
        if isinstance(key, rsa.RSAPublicKey) and digest is not None:
            key.verify(signature, signed, padding.PKCS1v15(), digest)
        elif isinstance(key, ec.EllipticCurvePublicKey) and digest is not None:
            key.verify(signature, signed, ec.ECDSA(digest))
        elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            key.verify(signature, signed)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True
