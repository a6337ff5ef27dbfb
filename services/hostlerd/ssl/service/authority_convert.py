"""What the signer tells, as messages."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from hostler.api.ssl.v1 import authority_pb2 as pb
from hostler.api.ssl.v1 import certificate_pb2

_KEY_TYPES = {
    "RSAPublicKey": certificate_pb2.KEY_TYPE_RSA,
    "ECPublicKey": certificate_pb2.KEY_TYPE_EC,
    "Ed25519PublicKey": certificate_pb2.KEY_TYPE_ED25519,
    "Ed448PublicKey": certificate_pb2.KEY_TYPE_ED448,
    "DSAPublicKey": certificate_pb2.KEY_TYPE_DSA,
}


def authority(state: Mapping[str, Any]) -> pb.Authority:
    """Answer the authority."""
    message = pb.Authority(
        certificates=[certificate(der) for der in _all(state["issuers"]["service"])],
        identity_certificates=[certificate(der) for der in _all(state["issuers"]["identity"])],
        profiles=[_profile(profile) for profile in state["profiles"]],
        identities=state["identities"],
        crl_urls=[state["crl_url"]] if state["crl_url"] else [],
        ocsp_urls=[state["ocsp_url"]] if state["ocsp_url"] else [],
        issued=state["issued"],
        revoked=state["revoked"],
        waiting_request=base64.b64decode(state["waiting"]),
    )
    if state["crl_time"]:
        message.crl_time.FromSeconds(state["crl_time"])
    return message


def issued(row: Mapping[str, Any]) -> pb.IssuedCertificate:
    """Answer a certificate that was issued."""
    message = pb.IssuedCertificate(
        certificate=certificate(base64.b64decode(row["der"])),
        profile=row["profile"],
        requester=row["requester"],
    )
    message.issue_time.FromSeconds(row["issue_time"])
    if row["revoke_time"] is not None:
        message.revoke_time.FromSeconds(row["revoke_time"])
        message.reason = reason_of(row["reason"])
    return message


def pem(answer: Mapping[str, Any]) -> str:
    """Answer a certificate and its chain as PEM, leaf first."""
    ders = [base64.b64decode(answer["issued"]["der"]), *_all(answer["chain"])]
    return "".join(
        f"-----BEGIN CERTIFICATE-----\n{_lines(der)}\n-----END CERTIFICATE-----\n" for der in ders
    )


def word_of(reason: int) -> str:
    """Answer the signer's word for a reason; empty for a number that is none."""
    known = pb.RevocationReason.DESCRIPTOR.values_by_number.get(reason)
    return known.name.removeprefix("REVOCATION_REASON_").lower() if known else ""


def reason_of(word: str) -> Any:
    """Answer the reason for the signer's word."""
    return pb.RevocationReason.Value(f"REVOCATION_REASON_{word.upper()}")


def certificate(der: bytes) -> certificate_pb2.Certificate:
    """Answer what a certificate of the authority says, with its bytes."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    found = x509.load_der_x509_certificate(der)
    key = found.public_key()
    spki = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    curve = getattr(key, "curve", None)
    message = certificate_pb2.Certificate(
        fingerprint_sha256=hashlib.sha256(der).hexdigest(),
        subject=found.subject.rfc4514_string(),
        issuer=found.issuer.rfc4514_string(),
        serial=f"{found.serial_number:x}",
        names=_names(found),
        key=certificate_pb2.PublicKey(
            spki_sha256=hashlib.sha256(spki).hexdigest(),
            type=_KEY_TYPES.get(type(key).__name__, certificate_pb2.KEY_TYPE_UNSPECIFIED),
            size_bits=getattr(key, "key_size", 256),
            curve=curve.name if curve is not None else "",
        ),
        # The name in the registry of OIDs is nowhere public in the library.
        signature_algorithm=found.signature_algorithm_oid._name,
        authority=_is_authority(found),
        self_signed=found.subject == found.issuer,
        der=der,
    )
    _set(message.not_before, found.not_valid_before_utc)
    _set(message.not_after, found.not_valid_after_utc)
    return message


def _is_authority(found: Any) -> bool:
    from hostler.core.certificates import is_ca

    return is_ca(found)


def _names(found: Any) -> Iterable[certificate_pb2.SubjectName]:
    from cryptography import x509

    kinds = (
        ("dns", x509.DNSName),
        ("ip", x509.IPAddress),
        ("uri", x509.UniformResourceIdentifier),
    )
    try:
        san = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [
        certificate_pb2.SubjectName(kind=word, value=str(value))
        for word, kind in kinds
        for value in san.get_values_for_type(kind)
    ]


def _profile(profile: Mapping[str, Any]) -> pb.Profile:
    message = pb.Profile(
        name=profile["name"],
        dns_names=profile["dns_names"],
        networks=profile["networks"],
        wildcards=profile["wildcards"],
        usages=profile["usages"],
    )
    message.max_validity.FromSeconds(profile["max_validity_s"])
    return message


def _set(timestamp: Any, moment: datetime) -> None:
    timestamp.FromSeconds(int(moment.timestamp()))


def _all(texts: Iterable[str]) -> list[bytes]:
    return [base64.b64decode(text) for text in texts]


def _lines(der: bytes) -> str:
    text = base64.b64encode(der).decode()
    return "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
