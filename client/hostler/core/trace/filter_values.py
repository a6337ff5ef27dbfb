"""The values in a filter, by a field's kind: `1ms`, `0x1f`, `10.0.0.0/8` and so on. Pure.

What is read is in the units that the field's values have: nanoseconds for durations and times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from ipaddress import ip_network

from hostler.core.trace.field import Kind

_UNITS_NS = {
    "": 1, "ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9,
    "h": 3600 * 10**9,
}  # fmt: skip
_MOST = 1 << 64


@dataclass(frozen=True, slots=True)
class Network:
    """Addresses that begin alike; one address is a network too.

    `base` and `mask` are numbers as long as the addresses, which are of `size_bytes`.
    """

    size_bytes: int
    base: int
    mask: int

    def __contains__(self, packed: object) -> bool:
        if not isinstance(packed, bytes) or len(packed) != self.size_bytes:
            return False
        return int.from_bytes(packed, "big") & self.mask == self.base


Operand = bytes | int | Network


def read_value(kind: Kind, text: bytes) -> Operand:
    """Read what a filter compares a field of this kind with. Raises ValueError."""
    if kind in (Kind.TEXT, Kind.BYTES):
        return text
    try:
        word = text.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{kind} values are written in plain letters") from None
    return _READERS[kind](word)


def _integer(word: str) -> int:
    if not re.fullmatch(r"-?(0|[1-9][0-9]{0,19})|0[xX][0-9A-Fa-f]{1,16}", word):
        raise ValueError(f"{word[:60]!r} is no integer")
    value = int(word, 16) if word[:2].lower() == "0x" else int(word)
    if not -_MOST < value < _MOST:
        raise ValueError(f"{word} has more than 64 bits")
    return value


def _bool(word: str) -> int:
    if word not in ("true", "false"):
        raise ValueError(f"{word[:60]!r} is neither true nor false")
    return int(word == "true")


def _port(word: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", word) or int(word) > 0xFFFF:
        raise ValueError(f"{word[:60]!r} is no port: they are numbers from 0 to 65535")
    return int(word)


def _duration(word: str) -> int:
    found = re.fullmatch(r"([0-9]{1,20}(?:\.[0-9]{1,9})?)([a-zµ]*)", word)
    if found is None:
        raise ValueError(f"{word[:60]!r} is no duration; they are written as 10us, 1.5ms, 2s")
    if found[2] not in _UNITS_NS:
        units = ", ".join(filter(None, _UNITS_NS))
        raise ValueError(f"{found[2][:20]!r} is no unit of time; units are {units}")
    value = Fraction(found[1]) * _UNITS_NS[found[2]]
    if value.denominator != 1:
        raise ValueError(f"{word} is not a whole number of nanoseconds")
    if value >= _MOST:
        raise ValueError(f"{word} is too long")
    return int(value)


def _time(word: str) -> int:
    if re.fullmatch(r"[0-9]{1,20}", word):
        return _integer(word)
    found = re.fullmatch(
        r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?", word, re.ASCII
    )
    try:
        moment = datetime.fromisoformat(f"{found[1]}{found[3] or 'Z'}") if found else None
    except ValueError:
        moment = None
    if found is None or moment is None:
        raise ValueError(
            f"{word[:60]!r} is no time; times are nanoseconds since 1970 or 2026-11-27T13:37:00"
        )
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // _SECOND
    return seconds * 10**9 + int((found[2] or "0").ljust(9, "0"))


_SECOND = datetime(1970, 1, 1, 0, 0, 1) - datetime(1970, 1, 1)


def _milliseconds(word: str) -> int:
    return _duration(word) if re.search("[a-zµ]", word) else _duration(f"{word}ms")


def _address(word: str) -> Network:
    try:
        network = ip_network(word, strict=False)
    except ValueError:
        raise ValueError(f"{word[:60]!r} is no IP address and no network") from None
    size = network.max_prefixlen // 8
    return Network(size, int(network.network_address), int(network.netmask))


_READERS: Mapping[Kind, Callable[[str], Operand]] = {
    Kind.INTEGER: _integer,
    Kind.BOOL: _bool,
    Kind.DURATION: _duration,
    Kind.TIME: _time,
    Kind.PORT: _port,
    Kind.ADDRESS: _address,
    Kind.NEARNESS: _milliseconds,
}
