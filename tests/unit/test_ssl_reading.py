"""Reading certificates and keys: every way in which people write them, and what is broken."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from certificates import ca, der, key, leaf, made, pem, tlv
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs7,
    pkcs12,
)

from hostler.core.ssl.certificate import Certificate, CertificateUnreadable
from hostler.core.ssl.reading import FaultCode, read_contents

ROOT = ca("Reading Root")
INNER = ca("Reading Inner", ROOT)
LEAF = leaf(INNER, "www.example.com", "*.example.com", x509.RFC822Name("a@example.com"))
CHAIN = pem(LEAF, INNER, ROOT)
SOAK = os.environ.get("HOSTLER_SOAK") == "1"
PASSPHRASE = b"correct horse"


def codes(data: bytes, passphrase: bytes | None = None) -> list[FaultCode]:
    return [fault.code for fault in read_contents(data, "f", passphrase).faults]


def key_pem(form: PrivateFormat = PrivateFormat.PKCS8, passphrase: bytes | None = None) -> bytes:
    how = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key("leaf").private_bytes(Encoding.PEM, form, how)


WAYS = {
    "plain": CHAIN,
    "crlf": CHAIN.replace(b"\n", b"\r\n"),
    "cr": CHAIN.replace(b"\n", b"\r"),
    "utf-8 mark": b"\xef\xbb\xbf" + CHAIN,
    "utf-16": "\ufeff".encode("utf-16-le") + CHAIN.decode().encode("utf-16-le"),
    "text between": b"subject=/CN=x\n" + CHAIN.replace(b"-----BEGIN", b"some words: 1\n-----BEGIN"),
    "glued": CHAIN.replace(b"-----\n-----", b"----------"),
    "spaces": CHAIN.replace(b"\n", b"  \n"),
    "one line": b"".join(
        block.replace(b"\n", b"").replace(b"CERTIFICATE-----M", b"CERTIFICATE-----\nM")
        for block in CHAIN.split(b"\n\n")
    ),
    "pkcs7 pem": pkcs7.serialize_certificates([made(s) for s in (LEAF, INNER, ROOT)], Encoding.PEM),
    "pkcs7 der": pkcs7.serialize_certificates([made(s) for s in (LEAF, INNER, ROOT)], Encoding.DER),
    "der after der": der(LEAF) + der(INNER) + der(ROOT),
    "pkcs12": pkcs12.serialize_key_and_certificates(
        b"n",
        key("leaf"),
        made(LEAF),
        [made(INNER), made(ROOT)],
        BestAvailableEncryption(PASSPHRASE),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_writing_gives_the_same_certificates(way: str) -> None:
    contents = read_contents(WAYS[way], "f", PASSPHRASE)
    assert {c.data for c in contents.certificates} == {der(LEAF), der(INNER), der(ROOT)}
    assert not contents.faults
    assert contents.certificates[0].data == der(LEAF) or way.startswith("pkcs7")


def test_facts_are_those_that_openssl_prints(tmp_path: Path) -> None:
    path = tmp_path / "leaf.pem"
    path.write_bytes(pem(LEAF))
    facts = read_contents(path.read_bytes(), "f").certificates[0].facts
    printed = subprocess.run(
        ["openssl", "x509", "-in", path, "-noout", "-serial", "-subject", "-issuer", "-enddate",
         "-fingerprint", "-sha256", "-ext", "subjectAltName,keyUsage", "-nameopt", "RFC2253",
         "-dateopt", "iso_8601"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert f"serial={int(facts.serial, 16):X}" in printed.replace("serial=0", "serial=")
    assert f"subject={facts.subject}\n" in printed
    assert f"issuer={facts.issuer}\n" in printed
    assert f"notAfter={facts.not_after:%Y-%m-%d %H:%M:%S}Z" in printed
    assert facts.fingerprint_sha256.upper() in printed.replace(":", "")
    listed = ", ".join(f"{n.kind.replace('dns', 'DNS')}:{n.value}" for n in facts.names)
    assert listed in printed
    assert facts.usages == ("digital_signature",)
    assert facts.extended_usages == ("serverAuth", "clientAuth")
    assert (facts.key.kind, facts.key.size_bits, facts.is_ca) == ("ec", 256, False)


def test_hash_of_the_public_key_is_the_one_of_openssl_and_of_the_private_key(
    tmp_path: Path,
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(key_pem())
    public = subprocess.run(
        ["openssl", "pkey", "-in", path, "-pubout", "-outform", "DER"],
        capture_output=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    want = hashlib.sha256(public).hexdigest()
    contents = read_contents(key_pem() + pem(LEAF), "f")
    assert contents.keys[0].facts.spki_sha256 == want
    assert contents.certificates[0].spki_sha256 == want
    assert contents.keys[0].facts.private


@pytest.mark.parametrize(
    "data",
    [
        key_pem(),
        key_pem(PrivateFormat.TraditionalOpenSSL),
        key_pem(passphrase=PASSPHRASE),
        key_pem(PrivateFormat.TraditionalOpenSSL, PASSPHRASE),
        key("leaf").private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        key("leaf").private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
        key("leaf").private_bytes(
            Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE)
        ),
    ],
)
def test_keys_of_every_form(data: bytes) -> None:
    contents = read_contents(data, "f", PASSPHRASE)
    assert [k.facts.spki_sha256 for k in contents.keys] == [Certificate.read(der(LEAF)).spki_sha256]
    assert not contents.faults


def test_no_answer_holds_a_private_key() -> None:
    contents = read_contents(key_pem() + CHAIN, "f")
    numbers = key("leaf").private_numbers().private_value  # type: ignore[union-attr]
    assert str(numbers) not in repr(contents)
    assert f"{numbers:x}" not in repr(contents)
    assert key_pem().decode().splitlines()[1] not in repr(contents)


def test_encrypted_keys_say_what_they_need() -> None:
    data = key_pem(passphrase=PASSPHRASE)
    asked = read_contents(data, "f")
    assert (asked.keys[0].facts.encrypted, asked.keys[0].facts.spki_sha256) == (True, "")
    assert codes(data) == [FaultCode.PASSPHRASE_NEEDED]
    assert codes(data, b"wrong") == [FaultCode.PASSPHRASE_WRONG]
    assert codes(WAYS["pkcs12"]) == [FaultCode.PASSPHRASE_NEEDED]
    assert codes(WAYS["pkcs12"], b"wrong") == [FaultCode.PASSPHRASE_WRONG]


def test_broken_parts_are_named_with_their_place_and_the_rest_is_read() -> None:
    block = pem(LEAF)
    data = (
        pem(ROOT)
        + block.replace(b"-----END CERTIFICATE-----\n", b"")  # line 1 of it has no end
        + block.replace(b"M", b"!", 1).replace(b"\nM", b"\n!")
        + b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
        + pem(INNER)
        + b"-----BEGIN CERTIFICATE-----\nMIIB"
    )
    contents = read_contents(data, "/etc/ssl/x.pem")
    assert [c.data for c in contents.certificates] == [der(ROOT), der(INNER)]
    lines = data.decode().split("\n")
    begins = [i for i, line in enumerate(lines, 1) if line.startswith("-----BEGIN")]
    assert [fault.place for fault in contents.faults] == [
        f"/etc/ssl/x.pem:{begins[i]}" for i in (1, 2, 3, 5)
    ]
    assert contents.certificates[1].place == f"/etc/ssl/x.pem:{begins[4]}"
    assert "truncated" in contents.faults[0].message


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", FaultCode.EMPTY),
        (b"\n\n", FaultCode.EMPTY),
        (b"<html>log in</html>", FaultCode.UNKNOWN_FORMAT),
        (b"\x30\x82\xff\xff\x00", FaultCode.UNKNOWN_FORMAT),
        (tlv(0x30, tlv(0x04, b"x")), FaultCode.UNKNOWN_FORMAT),
        (der(LEAF)[:-5], FaultCode.UNKNOWN_FORMAT),
        (der(LEAF) + b"junk", FaultCode.CERTIFICATE_MALFORMED),
        (b"\x30\x80" + b"\0" * 20, FaultCode.CONTAINER_MALFORMED),
        (b"A" * (10 << 20), FaultCode.TOO_LARGE),
        (pem(LEAF) * 20_000, FaultCode.TOO_LARGE),
        (pem(LEAF) * 6, FaultCode.TOO_MANY),
    ],
)
def test_what_cannot_be_read_is_named(data: bytes, code: FaultCode) -> None:
    contents = read_contents(data, "f", max_certificates=5)
    assert code in [fault.code for fault in contents.faults]


def test_a_file_of_beginnings_alone_is_gone_through_once() -> None:
    # 4 MB: to look from each of them to the end would be hundreds of gigabytes.
    begin = b"-----BEGIN CERTIFICATE-----\n"
    for data in (begin * 140_000, begin * 140_000 + b"-----END CERTIFICATE-----\n"):
        contents = read_contents(data, "f")
        assert contents.faults[0].place == "f:1"
        assert not contents.certificates


def test_hours_of_key_derivation_are_refused() -> None:
    # PBES2 with PBKDF2 that asks for two billion rounds.
    plain = key("leaf").private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE)
    )
    rounds = next(tlv(2, n.to_bytes(2, "big")) for n in range(2048, 32768)
                  if tlv(2, n.to_bytes(2, "big")) in plain)  # fmt: skip
    hostile = plain.replace(rounds, tlv(2, (2**31 - 1).to_bytes(4, "big")), 1)
    # The lengths of what is around it grow by two.
    fixed = _regrown(plain, hostile)
    contents = read_contents(fixed, "f", PASSPHRASE)
    assert contents.faults[0].code is FaultCode.KEY_MALFORMED
    assert "rounds of key derivation" in contents.faults[0].message


def _regrown(plain: bytes, changed: bytes) -> bytes:
    """Raise by two the length of each value that holds the place where both differ."""
    at = next(i for i, (a, b) in enumerate(zip(plain, changed, strict=False)) if a != b)
    data, position = bytearray(changed), 0
    while position < at - 1:
        header = 2 + (data[position + 1] & 0x7F if data[position + 1] & 0x80 else 0)
        long = header > 2
        start = position + (2 if long else 1)
        size = header - 2 if long else 1
        length = int.from_bytes(data[start : start + size], "big")
        if position + header + length >= at:
            data[start : start + size] = (length + 2).to_bytes(size, "big")
            position += header
        else:
            position += header + length
    return bytes(data)


@pytest.mark.soak
@pytest.mark.timeout(1800 if SOAK else 120)
def test_bytes_that_are_changed_at_random_never_crash_a_reader() -> None:
    plain_key = key("leaf").private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    seeds = [
        der(LEAF),
        der(ROOT),
        WAYS["pkcs7 der"],
        CHAIN,
        key_pem(),
        WAYS["pkcs7 pem"],
        plain_key,
    ]
    chance = random.Random(None if SOAK else 6)  # noqa: S311 # the same bytes every time
    read = 0
    for _ in range(100_000 if SOAK else 3000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            how = chance.randrange(4)
            if how == 0:
                data[at] = chance.randrange(256)
            elif how == 1:
                data[at] ^= 1 << chance.randrange(8)
            elif how == 2:
                del data[at : at + chance.randint(1, 8)]
            else:
                data[at:at] = chance.randbytes(chance.randint(1, 4))
        for found in read_contents(bytes(data), "f", b"x").certificates:
            assert found.facts.fingerprint_sha256
            read += 1
    # Most are broken where they are read; those that are not have facts.
    assert read > 300


def test_der_that_is_no_certificate_raises_the_one_error() -> None:
    for data in (b"", b"\x30\x00", tlv(0x30, b"".join([tlv(0x30, b"")] * 2) + tlv(3, b"\0"))):
        with pytest.raises(CertificateUnreadable):
            Certificate.read(data)


def test_lives_are_told_in_utc() -> None:
    found = Certificate.read(der(LEAF))
    assert found.not_before.utcoffset() == timedelta(0)
