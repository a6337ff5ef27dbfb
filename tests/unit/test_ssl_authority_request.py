"""Requests (PKCS #10) as openssl makes them, and as nobody should."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core.ssl.authority.request import RequestInvalid, read_request

DER = serialization.Encoding.DER


def openssl(*words: str) -> bytes:
    return subprocess.run(
        ["/usr/bin/openssl", *words], check=True, capture_output=True, timeout=60
    ).stdout


def by_openssl(folder: Path, *words: str, key: tuple[str, ...] = (), san: str = "") -> bytes:
    path = folder / "key.pem"
    openssl(*(key or ("ecparam", "-name", "prime256v1", "-genkey", "-noout")), "-out", str(path))
    subject = ("-subj", "/CN=www.example.net/O=Somebody")
    names = ("-addext", f"subjectAltName={san}") if san else ()
    return openssl("req", "-new", "-key", str(path), *subject, *names, *words)


def made(*names: x509.GeneralName, cn: str = "", key: ec.EllipticCurvePrivateKey | None = None):
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(DER)


def test_names_and_key_of_a_request_of_openssl(tmp_path: Path) -> None:
    san = "DNS:WWW.example.net,DNS:*.a.example.net,IP:192.0.2.1,IP:2001:db8::1"
    pem = by_openssl(tmp_path, san=san)
    request = read_request(pem)
    assert request.names.dns == ("www.example.net", "*.a.example.net")
    assert request.names.addresses == (ip_address("192.0.2.1"), ip_address("2001:db8::1"))
    spki = openssl("pkey", "-in", str(tmp_path / "key.pem"), "-pubout", "-outform", "DER")
    (tmp_path / "spki").write_bytes(spki)
    digest = openssl("dgst", "-sha256", "-r", str(tmp_path / "spki")).split()[0].decode()
    assert request.spki_sha256 == digest
    assert read_request(by_openssl(tmp_path, "-outform", "DER", san=san)).names == request.names


def test_without_a_san_the_common_name_counts_and_with_one_it_does_not(tmp_path: Path) -> None:
    assert read_request(by_openssl(tmp_path)).names.dns == ("www.example.net",)
    assert read_request(by_openssl(tmp_path, san="DNS:a.net")).names.dns == ("a.net",)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"), ()),
        (("genpkey", "-algorithm", "ED25519"), ()),
        (("ecparam", "-name", "secp521r1", "-genkey", "-noout"), ("-sha512",)),
    ],
)
def test_strong_keys_are_taken(tmp_path: Path, key: tuple[str, ...], words: tuple[str]) -> None:
    assert read_request(by_openssl(tmp_path, *words, key=key, san="DNS:a.net")).names.dns


@pytest.mark.parametrize(
    ("key", "words", "why"),
    [
        (("genrsa", "1024"), (), "RSA key of 1024 bits"),
        (("genrsa", "-3", "2048"), (), "not safe"),
        (("ecparam", "-name", "secp224r1", "-genkey", "-noout"), (), "secp224r1"),
        (("ecparam", "-name", "secp256k1", "-genkey", "-noout"), (), "secp256k1"),
        (("genpkey", "-algorithm", "ED448"), (), "neither RSA"),
        ((), ("-sha1",), "signed with sha1"),
    ],
)
def test_weak_keys_and_signatures_are_refused(
    tmp_path: Path, key: tuple[str, ...], words: tuple[str, ...], why: str
) -> None:
    # `genrsa` takes its number last, after -out.
    if key[:1] == ("genrsa",):
        *first, bits = key
        openssl(*first, "-out", str(tmp_path / "key.pem"), bits)
        csr = openssl("req", "-new", "-key", str(tmp_path / "key.pem"), "-subj", "/CN=a.net")
    else:
        csr = by_openssl(tmp_path, *words, key=key, san="DNS:a.net")
    with pytest.raises(RequestInvalid, match=why):
        read_request(csr)


def test_a_signature_of_another_key_is_refused() -> None:
    der = made(x509.DNSName("a.net"))
    # The last bytes are the signature's.
    for at in (-1, -20, -40):
        broken = bytearray(der)
        broken[at] ^= 1
        with pytest.raises(RequestInvalid):
            read_request(bytes(broken))


@pytest.mark.parametrize(
    "name",
    [
        x509.UniformResourceIdentifier("spiffe://example.net/user/root"),
        x509.RFC822Name("a@example.net"),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x01a"),
    ],
)
def test_names_of_other_kinds_are_refused(name: x509.GeneralName) -> None:
    with pytest.raises(RequestInvalid, match="asks for a name of kind"):
        read_request(made(x509.DNSName("a.net"), name))


@pytest.mark.parametrize("name", ["", "a..b", "*", "a.*.net", "a b", "-a.net", "1.2.3.4", "x" * 64])
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(RequestInvalid, match="a name that is none"):
        read_request(made(x509.DNSName(name)))


def test_an_unmeant_subject_names_nothing() -> None:
    assert read_request(made()).names.words() == ()
    with pytest.raises(RequestInvalid):
        read_request(made(cn="An Organisation of ours"))


def test_what_is_too_large_or_more_than_one_is_refused() -> None:
    der = made(x509.DNSName("a.net"))
    pem = x509.load_der_x509_csr(der).public_bytes(serialization.Encoding.PEM)
    assert read_request(b"\xef\xbb\xbf" + pem.replace(b"\n", b"\r\n")).names.dns == ("a.net",)
    for data, why in (
        (b"", "not a PKCS"),
        (b"0" * (64 * 1024 + 1), "larger than"),
        (pem + pem, "more than one block"),
        (der + b"\0", "not a PKCS"),
        (pem[:-40], "not a PKCS"),
    ):
        with pytest.raises(RequestInvalid, match=why):
            read_request(data)


GOOD = made(x509.DNSName("a.example.net"), x509.IPAddress(ip_address("192.0.2.1")), cn="a")


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255), cut=st.integers(0, 40))
def test_a_damaged_request_is_refused_by_name_or_means_the_same(
    at: int, value: int, cut: int
) -> None:
    data = bytearray(GOOD)
    data[at] = value
    try:
        request = read_request(bytes(data[: len(data) - cut]))
    except RequestInvalid:
        return
    # The signature covers all that counts.
    assert request.names == read_request(GOOD).names


def test_a_version_that_is_none_and_a_key_that_is_none_are_refused() -> None:
    version = GOOD.index(b"\x02\x01\x00")
    curve = GOOD.index(bytes.fromhex("2a8648ce3d030107"))
    for at, value in ((version + 2, 7), (curve + 7, 99)):
        damaged = GOOD[:at] + bytes([value]) + GOOD[at + 1 :]
        with pytest.raises(RequestInvalid):
            read_request(damaged)


@given(data=st.binary(max_size=300))
def test_garbage_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(RequestInvalid):
        read_request(data)
