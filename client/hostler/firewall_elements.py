"""Elements of address sets as people and blocklists write them."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from hostler.api.firewall.v1 import address_set_pb2
from hostler.config import ConfigError, read_text

MOST_ELEMENTS = 262_144
# What a daemon takes in one message, less what is no element.
MOST_BYTES = (16 << 20) - (64 << 10)
_MOST_PROBLEMS = 50
_LONGEST = 100
_COMMENTS = ("#", ";")


def read_element(word: str) -> str:
    """An address, a network, or a range, in the one way to write it. Raises ValueError with why.

    A network of one address is the address; a range that is a network is a network.
    """
    if "%" in word or len(word) > _LONGEST:
        raise ValueError(f"{word[:_LONGEST]!r} is not an address, a network or a range")
    if "-" in word:
        return _range(*(part.strip() for part in word.split("-", 1)))
    try:
        network = ip_network(word, strict=False)
    except ValueError:
        raise ValueError(f"{word!r} is not an address, a network or a range") from None
    if "/" in word and ip_address(word.partition("/")[0]) != network.network_address:
        raise ValueError(f"{word!r} has host bits set; the network is {network}")
    return _written(network)


def _written(network: IPv4Network | IPv6Network) -> str:
    alone = network.prefixlen == network.max_prefixlen
    return str(network.network_address if alone else network)


def _range(first: str, last: str) -> str:
    try:
        low, high = ip_address(first), ip_address(last)
    except ValueError:
        raise ValueError(f"'{first}-{last}' is not a range of addresses") from None
    if low.version != high.version:
        raise ValueError(f"'{first}-{last}' is from one family to the other")
    if int(low) > int(high):
        raise ValueError(f"'{first}-{last}' is upside down")
    size = int(high) - int(low) + 1
    if size & (size - 1) == 0 and int(low) % size == 0:
        return _written(ip_network((int(low), low.max_prefixlen - size.bit_length() + 1)))
    return f"{low}-{high}"


def read_blocklist(path: Path) -> list[str]:
    """The elements of a file, one a line, each once; `#` and `;` begin comments.

    Raises ConfigError that names every wrong line.
    """
    found: dict[str, None] = {}
    faults = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        word = _without_comment(line)
        if not word:
            continue
        try:
            found[read_element(word)] = None
        except ValueError as error:
            faults.append(f"{path}:{number}: {error}")
    if len(faults) > _MOST_PROBLEMS:
        faults = [*faults[:_MOST_PROBLEMS], f"{path}: … and {len(faults) - _MOST_PROBLEMS} more"]
    if faults:
        raise ConfigError("\n".join(faults))
    check_count(len(found), str(path))
    return list(found)


def _without_comment(line: str) -> str:
    for mark in _COMMENTS:
        line = line.partition(mark)[0]
    return line.strip()


def check_count(count: int, where: str) -> None:
    """Raise ConfigError if it is more than a host takes at once."""
    if count > MOST_ELEMENTS:
        raise ConfigError(f"{where}: {count} elements; at most {MOST_ELEMENTS} go at once")


def check_size(request: Any) -> Any:
    """Answer the request. Raises ConfigError if it is larger than a host takes."""
    size = request.ByteSize()
    if size > MOST_BYTES:
        raise ConfigError(f"this makes a request of {size} bytes; at most {MOST_BYTES} go at once")
    return request


def elements(words: Iterable[str], timeout_s: float | None = None) -> list[address_set_pb2.Element]:
    """Elements that stay so long, or for ever."""
    made = []
    for word in words:
        element = address_set_pb2.Element(address=word)
        if timeout_s is not None:
            element.timeout.FromMicroseconds(round(timeout_s * 1_000_000))
        made.append(element)
    return made
