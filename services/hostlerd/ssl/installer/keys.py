"""Private keys: made here, kept here while they wait, and matched with what they were signed as."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from hostlerd.privileged.refused import Refused
from hostlerd.ssl.installer import folder

Key = CertificateIssuerPrivateKeyTypes
MAX_CERTIFICATES = 16


def make(kind: str) -> Key:
    """Make a key of a kind that the grammar knows."""
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind.removeprefix("rsa")))
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP384R1() if kind == "ec384" else ec.SECP256R1())


def request(key: Key, subject_names: Sequence[str]) -> str:
    """Answer a certificate signing request, PEM. RFC 2986; names in the extension alone."""
    names = x509.SubjectAlternativeName([_general_name(each) for each in subject_names])
    made = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(names, critical=True)
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def spki_sha256(public: Any) -> str:
    """SHA-256 of the SubjectPublicKeyInfo of a public key, in hex."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def to_pem(key: Key) -> bytes:
    """The key as servers read it: PKCS #8, PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def from_pem(data: bytes) -> Key | None:
    """Read the first private key of a PEM file; None if there is none that can be used."""
    start = data.find(b"-----BEGIN ")
    while start >= 0:
        end = data.find(b"-----END ", start)
        end = data.find(b"\n", end) if end >= 0 else -1
        block = data[start : end if end >= 0 else len(data)]
        if b"PRIVATE KEY-----" in block[:64]:
            try:
                return serialization.load_pem_private_key(block, None)  # type: ignore[return-value]
            except (ValueError, TypeError):
                return None
        start = data.find(b"-----BEGIN ", start + 1)
    return None


def certificates(pem: str) -> list[x509.Certificate]:
    """Read certificates in PEM. Raises Refused."""
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except ValueError as e:
        raise Refused("INVALID", "not certificates in PEM", [("pem", str(e)[:200])]) from e
    if len(found) > MAX_CERTIFICATES:
        words = f"must be at most {MAX_CERTIFICATES} certificates"
        raise Refused("INVALID", words, [("pem", words)])
    return found


def leaf_of(found: Sequence[x509.Certificate], key: Key) -> x509.Certificate | None:
    """Answer the certificate that was issued for a key."""
    wanted = spki_sha256(key.public_key())
    return next((c for c in found if spki_sha256(c.public_key()) == wanted), None)


def issuers_of(
    leaf: x509.Certificate, others: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """Answer the issuers of a leaf in order, the root left out, which clients have or do not trust.

    Raises Refused if a certificate is in no way an issuer: such a chain was put together wrongly.
    """
    chain: list[x509.Certificate] = []
    left = [c for c in others if c != leaf]
    at = leaf
    while found := next((c for c in left if _issued(at, c)), None):
        left.remove(found)
        at = found
        chain.append(found)
    if left:
        words = f"{left[0].subject.rfc4514_string()} is not an issuer of this certificate"
        raise Refused("CHAIN_BROKEN", words, [("pem", words)])
    return [c for c in chain if c.subject != c.issuer]


def _issued(one: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


class Waiting:
    """The keys that wait for their certificate, one for each deployment; root's alone."""

    def __init__(self, place: Path) -> None:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._place = place

    def make(self, deployment: Mapping[str, Any]) -> dict[str, Any]:
        """Make a key in the place of the one that waits; answer the request for it."""
        key = make(deployment["key_kind"])
        fd = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            draft, name = f".{deployment['name']}.new", deployment["name"]
            folder.write_new(fd, draft, to_pem(key), 0o600)
            os.rename(draft, name, src_dir_fd=fd, dst_dir_fd=fd)
            os.fsync(fd)
        finally:
            os.close(fd)
        return {
            "csr_pem": request(key, deployment["subject_names"]),
            "spki_sha256": spki_sha256(key.public_key()),
        }

    def get(self, name: str) -> Key | None:
        """Answer the key that waits for a deployment."""
        path = self._place / name
        return from_pem(path.read_bytes()) if path.is_file() else None

    def drop(self, name: str) -> None:
        """Forget the key that waits; none is no error."""
        (self._place / name).unlink(missing_ok=True)
