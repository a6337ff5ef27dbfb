"""Real certificates for tests: an authority, and what it issues."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOST = "h1"
USAGES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


def user(name: str) -> str:
    return f"spiffe://lab.hostler/user/{name}"


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


@dataclass(frozen=True)
class Pair:
    key: bytes
    certificate: bytes


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def pem_key(key: ec.EllipticCurvePrivateKey, password: bytes = b"") -> bytes:
    cipher = form.BestAvailableEncryption(password) if password else form.NoEncryption()
    return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, cipher)


class Authority:
    """A certificate authority that issues what a test asks for, good or bad."""

    def __init__(self, name: str = "CA") -> None:
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(name, self.key, [], timedelta(hours=-1), timedelta(days=9))

    def issue(
        self,
        name: str,
        names: list[x509.GeneralName],
        *,
        begins: timedelta = timedelta(hours=-1),
        ends: timedelta = timedelta(hours=1),
        password: bytes = b"",
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        return Pair(pem_key(key, password), self._sign(name, key, names, begins, ends))

    def host(self) -> Pair:
        return self.issue(HOST, [x509.DNSName(HOST), uri(f"spiffe://lab.hostler/host/{HOST}")])

    def user(self, name: str) -> Pair:
        return self.issue(name, [uri(user(name))])

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        names: list[x509.GeneralName],
        begins: timedelta,
        ends: timedelta,
    ) -> bytes:
        authority = key is self.key
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(_usage(authority), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )
        if not authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage(USAGES), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(form.Encoding.PEM)


def replace(file: Path, data: bytes) -> None:
    """Write as an installer does: a new file, renamed over the old one."""
    fresh = file.with_suffix(".new")
    fresh.write_bytes(data)
    fresh.chmod(0o600)
    fresh.rename(file)


def install(folder: Path, pair: Pair, roots: bytes) -> None:
    folder.mkdir(exist_ok=True)
    replace(folder / "host.key", pair.key)
    replace(folder / "host.pem", pair.certificate)
    replace(folder / "ca.pem", roots)
