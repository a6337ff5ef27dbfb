"""Certificates of the tests' own: a root, a CA below it, and leaves of many kinds, in files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID as Access
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def make(
    name: str,
    key: Any,
    issuer: Pair | None = None,
    *,
    names: tuple[str, ...] = (),
    is_ca: bool = False,
    aia: str = "",
    days: tuple[int, int] = (-1, 90),
) -> Pair:
    """Issue one; without an issuer it is self-signed. It is a leaf if it has names."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer or Pair(None, key)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * _DAY)
        .not_valid_after(now + days[1] * _DAY)
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()),
            critical=False,
        )
    )
    if is_ca:
        usage = dict.fromkeys(
            (
                *("digital_signature", "content_commitment", "key_encipherment"),
                *("data_encipherment", "key_agreement", "encipher_only", "decipher_only"),
            ),
            False,
        )
        builder = builder.add_extension(
            x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), critical=True
        )
    else:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(each) for each in names])
        builder = builder.add_extension(alternatives, critical=False).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    if aia:
        place = x509.AccessDescription(Access.CA_ISSUERS, x509.UniformResourceIdentifier(aia))
        builder = builder.add_extension(x509.AuthorityInformationAccess([place]), critical=False)
    return Pair(builder.sign(signer.key, hashes.SHA256()), key)


def rsa_key(bits: int = 2048) -> Any:
    return rsa.generate_private_key(65537, bits)


def ec_key() -> Any:
    return ec.generate_private_key(ec.SECP256R1())


class Pki:
    """Files for servers: NAME.pem is leaf and CA, NAME.leaf.pem the leaf alone, NAME.key its key.

    Kinds: rsa, ec, other (for another.test), weak (1024 bits), lone (self-signed), old (expired).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = make("Test Root", ec_key(), is_ca=True, days=(-10, 3650))
        self.ca = make("Test CA", ec_key(), self.root, is_ca=True, days=(-5, 1000))
        self.root_file = folder / "root.pem"
        self.root_file.write_bytes(self.root.pem)
        self._write("ca.pem", self.ca.pem)
        aia = "http://ca.invalid/ca.der"
        names = ("localhost", "www.test")
        self.leaves = {
            "rsa": make("localhost", rsa_key(), self.ca, names=names, aia=aia),
            "ec": make("localhost", ec_key(), self.ca, names=names, aia=aia),
            "other": make("another.test", ec_key(), self.ca, names=("another.test",), aia=aia),
            "weak": make("localhost", rsa_key(1024), self.ca, names=names, aia=aia),
            "lone": make("localhost", rsa_key(), names=names),
            "old": make("localhost", rsa_key(), self.ca, names=names, aia=aia, days=(-90, -2)),
        }
        for name, leaf in self.leaves.items():
            chain = b"" if name == "lone" else self.ca.pem
            self._write(f"{name}.pem", leaf.pem + chain)
            self._write(f"{name}.leaf.pem", leaf.pem)
            self._write(f"{name}.key", leaf.key_pem)
            self._write(f"{name}.all.pem", leaf.pem + chain + leaf.key_pem)

    def _write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(0o644)

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)
