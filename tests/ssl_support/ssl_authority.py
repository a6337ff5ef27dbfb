"""A certificate authority of the tests' own: a root, an intermediate, leaves for requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID


def pem(*certificates: x509.Certificate) -> str:
    return "".join(c.public_bytes(Encoding.PEM).decode() for c in certificates)


class Authority:
    """`life` is how long leaves are good for."""

    def __init__(self, name: str, life: timedelta = timedelta(days=90)) -> None:
        self.life = life
        self._root_key = ec.generate_private_key(ec.SECP256R1())
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.root = self._authority(f"{name} root", self._root_key, None)
        self.intermediate = self._authority(f"{name} intermediate", self._key, self.root)

    def _authority(self, name, key, issuer):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, issuer.subject if issuer else subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
        return builder.sign(self._root_key, hashes.SHA256())

    def _builder(self, subject, issuer, public):
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + self.life)
        )

    def issue(self, csr_pem: str) -> x509.Certificate:
        """A leaf for a request, signed by the intermediate."""
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        assert csr.is_signature_valid
        builder = self._builder(csr.subject, self.intermediate.subject, csr.public_key())
        for extension in csr.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        return builder.sign(self._key, hashes.SHA256())

    def issue_for(self, *names: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """A leaf with a key of its own, made here."""
        key = ec.generate_private_key(ec.SECP256R1())
        san = x509.SubjectAlternativeName([x509.DNSName(n) for n in names])
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        signed = csr.add_extension(san, False).sign(key, hashes.SHA256())
        return self.issue(signed.public_bytes(Encoding.PEM).decode()), key
