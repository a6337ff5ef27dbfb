"""Every cipher suite by its number, and what its name says of it.

The names are the registry's own, so that their parts tell all: key exchange, authentication,
encryption and its bits. Source: IANA, TLS Cipher Suites; RFC 8446, appendix B.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hostler.core.ssl.scan.words import TLS12, TLS13

# What each encryption is worth, in bits of its key. 3DES is counted as SSL Labs does.
_BITS = (
    ("NULL", 0),
    ("RC4_40", 40),
    ("RC2_CBC_40", 40),
    ("DES_CBC_40", 40),
    ("DES40", 40),
    ("RC4_56", 56),
    ("RC2_CBC_56", 56),
    ("3DES", 112),
    ("DES_CBC", 56),
    ("CHACHA20", 256),
    ("28147", 256),
    ("KUZNYECHIK", 256),
    ("MAGMA", 256),
    ("_256", 256),
    ("_128", 128),
    ("SEED", 128),
    ("IDEA", 128),
    ("SM4", 128),
)
_BLOCKS_OF_64 = ("DES", "RC2", "IDEA", "28147", "MAGMA")
_HASHES = ("_SHA256", "_SHA384", "_SHA512", "_MD5", "_SHA", "_SM3", "_IMIT", "_OMAC")
_FORWARD = ("DHE", "ECDHE", "DH_anon", "ECDH_anon", "ECCPWD", "TLS13")
_AEADS = ("GCM", "CCM", "POLY1305", "AEGIS", "MGM")


@dataclass(frozen=True, slots=True)
class CipherSuite:
    """A cipher suite. `kx` is how keys come about, `auth` who vouches, `enc` what encrypts.

    `kx` is TLS13 and `auth` is any for the suites of TLS 1.3, which name neither.
    """

    number: int
    name: str
    kx: str
    auth: str
    enc: str
    bits: int

    @property
    def is_aead(self) -> bool:
        """Whether encryption and integrity are one."""
        return any(word in self.enc for word in _AEADS)

    @property
    def is_forward_secret(self) -> bool:
        """Whether a stolen key of the server opens no recorded traffic."""
        return self.kx in _FORWARD

    @property
    def is_export(self) -> bool:
        """Whether it was weakened for export."""
        return "EXPORT" in self.name

    @property
    def is_null(self) -> bool:
        """Whether nothing is encrypted."""
        return self.bits == 0

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody vouches for the server."""
        return self.auth == "anon"

    @property
    def is_rc4(self) -> bool:
        """Whether the biased stream cipher RC4 is used. Source: RFC 7465."""
        return self.enc.startswith("RC4")

    @property
    def is_3des(self) -> bool:
        """Whether it is triple DES."""
        return self.enc.startswith("3DES")

    @property
    def has_small_blocks(self) -> bool:
        """Whether blocks have 64 bits, which repeat after some 32 GiB. Source: CVE-2016-2183."""
        return any(word in self.enc for word in _BLOCKS_OF_64)

    @property
    def is_cbc(self) -> bool:
        """Whether blocks are chained."""
        return "CBC" in self.enc

    @property
    def flaws(self) -> tuple[str, ...]:
        """What is wrong with it, in words for programs."""
        found = {
            "null": self.is_null,
            "anon": self.is_anonymous,
            "export": self.is_export,
            "rc4": self.is_rc4,
            "3des": self.is_3des,
            "des": self.enc.startswith("DES"),
            "weak": 0 < self.bits < 112,
        }
        return tuple(word for word, holds in found.items() if holds)

    @property
    def least_version(self) -> int:
        """The first version that may use it."""
        if self.kx == "TLS13":
            return TLS13
        later = self.is_aead or self.name.endswith(("_SHA256", "_SHA384")) or "CCM" in self.enc
        return TLS12 if later else 0


def of_name(number: int, name: str) -> CipherSuite:
    """Read what the name of a suite says."""
    exchange, with_, cipher = name.removeprefix("TLS_").removeprefix("SSL_").partition("_WITH_")
    if not with_:
        is_13 = number >> 8 in (0x13, 0x00) or "SM4" in name
        kx, auth, cipher = ("TLS13" if is_13 else "ECDHE"), "any", exchange
        if name in ("TLS_SHA256_SHA256", "TLS_SHA384_SHA384"):
            return CipherSuite(number, name, "TLS13", "any", "NULL", 0)
    else:
        kx, auth = ("TLS13", "any") if "_MGM_" in cipher else _exchange(exchange)
    enc = cipher
    for ending in _HASHES:
        if enc.endswith(ending):
            enc = enc.removesuffix(ending)
            break
    return CipherSuite(number, name, kx, auth, enc, _bits(cipher))


def _exchange(text: str) -> tuple[str, str]:
    """Key exchange and authentication, such as ECDHE and RSA. One word is both."""
    words = [word for word in text.split("_") if not word.startswith("EXPORT")]
    if "anon" in words:
        return f"{words[0]}_anon", "anon"
    if words == ["RSA", "FIPS"]:
        return "RSA", "RSA"
    if words == ["RSA", "PSK"]:
        return "RSA_PSK", "RSA"
    if words == ["PSK", "DHE"]:
        return "DHE", "PSK"
    if words[0] == "SRP":
        return "SRP", words[2] if len(words) > 2 else "SRP"
    if words[0].startswith("GOSTR"):
        return "GOST", "GOST"
    if len(words) == 1:
        return words[0], words[0]
    return words[0], words[1]


def _bits(cipher: str) -> int:
    if "SM4" in cipher:
        return 128
    for word, bits in _BITS:
        if word in f"_{cipher}" or cipher.startswith(word.lstrip("_")):
            return bits
    return 128


@cache
def suites() -> Mapping[int, CipherSuite]:
    """All suites that have a number of two bytes."""
    text = Path(__file__).with_name("cipher_suites.txt").read_text()
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {int(row[0], 16): of_name(int(row[0], 16), row[1]) for row in rows}


def suite(number: int) -> CipherSuite:
    """One suite; a number that nobody has entered gets a name from it."""
    found = suites().get(number)
    return found or CipherSuite(number, f"0x{number:04x}", "?", "?", "?", 0)


@cache
def pool(version: int) -> tuple[int, ...]:
    """All suites that a version may use, the usual ones first."""
    if version == TLS13:
        found = [n for n, suite in suites().items() if suite.kx == "TLS13"]
    else:
        found = [n for n, suite in suites().items() if suite.least_version <= version]
    return tuple(sorted(found, key=_offered_order))


def _offered_order(number: int) -> tuple[bool, bool, int]:
    # Servers that would rather have what spares a phone its battery look at the first suite alone:
    # with ChaCha20 in front their order would seem to be another. Source: SSL_CTX_set_options(3).
    found = suites()[number]
    return not _is_usual(found), "CHACHA20" in found.enc, number


def _is_usual(suite: CipherSuite) -> bool:
    """Whether a library of today has it, or had it within memory."""
    if suite.kx == "TLS13":
        return True
    if suite.kx not in ("RSA", "DHE", "ECDHE"):
        return False
    return suite.auth in ("RSA", "ECDSA") and not any(
        word in suite.enc for word in ("ARIA", "CAMELLIA", "SEED", "IDEA", "NULL", "RC2")
    )


# Source: draft-hickman-netscape-ssl-00, section C.4.
SSL2_SUITES: Mapping[int, CipherSuite] = {
    number: CipherSuite(number, name, "RSA", "RSA", enc, bits)
    for number, name, enc, bits in (
        (0x010080, "SSL_CK_RC4_128_WITH_MD5", "RC4_128", 128),
        (0x020080, "SSL_CK_RC4_128_EXPORT40_WITH_MD5", "RC4_40", 40),
        (0x030080, "SSL_CK_RC2_128_CBC_WITH_MD5", "RC2_CBC_128", 128),
        (0x040080, "SSL_CK_RC2_128_CBC_EXPORT40_WITH_MD5", "RC2_CBC_40", 40),
        (0x050080, "SSL_CK_IDEA_128_CBC_WITH_MD5", "IDEA_CBC", 128),
        (0x060040, "SSL_CK_DES_64_CBC_WITH_MD5", "DES_CBC", 56),
        (0x0700C0, "SSL_CK_DES_192_EDE3_CBC_WITH_MD5", "3DES_EDE_CBC", 112),
    )
}
