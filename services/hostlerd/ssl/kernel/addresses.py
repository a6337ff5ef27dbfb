"""The addresses of this host, and those that a name has.

Source: /proc/net/fib_trie, proc_net_if_inet6(5).
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from hostlerd.ssl.model.reachable import Address

_FIB, _IF_INET6 = Path("/proc/net/fib_trie"), Path("/proc/net/if_inet6")
_LEAF = re.compile(r"\|-- (\d+\.\d+\.\d+\.\d+)$")
_BYTES_MOST = 16 << 20


def own() -> frozenset[Address]:
    """All addresses that this host has."""
    return parse_fib(_read(_FIB)) | parse_if_inet6(_read(_IF_INET6))


def parse_fib(said: str) -> frozenset[Address]:
    """Read the local addresses out of the routing tables: leaves of 32 bits that are LOCAL."""
    found: set[Address] = set()
    leaf = ""
    for line in said.splitlines():
        if match := _LEAF.search(line):
            leaf = match[1]
        elif leaf and "/32 host LOCAL" in line:
            found.add(ipaddress.IPv4Address(leaf))
    return frozenset(found)


def parse_if_inet6(said: str) -> frozenset[Address]:
    """Read the addresses of all links."""
    found: set[Address] = set()
    for line in said.splitlines():
        digits = line.split(" ", 1)[0]
        if len(digits) == 32:
            found.add(ipaddress.IPv6Address(bytes.fromhex(digits)))
    return frozenset(found)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_BYTES_MOST).decode("ascii", "replace")
    except FileNotFoundError:
        # A host without IPv6.
        return ""
