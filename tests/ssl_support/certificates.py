"""Certificates for tests: made quickly, of any shape, rebuilt where a builder would refuse.

Keys are made once in a process and known by name, so that a case can say "the same key again".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, utils
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
SHA1 = hashes.SHA1()  # noqa: S303 # to see it refused
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
AnyKey = (
    ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | dsa.DSAPrivateKey | ed25519.Ed25519PrivateKey
)
_CA_USES = ("key_cert_sign", "crl_sign")


@cache
def key(name: str) -> AnyKey:
    """The key of a name; "rsa1024/x" and the like are of another kind than P-256."""
    kind = name.partition("/")[0] if "/" in name else ""
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:]))
    if kind.startswith("dsa"):
        return dsa.generate_private_key(int(kind[3:]))
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    curves = {"p192": ec.SECP192R1, "p224": ec.SECP224R1, "p384": ec.SECP384R1,
              "p521": ec.SECP521R1, "k256": ec.SECP256K1}  # fmt: skip
    return ec.generate_private_key(curves.get(kind, ec.SECP256R1)())


def name_of(text: str | x509.Name) -> x509.Name:
    """A name with that common name; none for an empty text."""
    if isinstance(text, x509.Name):
        return text
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def key_usage(*uses: str) -> x509.KeyUsage:
    """A key usage that allows these."""
    every = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "key_cert_sign", "crl_sign")  # fmt: skip
    return x509.KeyUsage(**{use: use in uses for use in every}, encipher_only=False,
                         decipher_only=False)  # fmt: skip


@dataclass(frozen=True)
class Spec:
    """What a certificate is to be. Without `issuer` it signs itself.

    `ca` None leaves basicConstraints out; `uses` and `ekus` None leave theirs out. `more` are
    further extensions with their criticality; what has the same type as a usual one replaces it.
    """

    subject: str | x509.Name
    key: str = ""
    issuer: Spec | None = None
    signer: str = ""
    ca: bool | None = False
    path_length: int | None = None
    starts: timedelta = -DAY
    ends: timedelta = 90 * DAY
    sans: Sequence[str | x509.GeneralName] = ()
    uses: Sequence[str] | None = ()
    ekus: Sequence[x509.ObjectIdentifier] | None = (SERVER, CLIENT)
    aia: Sequence[str] = ()
    more: Sequence[tuple[x509.ExtensionType, bool]] = ()
    without: Sequence[type[x509.ExtensionType]] = ()
    digest: hashes.HashAlgorithm | None = field(default_factory=hashes.SHA256)
    serial: int = 0
    rewrite: Callable[[bytes], bytes] | None = None
    resign: bool = True

    @property
    def key_name(self) -> str:
        return self.key or str(self.subject)

    def __hash__(self) -> int:
        return id(self)


def ca(subject: str | x509.Name, issuer: Spec | None = None, **more: object) -> Spec:
    """A CA."""
    usual: dict[str, object] = {"ca": True, "uses": _CA_USES, "ekus": None, "ends": 3650 * DAY}
    return Spec(subject, issuer=issuer, **{**usual, **more})  # type: ignore[arg-type]


def leaf(issuer: Spec, *sans: str | x509.GeneralName, **more: object) -> Spec:
    """A leaf, for www.example.com unless said otherwise."""
    usual: dict[str, object] = {"uses": ("digital_signature",), "key": "leaf"}
    subject = more.pop("subject", "leaf")
    wanted = sans or ("www.example.com",)
    return Spec(subject, issuer=issuer, sans=wanted, **{**usual, **more})  # type: ignore[arg-type]


@cache
def made(spec: Spec) -> x509.Certificate:
    """The certificate of a spec, the same one each time."""
    return x509.load_der_x509_certificate(der(spec))


@cache
def der(spec: Spec) -> bytes:
    """The certificate of a spec, in DER."""
    issuer = spec.issuer or spec
    signer = key(spec.signer or issuer.key_name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of(spec.subject))
        .issuer_name(name_of(issuer.subject))
        .public_key(key(spec.key_name).public_key())
        .serial_number(spec.serial or x509.random_serial_number())
        .not_valid_before(NOW + spec.starts)
        .not_valid_after(NOW + spec.ends)
    )
    for extension, critical in _extensions(spec, signer):
        builder = builder.add_extension(extension, critical)
    if isinstance(spec.digest, hashes.SHA1):
        return _with_sha1(spec, issuer, signer)
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else spec.digest
    data = builder.sign(signer, digest).public_bytes(serialization.Encoding.DER)  # type: ignore[arg-type]
    if spec.rewrite is None:
        return data
    return rewritten(data, spec.rewrite, signer if spec.resign else None)


def _with_sha1(spec: Spec, issuer: Spec, signer: AnyKey) -> bytes:
    """The builder refuses SHA-1, as it should: the algorithm is put in by hand."""
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    data = der(replace(spec, issuer=None if issuer is spec else issuer, digest=hashes.SHA256(),
                       key=spec.key_name, signer=issuer.key_name))  # fmt: skip
    found = parts(parts(data)[0])
    algorithm = tlv(0x30, tlv(0x06, bytes.fromhex("2a8648ce3d0401")))
    tbs = tlv(0x30, b"".join([*found[:2], algorithm, *found[3:]]))
    digest = hashlib.sha1(tbs, usedforsecurity=False).digest()
    signature = signer.sign(digest, ec.ECDSA(utils.Prehashed(SHA1)))
    return tlv(0x30, tbs + algorithm + tlv(0x03, b"\0" + signature))


def _extensions(spec: Spec, signer: AnyKey) -> list[tuple[x509.ExtensionType, bool]]:
    own = key(spec.key_name).public_key()
    usual: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectKeyIdentifier.from_public_key(own), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False),
    ]
    if spec.ca is not None:
        usual.append((x509.BasicConstraints(spec.ca, spec.path_length), True))
    if spec.uses is not None:
        usual.append((key_usage(*spec.uses), True))
    if spec.ekus is not None:
        usual.append((x509.ExtendedKeyUsage(list(spec.ekus)), False))
    if spec.sans:
        names = [x509.DNSName(san) if isinstance(san, str) else san for san in spec.sans]
        usual.append((x509.SubjectAlternativeName(names), not name_of(spec.subject).rdns))
    if spec.aia:
        method = AuthorityInformationAccessOID.CA_ISSUERS
        points = [
            x509.AccessDescription(method, x509.UniformResourceIdentifier(u)) for u in spec.aia
        ]
        usual.append((x509.AuthorityInformationAccess(points), False))
    replaced = {type(extension) for extension, _ in spec.more if not _is_unknown(extension)}
    kept = [e for e in usual if type(e[0]) not in (*spec.without, *replaced)]
    return [*kept, *spec.more]


def _is_unknown(extension: x509.ExtensionType) -> bool:
    return isinstance(extension, x509.UnrecognizedExtension)


def rewritten(data: bytes, change: Callable[[bytes], bytes], signer: AnyKey | None) -> bytes:
    """A certificate whose signed part is changed as bytes, and signed again unless told not to."""
    tbs, algorithm, signature = parts(data)[0:3]
    changed = change(tbs)
    if isinstance(signer, ec.EllipticCurvePrivateKey):
        fresh = signer.sign(changed, ec.ECDSA(hashes.SHA256()))
        signature = tlv(0x03, b"\0" + fresh)
    return tlv(0x30, changed + algorithm + signature)


def tlv(tag: int, content: bytes) -> bytes:
    """A DER value."""
    if len(content) < 0x80:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def parts(value: bytes) -> list[bytes]:
    """The values inside of a DER value, whole."""
    inner, found, at = _content(value), [], 0
    while at < len(inner):
        length = _total(inner[at:])
        found.append(inner[at : at + length])
        at += length
    return found


def _content(value: bytes) -> bytes:
    return value[_header(value) : _total(value)]


def _header(value: bytes) -> int:
    return 2 + (value[1] & 0x7F if value[1] & 0x80 else 0)


def _total(value: bytes) -> int:
    if not value[1] & 0x80:
        return 2 + value[1]
    count = value[1] & 0x7F
    return 2 + count + int.from_bytes(value[2 : 2 + count], "big")


def pem(*specs: Spec) -> bytes:
    """Certificates as PEM."""
    return b"".join(made(spec).public_bytes(serialization.Encoding.PEM) for spec in specs)
