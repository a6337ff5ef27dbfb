"""Whether a caller is on another host: who is on this one proves nothing about reaching it."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path

from hostlerd.runtime.call import Call

_NET = Path("/proc/thread-self/net")
_LOCAL_IPV4 = re.compile(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL")


def is_outside(call: Call) -> bool:
    """Tell whether a call came by TCP from an address that is none of this host's.

    Raises OSError if the host's addresses cannot be read.
    """
    if not call.outside:
        return False
    address = call.caller.peer.rpartition(":")[0].strip("[]").partition("%")[0]
    return str(ip_address(address)) not in own_addresses()


def own_addresses() -> frozenset[str]:
    """Read the addresses of this network namespace. Sources: fib_trie and if_inet6 of proc(5)."""
    found = set(_LOCAL_IPV4.findall((_NET / "fib_trie").read_text()))
    for line in (_NET / "if_inet6").read_text().splitlines():
        found.add(str(ip_address(bytes.fromhex(line.split()[0]))))
    return frozenset(found)
