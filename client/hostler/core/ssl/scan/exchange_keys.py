"""Keys that both sides agree on: elliptic curves and prime fields. Source: RFC 8446 7.4, 8422."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from hostler.core.ssl.scan.answers import KeyExchange
from hostler.core.ssl.scan.errors import Malformed, Unsupported
from hostler.core.ssl.scan.words import group_name

X25519, P256, P384, P521, X448 = 29, 23, 24, 25, 30
CURVES = (X25519, P256, P384, P521, X448)
"""The groups in which this prober can agree on keys."""
_MOST_PRIME_BITS = 16384


@dataclass(frozen=True, slots=True)
class OwnKey:
    """A key of ours for one group, and its public half as bytes."""

    group: int
    public: bytes
    private: Any

    def agree(self, theirs: bytes) -> bytes:
        """The shared secret. Raises Malformed if the other half is none of the group."""
        from cryptography.hazmat.primitives.asymmetric import ec, x448, x25519

        try:
            if self.group == X25519:
                return bytes(
                    self.private.exchange(x25519.X25519PublicKey.from_public_bytes(theirs))
                )
            if self.group == X448:
                return bytes(self.private.exchange(x448.X448PublicKey.from_public_bytes(theirs)))
            point = ec.EllipticCurvePublicKey.from_encoded_point(self.private.curve, theirs)
            return bytes(self.private.exchange(ec.ECDH(), point))
        except ValueError as error:
            raise Malformed(f"a public key that is none of {group_name(self.group)}") from error


def make_key(group: int) -> OwnKey:
    """Draw a key. Raises Unsupported for a group that is not among CURVES."""
    from cryptography.hazmat.primitives.asymmetric import ec, x448, x25519

    curves: dict[int, Any] = {P256: ec.SECP256R1, P384: ec.SECP384R1, P521: ec.SECP521R1}
    if group in (X25519, X448):
        kind: Any = x25519.X25519PrivateKey if group == X25519 else x448.X448PrivateKey
        private = kind.generate()
        return OwnKey(group, private.public_key().public_bytes_raw(), private)
    if group not in curves:
        raise Unsupported(f"keys of the group {group_name(group)}")
    key = ec.generate_private_key(curves[group]())
    # By hand, as X9.62 says: `serialization` takes as long to import as thirty connections.
    point, size = key.public_key().public_numbers(), (key.curve.key_size + 7) // 8
    public = b"\4" + point.x.to_bytes(size, "big") + point.y.to_bytes(size, "big")
    return OwnKey(group, public, key)


def agree_in_field(theirs: KeyExchange) -> tuple[bytes, bytes]:
    """Agree in a prime field: our public value, and the shared secret. Source: RFC 5246 8.1.2.

    Raises Malformed for a field in which there is nothing to agree on.
    """
    public = int.from_bytes(theirs.public, "big")
    if theirs.prime < 5 or theirs.bits > _MOST_PRIME_BITS or not 1 < public < theirs.prime:
        raise Malformed(f"a prime field of {theirs.bits} bits that cannot be")
    mine = secrets.randbelow(min(theirs.prime, 1 << 256) - 2) + 1
    size = (theirs.bits + 7) // 8
    ours = pow(theirs.generator, mine, theirs.prime)
    shared = pow(public, mine, theirs.prime)
    return ours.to_bytes(size, "big"), shared.to_bytes(size, "big").lstrip(b"\0")
