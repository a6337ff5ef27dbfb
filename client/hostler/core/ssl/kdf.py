"""How much work a passphrase costs: a file may ask for hours of it.

Source: RFC 8018 (PBES1, PBKDF2), RFC 7292 (PKCS #12), RFC 7914 (scrypt).
"""

from __future__ import annotations

from collections.abc import Iterator

from hostler.core.ssl import der
from hostler.core.ssl.der import DerError, Tlv

MAX_ITERATIONS = 5_000_000
_MAX_VALUES = 20_000
_MAX_DEPTH = 24
_DERIVATIONS = ("1.2.840.113549.1.5.", "1.2.840.113549.1.12.1.", "1.3.6.1.4.1.11591.4.11")


def check_work(data: bytes) -> None:
    """Raise DerError if deriving the key of an encrypted value would take too long.

    What is nested inside of something encrypted cannot be seen, and needs its passphrase first.
    """
    try:
        outer = der.read_only(data)
    except DerError:
        return
    for count, value in enumerate(_walk(outer, 0)):
        if count > _MAX_VALUES:
            raise DerError(f"more than {_MAX_VALUES} values")
        parts = _parts(value)
        if parts and parts[0].tag == der.OID and _derives(parts[0]):
            _check_numbers(parts[1:])
    mac = _parts(outer)[2:3]
    if mac:
        _check_numbers(_parts(mac[0])[2:])


def _derives(oid: Tlv) -> bool:
    try:
        return der.dotted(oid.content).startswith(_DERIVATIONS)
    except DerError:
        return False


def _check_numbers(values: list[Tlv]) -> None:
    for value in values:
        for inner in _walk(value, 0):
            if inner.tag == der.INTEGER and int.from_bytes(inner.content, "big") > MAX_ITERATIONS:
                raise DerError(f"asks for more than {MAX_ITERATIONS} rounds of key derivation")


def _walk(value: Tlv, depth: int) -> Iterator[Tlv]:
    yield value
    if depth < _MAX_DEPTH:
        for part in _parts(value):
            yield from _walk(part, depth + 1)


def _parts(value: Tlv) -> list[Tlv]:
    """The parts of a constructed value, and those of DER inside of an octet string."""
    constructed = bool(value.tag & 0x20)
    if not constructed and value.tag != der.OCTET_STRING:
        return []
    try:
        return der.children(value)
    except DerError:
        return []
