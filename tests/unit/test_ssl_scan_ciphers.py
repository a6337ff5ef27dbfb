"""The table of cipher suites, beside what OpenSSL says of its own."""

from __future__ import annotations

import re
import subprocess

import pytest

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.ciphers import CipherSuite, pool, suite, suites

# OpenSSL's words for key exchange and authentication that the registry's names have others for.
_KX = {"DH": ("DHE", "DH_anon"), "ECDH": ("ECDHE", "ECDH_anon"), "any": ("TLS13",)}
_KX |= {"DHEPSK": ("DHE",), "ECDHEPSK": ("ECDHE",), "RSAPSK": ("RSA_PSK",)}


def _of_openssl() -> list[re.Match[str]]:
    argv = ["/usr/bin/openssl", "ciphers", "-V", "-stdname", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]
    said = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
    line = re.compile(
        r"\s*0x(..),0x(..) - (\S+)\s+- \S+\s+\S+\s+Kx=(\S+)\s+Au=(\S+)\s+Enc=([^(\s]+)\(?(\d*)"
    )
    found = [line.match(each) for each in said.splitlines() if each.strip()]
    return [each for each in found if each is not None]


def test_openssl_says_the_same_of_every_suite_that_it_has() -> None:
    of_openssl = _of_openssl()
    assert len(of_openssl) > 140
    for found in of_openssl:
        number = int(found[1] + found[2], 16)
        mine = suites()[number]
        assert mine.name == found[3]
        _, _, _, kx, auth, enc, bits = found.groups()
        assert mine.kx in (*_KX.get(kx, ()), kx), mine
        assert mine.auth == {"None": "anon"}.get(auth, auth), mine
        assert mine.bits == int(bits or 0) or (enc == "None" and mine.bits == 0), mine
        assert mine.is_aead == (enc.endswith(("GCM", "CCM", "CCM8")) or "POLY" in enc), mine


@pytest.mark.parametrize(
    ("name", "flaws"),
    [
        ("TLS_RSA_WITH_NULL_SHA", ("null",)),
        ("TLS_DH_anon_EXPORT_WITH_RC4_40_MD5", ("anon", "export", "rc4", "weak")),
        ("TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", ("3des",)),
        ("TLS_RSA_EXPORT1024_WITH_DES_CBC_SHA", ("export", "des", "weak")),
        ("TLS_RSA_WITH_DES_CBC_SHA", ("des", "weak")),
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", ()),
        ("TLS_AES_256_GCM_SHA384", ()),
    ],
)
def test_flaws_of_a_suite(name: str, flaws: tuple[str, ...]) -> None:
    assert _named(name).flaws == flaws


def test_forward_secrecy_and_blocks() -> None:
    assert _named("TLS_DHE_RSA_WITH_AES_128_CBC_SHA").is_forward_secret
    assert _named("TLS_AES_128_GCM_SHA256").is_forward_secret
    assert not _named("TLS_ECDH_RSA_WITH_AES_128_CBC_SHA").is_forward_secret
    assert not _named("TLS_RSA_WITH_AES_128_GCM_SHA256").is_forward_secret
    assert _named("TLS_RSA_WITH_IDEA_CBC_SHA").has_small_blocks
    assert not _named("TLS_RSA_WITH_SEED_CBC_SHA").has_small_blocks
    # What a meet in the middle leaves of its 168. OpenSSL of Debian has none to compare with.
    assert _named("TLS_RSA_WITH_3DES_EDE_CBC_SHA").bits == 112


def test_a_version_is_offered_what_it_may_use() -> None:
    old, new, newest = pool(words.TLS10), pool(words.TLS12), pool(words.TLS13)
    assert len(new) > 330
    assert set(old) < set(new) and not set(newest) & set(new)
    assert not any(suite(number).is_aead for number in old)
    assert {0x1301, 0x1302, 0x1303, 0x1304, 0x1305} <= set(newest)
    for signalling in (words.RENEGOTIATION_SCSV, words.FALLBACK_SCSV, 0):
        assert signalling not in suites()


def test_a_number_that_nobody_entered_has_a_name() -> None:
    assert suite(0xABCD).name == "0xabcd"


def _named(name: str) -> CipherSuite:
    return next(each for each in suites().values() if each.name == name)
