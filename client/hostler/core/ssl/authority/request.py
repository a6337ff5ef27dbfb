"""Certificate requests (PKCS #10): read within bounds, and of them only the key and the names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from hostler.core.names import InvalidAddress, InvalidDnsName, check_address, check_dns_name
from hostler.core.ssl.authority.profile import Names

MAX_REQUEST_BYTES = 64 * 1024
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_DIGESTS = ("sha256", "sha384", "sha512", "sha3-256", "sha3-384", "sha3-512")

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class RequestInvalid(Exception):
    """Bytes that are no request, or one that no authority should follow. The message says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """What counts of a request: the key, and the names it asks for."""

    key: PublicKey
    names: Names

    @property
    def spki_sha256(self) -> str:
        """SHA-256 of the key's SubjectPublicKeyInfo, in hex."""
        return spki_sha256(self.key)


def spki_sha256(key: PublicKey) -> str:
    """SHA-256 of a key's SubjectPublicKeyInfo in DER, in hex."""
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, spki)).hexdigest()


def read_request(data: bytes) -> Request:
    """Read a request, DER or PEM, whose signature is good. Raises RequestInvalid.

    Names come from its SAN extension; without one, from its common name. What else it asks for
    (usages, basic constraints, policies) does not count.
    """
    csr = load(data)
    return Request(_key(csr), _names(csr))


def read_key(data: bytes) -> PublicKey:
    """Read of a request, whose signature is good, the key alone. Raises RequestInvalid."""
    return _key(load(data))


def _key(csr: x509.CertificateSigningRequest) -> PublicKey:
    try:
        key = check_key(csr.public_key())
    except (ValueError, UnsupportedAlgorithm) as e:
        raise RequestInvalid(f"has a key that is none: {str(e)[:200]}") from e
    _check_signature(csr)
    return key


def load(data: bytes) -> x509.CertificateSigningRequest:
    """Parse a request of at most 64 KiB, and nothing after it. Raises RequestInvalid."""
    if len(data) > MAX_REQUEST_BYTES:
        raise RequestInvalid(f"is larger than {MAX_REQUEST_BYTES} bytes")
    pem = data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"-----BEGIN")
    try:
        if pem:
            if data.count(b"-----BEGIN") != 1:
                raise RequestInvalid("has more than one block of PEM")
            return x509.load_pem_x509_csr(data)
        return x509.load_der_x509_csr(data)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as e:
        raise RequestInvalid(f"is not a PKCS #10 request: {str(e)[:200]}") from e


def check_key(key: object) -> PublicKey:
    """Answer the key if it is strong enough. Raises RequestInvalid."""
    if isinstance(key, rsa.RSAPublicKey):
        exponent = key.public_numbers().e
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise RequestInvalid(
                f"has an RSA key of {key.key_size} bits, not {MIN_RSA_BITS} to {MAX_RSA_BITS}"
            )
        if exponent < 65537 or not exponent & 1 or not key.public_numbers().n & 1:
            raise RequestInvalid("has an RSA key with an exponent or modulus that is not safe")
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in _CURVES:
            raise RequestInvalid(f"has a key on {key.curve.name}, not {', '.join(_CURVES)}")
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise RequestInvalid("has a key that is neither RSA, EC nor Ed25519")


def _check_signature(csr: x509.CertificateSigningRequest) -> None:
    try:
        digest: hashes.HashAlgorithm | None = csr.signature_hash_algorithm
        if digest is not None and digest.name not in _DIGESTS:
            raise RequestInvalid(f"is signed with {digest.name}, which is too weak")
        good = csr.is_signature_valid
    except (UnsupportedAlgorithm, ValueError, TypeError) as e:
        raise RequestInvalid(f"has a signature that cannot be checked: {str(e)[:200]}") from e
    if not good:
        raise RequestInvalid("has a signature that is not of its own key")


def _names(csr: x509.CertificateSigningRequest) -> Names:
    try:
        san = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return Names(dns=_common_name(csr))
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as e:
        raise RequestInvalid(f"has malformed extensions: {str(e)[:200]}") from e
    dns: list[str] = []
    addresses: list[IPv4Address | IPv6Address] = []
    for name in san:
        if isinstance(name, x509.DNSName):
            dns.append(_dns(name.value))
        elif isinstance(name, x509.IPAddress):
            addresses.append(_address(name.value))
        else:
            # Left out silently it would be missed when it is needed; and a URI is an identity.
            raise RequestInvalid(
                f"asks for a name of kind {type(name).__name__}; only DNS names and addresses go"
            )
    return Names(tuple(dict.fromkeys(dns)), tuple(dict.fromkeys(addresses)))


def _common_name(csr: x509.CertificateSigningRequest) -> tuple[str, ...]:
    try:
        found = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return tuple(dict.fromkeys(_dns(str(attribute.value)) for attribute in found))
    except ValueError as e:
        raise RequestInvalid(f"has a malformed subject: {str(e)[:200]}") from e


def _dns(name: str) -> str:
    try:
        checked = check_dns_name(name.removeprefix("*."))
    except InvalidDnsName as e:
        raise RequestInvalid(f"asks for a name that is none: {e.reason}") from e
    return f"*.{checked}" if name.startswith("*.") else checked


def _address(value: object) -> IPv4Address | IPv6Address:
    try:
        return check_address(str(value))
    except InvalidAddress as e:
        raise RequestInvalid(f"asks for an address that is none: {e.reason}") from e
