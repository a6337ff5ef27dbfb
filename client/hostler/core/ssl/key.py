"""Keys: type, size, hash of the public half. Of a private key nothing else ever leaves here."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificatePublicKeyTypes,
        PrivateKeyTypes,
    )

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 16384
_NIST_CURVES = ("secp256r1", "secp384r1", "secp521r1")
# The primes of the fingerprint that keys of a faulty chip library have: modulo each of them their
# modulus is a power of 65537. Source: Nemec et al., "The Return of Coppersmith's Attack", 2017.
_ROCA_PRIMES = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
_FERMAT_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """A key: `kind` is rsa, ec, ed25519, ed448, dsa or unknown, `curve` the name of an EC curve.

    `encrypted` and `private` are of the file it came from; a certificate's key is neither.
    """

    kind: str
    size_bits: int
    curve: str
    spki_sha256: str
    weaknesses: tuple[str, ...] = ()
    private: bool = False
    encrypted: bool = False

    def __str__(self) -> str:
        name = self.curve or (f"{self.kind}-{self.size_bits}" if self.size_bits else self.kind)
        return f"{name} {self.spki_sha256[:16]}"


def public_key_facts(key: CertificatePublicKeyTypes | None, spki_sha256: str) -> KeyFacts:
    """Describe a public key; None for one that could not be read."""
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

    if isinstance(key, rsa.RSAPublicKey):
        return KeyFacts("rsa", key.key_size, "", spki_sha256, _rsa_weaknesses(key))
    if isinstance(key, ec.EllipticCurvePublicKey):
        weak = () if key.curve.key_size >= 256 else (f"curve {key.curve.name}: under 256 bits",)
        return KeyFacts("ec", key.curve.key_size, key.curve.name, spki_sha256, weak)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return KeyFacts("ed25519", 256, "", spki_sha256)
    if isinstance(key, ed448.Ed448PublicKey):
        return KeyFacts("ed448", 456, "", spki_sha256)
    if isinstance(key, dsa.DSAPublicKey):
        weak = ("DSA: no client takes it any more",)
        return KeyFacts("dsa", key.key_size, "", spki_sha256, weak)
    return KeyFacts("unknown", 0, "", spki_sha256)


def private_key_facts(key: PrivateKeyTypes, *, encrypted: bool) -> KeyFacts:
    """Describe a private key by its public half."""
    from dataclasses import replace

    from cryptography.hazmat.primitives import serialization

    public = key.public_key()
    spki = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    found = public_key_facts(public, hashlib.sha256(spki).hexdigest())  # type: ignore[arg-type]
    return replace(found, private=True, encrypted=encrypted)


def allowed_on_the_web(facts: KeyFacts) -> str:
    """Why the CA/B rules do not allow a key; empty if they do. Source: CA/B BR 6.1.5."""
    if facts.kind == "rsa" and facts.size_bits % 8:
        return f"RSA modulus of {facts.size_bits} bits: no multiple of 8"
    if facts.kind == "ec" and facts.curve not in _NIST_CURVES:
        return f"curve {facts.curve}: not P-256, P-384 or P-521"
    if facts.kind not in ("rsa", "ec"):
        return f"a key of the kind {facts.kind}: not RSA and not EC"
    return ""


def _rsa_weaknesses(key: object) -> tuple[str, ...]:
    from cryptography.hazmat.primitives.asymmetric import rsa

    assert isinstance(key, rsa.RSAPublicKey)  # noqa: S101 # the caller has asked
    numbers, bits = key.public_numbers(), key.key_size
    found: list[str] = []
    if bits < MIN_RSA_BITS:
        found.append(f"RSA modulus of {bits} bits: under {MIN_RSA_BITS}")
    if bits > MAX_RSA_BITS:
        return (*found, f"RSA modulus of {bits} bits: over {MAX_RSA_BITS}")
    if numbers.e < 3 or numbers.e % 2 == 0:
        found.append(f"RSA exponent {numbers.e}")
    if math.gcd(numbers.n, _small_primes()) != 1:
        found.append("RSA modulus with a factor under 752")
    if _is_roca(numbers.n):
        found.append("RSA modulus of the faulty generator of CVE-2017-15361 (ROCA)")
    if _has_close_primes(numbers.n):
        found.append("RSA modulus of two primes close together (CVE-2022-26320)")
    return tuple(found)


@cache
def _small_primes() -> int:
    """The product of the primes under 752. Source: CA/B BR 6.1.6, NIST SP 800-89, 5.3.3."""
    return math.prod(n for n in range(2, 752) if all(n % d for d in range(2, math.isqrt(n) + 1)))


@cache
def _roca_residues() -> tuple[tuple[int, frozenset[int]], ...]:
    return tuple(
        (prime, frozenset(pow(65537, power, prime) for power in range(prime)))
        for prime in _ROCA_PRIMES
    )


def _is_roca(modulus: int) -> bool:
    return all(modulus % prime in powers for prime, powers in _roca_residues())


def _has_close_primes(modulus: int) -> bool:
    """Whether Fermat's method finds the factors in a few rounds."""
    middle = math.isqrt(modulus)
    if middle * middle < modulus:
        middle += 1
    for _ in range(_FERMAT_ROUNDS):
        rest = middle * middle - modulus
        root = math.isqrt(rest)
        if root * root == rest:
            return True
        middle += 1
    return False
