"""Carries out the steps of one change: each at once and in full, so that a failure is its own."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hostlerd.netns.kernel import handles
from hostlerd.netns.kernel.dump import RTPROT_HOSTLER
from hostlerd.netns.kernel.etc import EtcFolders
from hostlerd.netns.kernel.handles import Handles
from hostlerd.netns.kernel.records import Records
from hostlerd.netns.kernel.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_GETLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RouteSocket,
    encode,
)
from hostlerd.netns.kernel.syscalls import CLONE_NEWNET, in_namespace, in_thread, unshare
from hostlerd.netns.model import steps as s
from hostlerd.netns.model.namespace import Address, Route
from hostlerd.runtime.steps import Step

_IFF_UP = 1
_IFA_F_NODAD = 0x02
_RT_TABLE_MAIN = 254
_RTN_UNICAST = 1
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_LO_INDEX = 1
_GONE = {errno.ENODEV, errno.ENXIO, errno.ENOENT}

Carry = Callable[[Any], None]


class Session:
    """Carries out steps, and keeps namespaces and their netlink sockets open between them."""

    def __init__(
        self,
        records: Records,
        etc: EtcFolders,
        handles: Handles,
        others: Mapping[type, Carry],
    ) -> None:
        self._records = records
        self._etc = etc
        self._handles = handles
        self._fds: dict[str, int] = {}
        self._sockets: dict[str, RouteSocket] = {}
        self._indexes: dict[tuple[str, str], int] = {}
        self._carry: dict[type, Carry] = {
            s.SaveSpec: self._save,
            s.ForgetSpec: lambda step: self._records.forget(step.name),
            s.WriteDns: lambda step: self._etc.write(step.name, step.files),
            s.RemoveDns: lambda step: self._etc.remove(step.name),
            s.CreateNetns: self._create_netns,
            s.PublishNetns: self._publish,
            s.WithdrawNetns: self._withdraw,
            s.RemoveNetns: self._remove_netns,
            s.Remake: self._remake,
            s.CreateVeth: self._create_veth,
            s.CreateMacvlan: self._create_macvlan,
            s.RemoveLink: self._remove_link,
            s.JoinBridge: self._join_bridge,
            s.AddAddress: self._add_address,
            s.RemoveAddress: self._remove_address,
            s.SetLinkUp: self._set_up,
            s.SetMtu: self._set_mtu,
            s.AddRoute: self._add_route,
            s.RemoveRoute: self._remove_route,
            s.SetSysctl: self._set_sysctl,
            **others,
        }

    def apply(self, step: Step) -> None:
        """Carry out one step. Raises OSError or DomainError; then nothing of it remains."""
        self._carry[type(step)](step)

    def close(self) -> None:
        """Close all that is open; namespaces without a handle end with it."""
        for name in list(self._fds.keys() | self._sockets.keys()):
            self._drop(name)

    def _drop(self, name: str) -> None:
        sock = self._sockets.pop(name, None)
        if sock:
            sock.close()
        fd = self._fds.pop(name, None)
        if fd is not None:
            os.close(fd)
        self._indexes = {key: index for key, index in self._indexes.items() if key[0] != name}

    def _fd(self, where: str) -> int:
        if where not in self._fds:
            self._fds[where] = handles.open_handle(where)
        return self._fds[where]

    def _socket(self, where: str) -> RouteSocket:
        if where not in self._sockets:
            self._sockets[where] = (
                in_namespace(self._fd(where), RouteSocket) if where else RouteSocket()
            )
        return self._sockets[where]

    def _index(self, where: str, ifname: str) -> int:
        """Look up a link's index. Raises OSError, ENODEV if there is no such link."""
        key = (where, ifname)
        if key not in self._indexes:
            asked = encode(RTM_GETLINK, {}, [("IFLA_IFNAME", ifname)])
            answer = self._socket(where).get(RTM_GETLINK, asked)
            self._indexes[key] = int.from_bytes(answer[4:8], sys.byteorder)
        return self._indexes[key]

    def _save(self, step: s.SaveSpec) -> None:
        old = self._records.one(step.spec.name)
        there = old is not None and handles.exists(step.spec.name)
        self._records.save(step.spec, old.create_time if old and there else None)

    def _create_netns(self, step: s.CreateNetns) -> None:
        def make() -> tuple[int, RouteSocket]:
            unshare(CLONE_NEWNET)
            fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            return fd, RouteSocket()

        self._drop(step.name)
        self._fds[step.name], self._sockets[step.name] = in_thread(make)
        self._change_link(step.name, _LO_INDEX, flags=_IFF_UP, change=_IFF_UP)

    def _publish(self, step: s.PublishNetns) -> None:
        self._handles.attach_many([(name, self._fd(name)) for name in step.names])
        # From here on they are reached by name; hundreds of open descriptors are not kept.
        for name in step.names:
            self._drop(name)

    def _withdraw(self, step: s.WithdrawNetns) -> None:
        for name in step.names:
            # Steps before it are taken back next: they need the namespace, which lives by this.
            self._fd(name)
            self._handles.detach(name)

    def _remove_netns(self, step: s.RemoveNetns) -> None:
        self._drop(step.name)
        if handles.exists(step.name):
            self._handles.detach(step.name)

    def _remake(self, step: s.Remake) -> None:
        for one in step.steps:
            self.apply(one)

    def _create_veth(self, step: s.CreateVeth) -> None:
        peer = [
            ("IFLA_IFNAME", step.ifname),
            ("IFLA_MTU", step.mtu_bytes),
            ("IFLA_NET_NS_FD", self._fd(step.where)),
        ]
        info = [
            ("IFLA_INFO_KIND", "veth"),
            ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", {"attrs": peer})]}),
        ]
        self._new_link(
            [
                ("IFLA_IFNAME", step.host_ifname),
                ("IFLA_MTU", step.mtu_bytes),
                ("IFLA_LINKINFO", {"attrs": info}),
            ]
        )
        self._forget_index(step.where, step.ifname)
        self._forget_index("", step.host_ifname)

    def _create_macvlan(self, step: s.CreateMacvlan) -> None:
        data = {"attrs": [("IFLA_MACVLAN_MODE", step.mode.name.lower())]}
        info = [("IFLA_INFO_KIND", "macvlan"), ("IFLA_INFO_DATA", data)]
        self._new_link(
            [
                ("IFLA_IFNAME", step.ifname),
                ("IFLA_MTU", step.mtu_bytes),
                ("IFLA_LINK", self._index("", step.parent)),
                ("IFLA_NET_NS_FD", self._fd(step.where)),
                ("IFLA_LINKINFO", {"attrs": info}),
            ]
        )
        self._forget_index(step.where, step.ifname)

    def _new_link(self, attrs: list[tuple[str, Any]]) -> None:
        body = encode(RTM_NEWLINK, {}, attrs)
        self._socket("").change(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)

    def _forget_index(self, where: str, ifname: str) -> None:
        self._indexes.pop((where, ifname), None)

    def _change_link(
        self, where: str, index: int, attrs: tuple[tuple[str, Any], ...] = (), **fields: int
    ) -> None:
        body = encode(RTM_NEWLINK, {"index": index, **fields}, attrs)
        self._socket(where).change(RTM_NEWLINK, 0, body)

    def _remove_link(self, step: s.RemoveLink) -> None:
        body = encode(RTM_DELLINK, {}, [("IFLA_IFNAME", step.ifname)])
        self._forget_index(step.where, step.ifname)
        _unless(_GONE, lambda: self._socket(step.where).change(RTM_DELLINK, 0, body))

    def _join_bridge(self, step: s.JoinBridge) -> None:
        master = self._index("", step.bridge) if step.bridge else 0
        self._change_link("", self._index("", step.ifname), (("IFLA_MASTER", master),))

    def _set_up(self, step: s.SetLinkUp) -> None:
        index = self._index(step.where, step.ifname)
        self._change_link(step.where, index, flags=_IFF_UP if step.up else 0, change=_IFF_UP)

    def _set_mtu(self, step: s.SetMtu) -> None:
        index = self._index(step.where, step.ifname)
        self._change_link(step.where, index, (("IFLA_MTU", step.mtu_bytes),))

    def _add_address(self, step: s.AddAddress) -> None:
        body = self._address(step.where, step.ifname, step.address)
        flags = NLM_F_CREATE | NLM_F_EXCL
        _unless(
            {errno.EEXIST},
            lambda: self._socket(step.where).change(RTM_NEWADDR, flags, body),
        )

    def _remove_address(self, step: s.RemoveAddress) -> None:
        def remove() -> None:
            body = self._address(step.where, step.ifname, step.address)
            self._socket(step.where).change(RTM_DELADDR, 0, body)

        _unless({errno.EADDRNOTAVAIL, *_GONE}, remove)

    def _address(self, where: str, ifname: str, address: Address) -> bytes:
        attrs: list[tuple[str, Any]] = [("IFA_LOCAL", str(address.ip))]
        attrs.append(("IFA_ADDRESS", str(address.ip)))
        if address.version == 4 and address.network.prefixlen < 31:
            attrs.append(("IFA_BROADCAST", str(address.network.broadcast_address)))
        if address.version == 6:
            # We have checked that nobody else has it; detection would delay its use by seconds.
            attrs.append(("IFA_FLAGS", _IFA_F_NODAD))
        fields = {
            "family": _family(address.version),
            "prefixlen": address.network.prefixlen,
            "index": self._index(where, ifname),
        }
        return encode(RTM_NEWADDR, fields, attrs)

    def _add_route(self, step: s.AddRoute) -> None:
        body = self._route(step.where, step.route)
        self._socket(step.where).change(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body)

    def _remove_route(self, step: s.RemoveRoute) -> None:
        def remove() -> None:
            body = self._route(step.where, step.route)
            self._socket(step.where).change(RTM_DELROUTE, 0, body)

        # The kernel drops routes with their link or its last address, before we come to it.
        _unless({errno.ESRCH, *_GONE}, remove)

    def _route(self, where: str, route: Route) -> bytes:
        attrs: list[tuple[str, Any]] = [("RTA_OIF", self._index(where, route.ifname))]
        if route.destination.prefixlen:
            attrs.append(("RTA_DST", str(route.destination.network_address)))
        if route.gateway is not None:
            attrs.append(("RTA_GATEWAY", str(route.gateway)))
        if route.metric:
            attrs.append(("RTA_PRIORITY", route.metric))
        fields = {
            "family": _family(route.destination.version),
            "dst_len": route.destination.prefixlen,
            "table": _RT_TABLE_MAIN,
            "proto": RTPROT_HOSTLER,
            "scope": _SCOPE_UNIVERSE if route.gateway is not None else _SCOPE_LINK,
            "type": _RTN_UNICAST,
        }
        return encode(RTM_NEWROUTE, fields, attrs)

    def _set_sysctl(self, step: s.SetSysctl) -> None:
        path = Path("/proc/sys") / step.key
        in_namespace(self._fd(step.where), lambda: path.write_text(step.value))


def _family(version: int) -> int:
    return int(socket.AF_INET if version == 4 else socket.AF_INET6)


def _unless(numbers: set[int], work: Callable[[], None]) -> None:
    """Do it; errors of these numbers mean that it is so already."""
    try:
        work()
    except OSError as e:
        if e.errno not in numbers:
            raise
