"""Probes: each kind of thing that the domain makes is made once, in a scratch namespace."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from ipaddress import IPv6Interface

from hostlerd.netns.kernel import messages
from hostlerd.netns.kernel.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RouteSocket,
)
from hostlerd.netns.kernel.syscalls import CLONE_NEWNET, in_thread, unshare
from hostlerd.netns.model.namespace import MacvlanMode
from hostlerd.runtime.host import Capability

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
        _link(sock, "probe2", messages.macvlan(_LO_INDEX + 1, MacvlanMode.BRIDGE))

    return _try("macvlan", make)


def probe_bridge() -> Capability:
    """Make a bridge."""
    return _try("bridge", lambda sock: _link(sock, "probe0", messages.link_info("bridge")))


def probe_ipv6() -> Capability:
    """Add an IPv6 address."""

    def make(sock: RouteSocket) -> None:
        body = messages.address(IPv6Interface("fd00::1/128"), _LO_INDEX)
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


def _veth(peer: str) -> bytes:
    return messages.veth(messages.named_link(peer))


def _link(sock: RouteSocket, ifname: str, kind: bytes) -> None:
    sock.change(RTM_NEWLINK, _NEW, messages.named_link(ifname, kind))
