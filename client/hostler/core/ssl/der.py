"""A reader of DER that is strict, bounded, and knows no types: what cryptography does not show.

Certificates are parsed by cryptography; this tells how they were written: which time type, which
bytes of a serial number, which extensions twice. Source: X.690; RFC 5280, 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass

SEQUENCE, SET, INTEGER, OCTET_STRING, BIT_STRING = 0x30, 0x31, 0x02, 0x04, 0x03
BOOLEAN, OID, NULL, UTC_TIME, GENERALIZED_TIME = 0x01, 0x06, 0x05, 0x17, 0x18
_MOST_CHILDREN = 10_000


class DerError(ValueError):
    """Bytes that are not DER, or not the DER that is expected here."""


@dataclass(frozen=True, slots=True)
class Tlv:
    """One value: its tag, its content, and all of its bytes."""

    tag: int
    content: bytes
    whole: bytes

    def expect(self, tag: int, what: str) -> Tlv:
        """Answer itself if it has this tag. Raises DerError."""
        if self.tag != tag:
            raise DerError(f"{what}: tag {self.tag:#04x} in place of {tag:#04x}")
        return self


def read(data: bytes, at: int = 0) -> tuple[Tlv, int]:
    """Read one value at an offset; answers it and where it ends. Raises DerError."""
    if at + 2 > len(data):
        raise DerError(f"truncated at byte {at}")
    tag, first = data[at], data[at + 1]
    if tag & 0x1F == 0x1F:
        raise DerError(f"tag of several bytes at byte {at}")
    start, length = at + 2, first
    if first & 0x80:
        count = first & 0x7F
        if not 1 <= count <= 4 or start + count > len(data):
            raise DerError(f"length that is indefinite, too large or truncated at byte {at}")
        length = int.from_bytes(data[start : start + count], "big")
        if length < 0x80 or data[start] == 0:
            raise DerError(f"length that is not the shortest at byte {at}")
        start += count
    end = start + length
    if end > len(data):
        raise DerError(f"{length} bytes are announced at byte {at} and {len(data) - start} follow")
    return Tlv(tag, data[start:end], data[at:end]), end


def read_only(data: bytes) -> Tlv:
    """Read the one value that the bytes are. Raises DerError, also if bytes follow."""
    value, end = read(data)
    if end != len(data):
        raise DerError(f"{len(data) - end} bytes follow the value")
    return value


def children(value: Tlv) -> list[Tlv]:
    """Read the values that a constructed value is made of. Raises DerError."""
    found: list[Tlv] = []
    at = 0
    while at < len(value.content):
        child, at = read(value.content, at)
        found.append(child)
        if len(found) > _MOST_CHILDREN:
            raise DerError(f"more than {_MOST_CHILDREN} values in one")
    return found


def dotted(content: bytes) -> str:
    """Write the content of an object identifier as numbers with dots. Raises DerError."""
    numbers: list[int] = []
    number = 0
    if not content or len(content) > 64 or content[-1] & 0x80:
        raise DerError("object identifier that is empty, too long or truncated")
    for byte in content:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))
