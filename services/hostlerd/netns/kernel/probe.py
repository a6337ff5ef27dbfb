"""Probes: each kind of thing that the domain makes is made once, in a scratch namespace."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from hostlerd.netns.kernel.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RouteSocket,
    encode,
)
from hostlerd.netns.kernel.syscalls import CLONE_NEWNET, in_thread, unshare
from hostlerd.runtime.host import Capability

_AF_INET6 = 10
_LO_INDEX = 1
_NEW = NLM_F_CREATE | NLM_F_EXCL


def probe_network_namespaces() -> Capability:
    """Make a network namespace."""
    return _try("network-namespaces", lambda sock: None)


def probe_veth() -> Capability:
    """Make a veth pair."""
    return _try("veth", lambda sock: _link(sock, "probe0", _veth("probe1")))


def probe_macvlan() -> Capability:
    """Make a macvlan link on a veth."""

    def make(sock: RouteSocket) -> None:
        _link(sock, "probe0", _veth("probe1"))
        _link(sock, "probe2", [("IFLA_INFO_KIND", "macvlan")], [("IFLA_LINK", _LO_INDEX + 1)])

    return _try("macvlan", make)


def probe_bridge() -> Capability:
    """Make a bridge."""
    return _try("bridge", lambda sock: _link(sock, "probe0", [("IFLA_INFO_KIND", "bridge")]))


def probe_ipv6() -> Capability:
    """Add an IPv6 address."""

    def make(sock: RouteSocket) -> None:
        fields = {"family": _AF_INET6, "prefixlen": 128, "index": _LO_INDEX}
        body = encode(RTM_NEWADDR, fields, [("IFA_LOCAL", "fd00::1"), ("IFA_ADDRESS", "fd00::1")])
        sock.change(RTM_NEWADDR, _NEW, body)

    return _try("ipv6", make)


PROBES: Sequence[Callable[[], Capability]] = (
    probe_network_namespaces,
    probe_veth,
    probe_macvlan,
    probe_bridge,
    probe_ipv6,
)


def _try(name: str, make: Callable[[RouteSocket], None]) -> Capability:
    def run() -> None:
        # It ends with the thread, and all that was made in it.
        unshare(CLONE_NEWNET)
        with RouteSocket() as sock:
            make(sock)

    try:
        in_thread(run)
    except OSError as e:
        words = e.args[1] if len(e.args) > 1 else os.strerror(e.errno or 0)
        return Capability(name, False, f"tried in a scratch namespace: {words}")
    return Capability(name, True)


def _veth(peer: str) -> list[tuple[str, Any]]:
    data = {"attrs": [("VETH_INFO_PEER", {"attrs": [("IFLA_IFNAME", peer)]})]}
    return [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]


def _link(
    sock: RouteSocket,
    ifname: str,
    info: list[tuple[str, Any]],
    more: Sequence[tuple[str, Any]] = (),
) -> None:
    attrs = [("IFLA_IFNAME", ifname), *more, ("IFLA_LINKINFO", {"attrs": info})]
    sock.change(RTM_NEWLINK, _NEW, encode(RTM_NEWLINK, {}, attrs))
