"""Certificates, CRLs and OCSP answers of the internal CA, as openssl judges them."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core import certificates
from hostler.core.names import InvalidField
from hostler.core.ssl.authority import issue, revocation
from hostler.core.ssl.authority.issue import Published, Signer
from hostler.core.ssl.authority.profile import Names
from hostler.core.ssl.authority.request import RequestInvalid
from hostler.core.ssl.authority.revocation import Responder, Revoked

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
DAY = timedelta(days=1)
NAMES = Names(("www.example.net", "*.a.example.net"), (ip_address("192.0.2.1"),))
WHERE = Published("http://ca.test/service.cer", "http://ca.test/service.crl", "http://ca.test/ocsp")


def now() -> datetime:
    return datetime.now(UTC)


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def signer(published: Published = WHERE) -> Signer:
    own = key()
    return Signer((issue.root("Test CA", own, now()),), own, published)


CA = signer()


def leaf(
    by: Signer = CA, names: Names = NAMES, lifetime: timedelta = DAY, usages: tuple[str, ...] = ()
) -> x509.Certificate:
    ends = (now() - timedelta(minutes=5), now() + lifetime)
    return issue.leaf(by, key().public_key(), names, usages or ("server",), ends)


def openssl(*words: str | Path, status: int = 0) -> str:
    done = subprocess.run(
        ["/usr/bin/openssl", *map(str, words)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode == 0) == (status == 0), done.stdout + done.stderr
    return done.stdout + done.stderr


def write(path: Path, *certificates: x509.Certificate) -> Path:
    path.write_bytes(b"".join(c.public_bytes(PEM) for c in certificates))
    return path


def test_openssl_accepts_a_certificate_and_reads_all_of_it(tmp_path: Path) -> None:
    root, made = write(tmp_path / "root", CA.certificate), write(tmp_path / "leaf", leaf())
    strict = ("verify", "-x509_strict", "-CAfile", root)
    openssl(*strict, "-purpose", "sslserver", "-verify_hostname", "www.example.net", made)
    openssl(*strict, "-verify_ip", "192.0.2.1", made)
    openssl(*strict, "-purpose", "sslclient", made, status=2)
    openssl(*strict, "-verify_hostname", "x.example.net", made, status=2)
    text = openssl("x509", "-in", made, "-noout", "-text")
    for words in (
        "Version: 3 (0x2)",
        "CA:FALSE",
        "TLS Web Server Authentication",
        "Digital Signature",
        "OCSP - URI:http://ca.test/ocsp",
        "CA Issuers - URI:http://ca.test/service.cer",
        "URI:http://ca.test/service.crl",
    ):
        assert words in text
    assert "Key Encipherment" not in text
    assert "spiffe" not in text


def test_an_rsa_key_of_a_server_may_encipher(tmp_path: Path) -> None:
    public = rsa.generate_private_key(65537, 2048).public_key()
    made = issue.leaf(CA, public, NAMES, ("server", "client"), (now() - DAY, now() + DAY))
    text = openssl("x509", "-in", write(tmp_path / "c", made), "-noout", "-text")
    assert "Digital Signature, Key Encipherment" in text
    assert "TLS Web Server Authentication, TLS Web Client Authentication" in text


def test_without_a_subject_the_names_are_critical(tmp_path: Path) -> None:
    made = leaf(names=Names(dns=(f"{'a' * 60}.example.net",)))
    text = openssl("x509", "-in", write(tmp_path / "c", made), "-noout", "-text")
    assert "X509v3 Subject Alternative Name: critical" in text
    root = write(tmp_path / "root", CA.certificate)
    openssl("verify", "-x509_strict", "-CAfile", root, tmp_path / "c")


def test_serial_numbers_are_long_and_never_the_same() -> None:
    serials = {leaf().serial_number for _ in range(200)}
    assert len(serials) == 200
    assert max(s.bit_length() for s in serials) <= 159
    # Of 159 bits at random, 96 leading ones are zero once in 2^96 cases.
    assert min(s.bit_length() for s in serials) > 64


def test_a_certificate_ends_with_its_issuer() -> None:
    assert leaf(lifetime=20 * 365 * DAY).not_valid_after_utc == CA.certificate.not_valid_after_utc
    old = key()
    gone = Signer((issue.root("Old", old, now() - timedelta(days=3651)),), old)
    with pytest.raises(InvalidField, match="the authority itself ends"):
        leaf(gone)


def test_an_intermediate_signed_elsewhere_issues(tmp_path: Path) -> None:
    own = key()
    csr, root_key, root = (tmp_path / n for n in ("csr", "root.key", "root.pem"))
    csr.write_bytes(issue.request("Below CA", own))
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", root_key)
    extensions = tmp_path / "ext"
    extensions.write_text(
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl(
        *("req", "-x509", "-key", root_key, "-subj", "/CN=Offline root", "-days", "30"),
        *("-out", root, *usage),
    )
    openssl(
        *("x509", "-req", "-in", csr, "-inform", "DER", "-CA", root, "-CAkey", root_key),
        *("-days", "20", "-extfile", extensions, "-out", tmp_path / "below"),
    )
    pem = (tmp_path / "below").read_bytes() + root.read_bytes()
    chain = certificates.load_certificates(pem)
    below = Signer(issue.check_chain(chain, own, now()), own)
    made = write(tmp_path / "leaf", leaf(below))
    strict = ("verify", "-x509_strict", "-CAfile", root)
    openssl(*strict, "-untrusted", tmp_path / "below", made)
    openssl(*strict, made, status=2)
    for wrong, why in (
        (chain[::-1], "not for the key"),
        ([chain[0], CA.certificate], "not issued by the next"),
        ([], "1 to 5"),
    ):
        with pytest.raises(InvalidField, match=why):
            issue.check_chain(wrong, own, now())
    with pytest.raises(InvalidField, match="not good at this time"):
        issue.check_chain(chain, own, now() + 40 * DAY)


def test_a_leaf_is_no_chain_of_an_authority() -> None:
    own = key()
    ends = (now() - DAY, now() + DAY)
    made = issue.leaf(CA, own.public_key(), NAMES, ("server",), ends)
    with pytest.raises(InvalidField, match=r"not that of an authority|may not sign"):
        issue.check_chain([made, CA.certificate], own, now())


def test_the_key_of_the_authority_gets_no_certificate() -> None:
    with pytest.raises(RequestInvalid, match="key of the authority itself"):
        issue.check_not_own(CA.key.public_key(), [CA])
    issue.check_not_own(key().public_key(), [CA])


def test_openssl_reads_the_crl_and_refuses_what_is_on_it(tmp_path: Path) -> None:
    good, bad = leaf(), leaf()
    revoked = [Revoked(bad.serial_number, now(), "key_compromise"), Revoked(7, now())]
    (tmp_path / "crl").write_bytes(revocation.crl(CA, revoked, 42, now(), DAY))
    root = write(tmp_path / "root", CA.certificate)
    words = ("crl", "-inform", "DER", "-in", tmp_path / "crl")
    assert "verify OK" in openssl(*words, "-CAfile", root, "-noout")
    text = openssl(*words, "-text", "-noout")
    assert "X509v3 CRL Number: \n                42" in text
    assert text.count("Key Compromise") == 1
    assert f"Serial Number: {bad.serial_number:X}".casefold() in text.replace(" 0", " ").casefold()
    (tmp_path / "crl.pem").write_text(openssl(*words, "-outform", "PEM"))
    checked = ("verify", "-CAfile", root, "-crl_check", "-CRLfile", tmp_path / "crl.pem")
    openssl(*checked, write(tmp_path / "good", good))
    assert "certificate revoked" in openssl(*checked, write(tmp_path / "bad", bad), status=2)
    late = str(int((now() + 2 * DAY - timedelta(hours=36)).timestamp()))
    openssl(*checked, "-attime", late, tmp_path / "good")
    late = str(int((now() + timedelta(hours=23, minutes=59)).timestamp()))
    openssl(*checked, "-attime", late, tmp_path / "good")


def test_a_crl_that_has_ended_is_refused(tmp_path: Path) -> None:
    (tmp_path / "crl").write_bytes(revocation.crl(CA, [], 1, now(), timedelta(hours=1)))
    root = write(tmp_path / "root", CA.certificate)
    pem = openssl("crl", "-inform", "DER", "-in", tmp_path / "crl", "-outform", "PEM")
    (tmp_path / "crl.pem").write_text(pem)
    late = str(int((now() + timedelta(hours=2)).timestamp()))
    checked = ("verify", "-CAfile", root, "-crl_check", "-CRLfile", tmp_path / "crl.pem")
    told = openssl(*checked, "-attime", late, write(tmp_path / "c", leaf()), status=2)
    assert "CRL has expired" in told


def responder(by: Signer, known: dict[int, Revoked | None], at: datetime | None = None):
    own = key()
    certificate = issue.responder(by, own.public_key(), at or now())
    return Responder(by.certificate, certificate, own, lambda s: (s in known, known.get(s)))


@pytest.mark.parametrize("digest", ["sha1", "sha256"])
def test_openssl_takes_the_answers_of_the_delegated_responder(tmp_path: Path, digest: str) -> None:
    good, bad, foreign = leaf(), leaf(), leaf()
    known = {
        good.serial_number: None,
        bad.serial_number: Revoked(bad.serial_number, now(), "superseded"),
    }
    root = write(tmp_path / "root", CA.certificate)
    for certificate, word in ((good, "good"), (bad, "revoked"), (foreign, "unknown")):
        path, request = write(tmp_path / "c", certificate), tmp_path / "request"
        about = ("ocsp", f"-{digest}", "-issuer", root, "-cert", path)
        openssl(*about, "-reqout", request)
        answer = revocation.ocsp_answer(request.read_bytes(), [responder(CA, known)], now())
        (tmp_path / "answer").write_bytes(answer)
        told = openssl(
            *("ocsp", "-respin", tmp_path / "answer", "-no_nonce", "-issuer", root),
            *("-CAfile", root, f"-{digest}", "-cert", path),
        )
        assert "Response verify OK" in told
        assert f"{path}: {word}" in told
        assert ("Reason: superseded" in told) == (word == "revoked")
        # The request's nonce came back: openssl refuses another, and tells of none.
        nonce = ("ocsp", "-respin", tmp_path / "answer", "-CAfile", root, "-issuer", root)
        assert openssl(*nonce, "-reqin", request).splitlines() == ["Response verify OK"]


def test_an_answer_of_who_is_no_responder_is_refused(tmp_path: Path) -> None:
    certificate, own = leaf(), key()
    ends = (now() - DAY, now() + DAY)
    not_delegated = issue.leaf(CA, own.public_key(), NAMES, ("server",), ends)
    wrong = Responder(CA.certificate, not_delegated, own, lambda s: (True, None))
    root, path = write(tmp_path / "root", CA.certificate), write(tmp_path / "c", certificate)
    openssl("ocsp", "-issuer", root, "-cert", path, "-reqout", tmp_path / "request")
    data = (tmp_path / "request").read_bytes()
    (tmp_path / "answer").write_bytes(revocation.ocsp_answer(data, [wrong], now()))
    told = openssl(
        *("ocsp", "-respin", tmp_path / "answer", "-no_nonce", "-issuer", root),
        *("-CAfile", root, "-cert", path),
        status=1,
    )
    assert "missing ocspsigning usage" in told


def ocsp_request(certificate: x509.Certificate, issuer: x509.Certificate, nonce: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes

    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1())  # noqa: S303
    if nonce:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(DER)


def test_what_a_responder_does_not_answer() -> None:
    certificate = leaf()
    by = responder(CA, {certificate.serial_number: None})
    status = ocsp.OCSPResponseStatus

    def answer(data: bytes, at: datetime | None = None) -> ocsp.OCSPResponse:
        return ocsp.load_der_ocsp_response(revocation.ocsp_answer(data, [by], at or now()))

    good = ocsp_request(certificate, CA.certificate, b"1" * 32)
    assert answer(good).response_status is status.SUCCESSFUL
    other = ocsp_request(certificate, signer().certificate, b"")
    assert answer(other).response_status is status.UNAUTHORIZED
    long = ocsp_request(certificate, CA.certificate, b"1" * 129)
    assert answer(long).response_status is status.MALFORMED_REQUEST
    for data in (b"", b"garbage", good[:-1], good + b"x" * 5000):
        assert answer(data).response_status is status.MALFORMED_REQUEST
    at = good.index(certificate.serial_number.to_bytes(20).lstrip(b"\0"))
    negative = good[:at] + bytes([good[at] | 0x80]) + good[at + 1 :]
    assert answer(negative).response_status is status.MALFORMED_REQUEST
    assert answer(good, now() + 8 * DAY).response_status is status.TRY_LATER


GOOD = ocsp_request(leaf(), CA.certificate, b"nonce")
BY = responder(CA, {})


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255), cut=st.integers(0, 40))
def test_a_damaged_request_is_answered_all_the_same(at: int, value: int, cut: int) -> None:
    data = bytearray(GOOD)
    data[at] = value
    answer = revocation.ocsp_answer(bytes(data[: len(data) - cut]), [BY], now())
    ocsp.load_der_ocsp_response(answer)


def test_identities_are_signed_for_keys_that_are_elsewhere() -> None:
    made = certificates.make_ca("example.net")
    issuer = certificates.Issuer.load(made.pem, made.key_pem)
    own = key()
    user = certificates.sign_user(issuer, "ann", own.public_key())
    assert certificates.describe(user).identity == "spiffe://example.net/user/ann"
    assert user.public_key() == own.public_key()
    host = certificates.sign_host(issuer, "web1", own.public_key(), ("web1.example.net",))
    assert certificates.describe(host).dns_names == ("web1", "web1.example.net")
