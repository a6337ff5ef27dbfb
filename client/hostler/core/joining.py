"""The request by which a host asks for its certificate: its own key, its name, and a token.

The token is drawn by who enrols the host, for this one enrolment, and comes back inside of what
the key has signed: a request that is older, or of another host, cannot stand in for it.
Source: RFC 2986 (PKCS #10), RFC 2985 section 5.4.1 (challengePassword).
"""

from __future__ import annotations

import hmac
import re
import secrets

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AttributeOID, NameOID

from hostler.core.names import check_name
from hostler.core.ssl.authority.request import RequestInvalid, load, read_key

_TOKEN = re.compile(r"[0-9a-f]{64}", re.ASCII)


def draw_token() -> str:
    """Draw a token: 256 bits in hexadecimal."""
    return secrets.token_hex(32)


def is_token(text: object) -> bool:
    """Whether a text could be a token."""
    return isinstance(text, str) and _TOKEN.fullmatch(text) is not None


def make_request(key: ec.EllipticCurvePrivateKey, name: str, token: str) -> bytes:
    """Make the request of a host for its key, as PEM. Raises InvalidName."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, check_name("host", name))])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, token.encode())
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def check_request(data: bytes, name: str, token: str) -> ec.EllipticCurvePublicKey:
    """Answer the key of a request that is of this host and this enrolment.

    Raises RequestInvalid if its signature is not that of its key, if the key is not ECDSA P-256,
    or if name or token are others.
    """
    key = read_key(data)
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise RequestInvalid("has a key that is not ECDSA P-256")
    csr = load(data)
    try:
        names = [str(a.value) for a in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        told = csr.attributes.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD).value
    except (ValueError, x509.AttributeNotFound) as e:
        raise RequestInvalid(f"has no token, or a malformed subject: {str(e)[:200]}") from e
    if names != [name]:
        raise RequestInvalid(f"is of {', '.join(names)[:200]!r}, not of {name!r}")
    if not hmac.compare_digest(told, token.encode()):
        raise RequestInvalid("has a token that is not the one of this enrolment")
    return key
