"""The links of the network namespace."""

from __future__ import annotations

import json
import socket
from ipaddress import ip_interface
from pathlib import Path

from hostlerd.firewall.errors import ToolFailed
from hostlerd.firewall.kernel.tool import run
from hostlerd.firewall.model.ruleset import Network

_ROUTES = Path("/proc/thread-self/net/ipv6_route")
# From include/uapi/linux/ipv6_route.h: learned by address configuration.
_RTF_ADDRCONF = 0x00040000
_ROUTES_MOST_BYTES = 64 << 20

_CALLS = {4: "bridge-nf-call-iptables", 6: "bridge-nf-call-ip6tables"}


def names() -> frozenset[str]:
    """Answer the names of all links. Source: rtnetlink(7), by if_nameindex(3)."""
    return frozenset(name for _, name in socket.if_nameindex())


def with_advertised_routes() -> frozenset[str]:
    """Answer the links that carry routes learned from router advertisements.

    Source: /proc/net/ipv6_route, of which the ninth column is the flags and the tenth the link.
    """
    try:
        with _ROUTES.open() as file:
            lines = file.read(_ROUTES_MOST_BYTES).splitlines()
    except FileNotFoundError:
        return frozenset()
    columns = (line.split() for line in lines)
    return frozenset(c[9] for c in columns if len(c) == 10 and int(c[8], 16) & _RTF_ADDRCONF)


def filtered_bridge_networks() -> tuple[Network, ...]:
    """Answer the networks on bridges whose frames pass through nft as if they were routed.

    Source: Documentation/networking/ip-sysctl.rst, bridge-nf-call-iptables. Raises ToolFailed.
    """
    versions = {v for v, name in _CALLS.items() if _is_on(Path("/proc/sys/net/bridge", name))}
    if not versions:
        return ()
    answer = run(["/usr/sbin/ip", "-j", "addr", "show", "type", "bridge"])
    if answer.status != 0:
        raise ToolFailed("ip cannot list bridges", tool="ip", stderr=answer.errors[:2000])
    told = (a for link in json.loads(answer.output) for a in link.get("addr_info", ()))
    found = (ip_interface(f"{a['local']}/{a['prefixlen']}").network for a in told)
    return tuple(n for n in found if n.version in versions)


def _is_on(path: Path) -> bool:
    try:
        return path.read_text().strip() == "1"
    except FileNotFoundError:
        return False
