import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from hostler.core import certificates
from hostler.core.certificates import CertificateUnreadable, Issuer, Validity
from hostler.core.names import InvalidField

DAY = timedelta(days=1)


def openssl(*arguments, stdin=None):
    return subprocess.run(
        ["/usr/bin/openssl", *arguments], input=stdin, capture_output=True, timeout=30, check=False
    )


def text_of(pem):
    return openssl("x509", "-noout", "-text", stdin=pem).stdout.decode()


def purpose_of(tmp_path, ca, leaf, purpose):
    (tmp_path / "ca.pem").write_bytes(ca)
    (tmp_path / "leaf.pem").write_bytes(leaf)
    return openssl(
        "verify",
        "-x509_strict",
        "-CAfile",
        str(tmp_path / "ca.pem"),
        "-purpose",
        purpose,
        str(tmp_path / "leaf.pem"),
    )


@pytest.fixture(scope="module")
def ca():
    return certificates.make_ca("lab.hostler")


@pytest.fixture(scope="module")
def issuer(ca):
    return Issuer.load(ca.pem, ca.key_pem)


def test_openssl_sees_a_ca_that_signs_leaves_only(ca):
    text = text_of(ca.pem)
    assert "CA:TRUE, pathlen:0" in text
    assert "Public-Key: (256 bit)" in text and "prime256v1" in text
    assert "Signature Algorithm: ecdsa-with-SHA256" in text
    assert "Digital Signature, Certificate Sign, CRL Sign" in text
    assert "URI:spiffe://lab.hostler" in text
    assert "Subject Key Identifier" in text
    lifetime = ca.certificate.not_after - ca.certificate.not_before
    assert lifetime == 3650 * DAY + timedelta(minutes=5)


def test_openssl_sees_a_host_for_both_sides(ca, issuer, tmp_path):
    host = certificates.issue_host(issuer, "h1", ["h1.example.org"], ["10.77.0.11", "fd00::11"])
    text = text_of(host.pem)
    assert "TLS Web Server Authentication, TLS Web Client Authentication" in text
    assert "CA:FALSE" in text
    assert text.count("URI:") == 1
    for name in (
        "DNS:h1,",
        "DNS:h1.example.org",
        "IP Address:10.77.0.11",
        "IP Address:FD00:0:0:0:0:0:0:11",
        "URI:spiffe://lab.hostler/host/h1",
    ):
        assert name in text
    for purpose in ("sslserver", "sslclient"):
        assert purpose_of(tmp_path, ca.pem, host.pem, purpose).returncode == 0
    serial = openssl("x509", "-noout", "-serial", stdin=host.pem).stdout.decode()
    assert int(serial.split("=")[1], 16) == int(host.certificate.serial, 16)
    print_ = openssl("x509", "-noout", "-fingerprint", "-sha256", stdin=host.pem).stdout.decode()
    assert print_.strip().split("=")[1].replace(":", "").lower() == host.certificate.fingerprint


def test_openssl_sees_a_user_for_the_client_side_only(ca, issuer, tmp_path):
    user = certificates.issue_user(issuer, "alice")
    text = text_of(user.pem)
    assert "TLS Web Client Authentication" in text and "Server Authentication" not in text
    assert "URI:spiffe://lab.hostler/user/alice" in text and "DNS:" not in text
    assert purpose_of(tmp_path, ca.pem, user.pem, "sslclient").returncode == 0
    assert purpose_of(tmp_path, ca.pem, user.pem, "sslserver").returncode != 0


def test_another_ca_of_the_same_name_does_not_verify(issuer, tmp_path):
    other = certificates.make_ca("lab.hostler")
    user = certificates.issue_user(issuer, "alice")
    assert purpose_of(tmp_path, other.pem, user.pem, "sslclient").returncode != 0


def test_the_key_belongs_to_the_certificate(issuer):
    user = certificates.issue_user(issuer, "alice")
    of_key = openssl("pkey", "-pubout", stdin=user.key_pem).stdout
    of_certificate = openssl("x509", "-noout", "-pubkey", stdin=user.pem).stdout
    assert of_key == of_certificate != b""
    assert "PRIVATE" not in repr(user)


def test_lifetimes_begin_five_minutes_ago(issuer):
    now = datetime.now(UTC)
    for made, days in (
        (certificates.issue_host(issuer, "h1"), 30),
        (certificates.issue_user(issuer, "alice"), 7),
    ):
        found = made.certificate
        assert abs(now - timedelta(minutes=5) - found.not_before) < timedelta(seconds=5)
        assert abs(now + days * DAY - found.not_after) < timedelta(seconds=5)


def test_an_expired_certificate_can_be_made_and_openssl_refuses_it(ca, issuer, tmp_path):
    now = datetime.now(UTC)
    ended = Validity(not_before=now - 2 * DAY, not_after=now - DAY)
    user = certificates.issue_user(issuer, "alice", validity=ended)
    answer = purpose_of(tmp_path, ca.pem, user.pem, "sslclient")
    assert b"certificate has expired" in answer.stdout + answer.stderr


def test_no_certificate_outlives_its_ca():
    short = certificates.make_ca("lab", validity=Validity(lifetime=DAY))
    issuer = Issuer.load(short.pem, short.key_pem)
    host = certificates.issue_host(issuer, "h1")
    assert host.certificate.not_after == short.certificate.not_after


@pytest.mark.parametrize(
    "validity",
    [
        Validity(lifetime=timedelta(0)),
        Validity(lifetime=-DAY),
        Validity(not_after=datetime.now(UTC) - DAY),
        Validity(not_after=datetime.now(UTC) + DAY, lifetime=DAY),
        Validity(not_before=datetime(2030, 1, 1)),
    ],
)
def test_bad_dates_are_refused(issuer, validity):
    with pytest.raises(InvalidField):
        certificates.issue_user(issuer, "alice", validity=validity)


def test_serials_are_random_and_differ(issuer):
    serials = {certificates.issue_user(issuer, "alice").certificate.serial for _ in range(20)}
    assert len(serials) == 20
    assert all(len(serial) > 30 for serial in serials)


def test_reading_gives_back_what_was_issued(issuer):
    host = certificates.issue_host(issuer, "h1", ["b.example"], ["10.0.0.1"])
    assert certificates.read_certificate(host.pem) == host.certificate
    assert host.certificate.dns_names == ("h1", "b.example")
    assert host.certificate.ip_addresses == ("10.0.0.1",)


def leaf_with(issuer, *uris):
    key = certificates.make_key()
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + DAY)
    )
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(issuer.key, certificates.hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    "uris",
    [
        (),
        ("spiffe://lab/user/a", "spiffe://lab/user/b"),
        ("https://lab/user/a",),
        ("spiffe://lab/admin/a",),
        ("spiffe://lab/user/A",),
    ],
)
def test_a_leaf_without_exactly_one_identity_is_refused(issuer, uris):
    with pytest.raises(CertificateUnreadable):
        certificates.read_certificate(leaf_with(issuer, *uris))


@pytest.mark.parametrize(
    "pem", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"a" * 10**6]
)
def test_junk_is_no_certificate(pem):
    with pytest.raises(CertificateUnreadable):
        certificates.read_certificate(pem)


def test_only_p256_keys_without_password_are_taken():
    encodings = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    plain = serialization.NoEncryption()
    locked = serialization.BestAvailableEncryption(b"word")
    rsa_key = rsa.generate_private_key(65537, 2048)
    for pem in (
        ec.generate_private_key(ec.SECP384R1()).private_bytes(*encodings, plain),
        rsa_key.private_bytes(*encodings, plain),
        certificates.make_key().private_bytes(*encodings, locked),
        b"junk",
    ):
        with pytest.raises(CertificateUnreadable):
            certificates.load_key(pem)


def test_an_issuer_finds_its_certificate_among_several(ca):
    other = certificates.make_ca("lab.hostler")
    both = other.pem + ca.pem
    loaded = Issuer.load(both, ca.key_pem)
    assert certificates.describe(loaded.certificate) == ca.certificate
    with pytest.raises(CertificateUnreadable, match="no CA certificate belongs"):
        Issuer.load(other.pem, ca.key_pem)


def test_a_leaf_is_no_issuer(issuer):
    user = certificates.issue_user(issuer, "alice")
    with pytest.raises(CertificateUnreadable, match="not that of a Hostler CA"):
        Issuer.load(user.pem, user.key_pem)
