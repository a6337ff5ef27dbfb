"""Carries out the steps of one change: each at once and in full, so that a failure is its own."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hostlerd.netns.kernel import handles, messages
from hostlerd.netns.kernel.etc import EtcFolders
from hostlerd.netns.kernel.handles import Handles
from hostlerd.netns.kernel.link_group import remove_together
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
)
from hostlerd.netns.kernel.worker import Worker
from hostlerd.netns.model import link_steps
from hostlerd.netns.model import steps as s
from hostlerd.netns.model.namespace import Address, Route
from hostlerd.runtime.steps import Step

_LO_INDEX = 1
GONE = {errno.ENODEV, errno.ENXIO, errno.ENOENT}

Carry = Callable[[Any], None]

KINDS: tuple[type, ...] = (
    s.SaveSpec,
    s.ForgetSpec,
    s.WriteDns,
    s.RemoveDns,
    s.CreateNetns,
    s.PublishNetns,
    s.WithdrawNetns,
    s.RemoveNetns,
    s.Remake,
    link_steps.CreateVeth,
    link_steps.CreateMacvlan,
    link_steps.RemoveLink,
    link_steps.RemoveHostLinks,
    link_steps.JoinBridge,
    link_steps.AddAddress,
    link_steps.RemoveAddress,
    link_steps.SetLinkUp,
    link_steps.SetMtu,
    link_steps.AddRoute,
    link_steps.RemoveRoute,
    link_steps.SetSysctl,
)
"""The steps that a session carries out itself."""


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
        self._worker = Worker()
        self._fds: dict[str, int] = {}
        self._sockets: dict[str, RouteSocket] = {}
        self._indexes: dict[str, dict[str, int]] = {}
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
            link_steps.CreateVeth: self._create_veth,
            link_steps.CreateMacvlan: self._create_macvlan,
            link_steps.RemoveLink: self._remove_link,
            link_steps.RemoveHostLinks: self._remove_host_links,
            link_steps.JoinBridge: self._join_bridge,
            link_steps.AddAddress: self._add_address,
            link_steps.RemoveAddress: self._remove_address,
            link_steps.SetLinkUp: self._set_up,
            link_steps.SetMtu: self._set_mtu,
            link_steps.AddRoute: self._add_route,
            link_steps.RemoveRoute: self._remove_route,
            link_steps.SetSysctl: self._set_sysctl,
            **others,
        }

    def apply(self, step: Step) -> None:
        """Carry out one step. Raises OSError or DomainError; then nothing of it remains."""
        self._carry[type(step)](step)

    def close(self) -> None:
        """Close all that is open; namespaces without a handle end with it."""
        for name in list(self._fds.keys() | self._sockets.keys()):
            self._drop(name)
        self._worker.close()

    def _drop(self, name: str) -> None:
        sock = self._sockets.pop(name, None)
        if sock:
            sock.close()
        fd = self._fds.pop(name, None)
        if fd is not None:
            os.close(fd)
        self._indexes.pop(name, None)

    def _fd(self, where: str) -> int:
        if where not in self._fds:
            self._fds[where] = handles.open_handle(where)
        return self._fds[where]

    def _socket(self, where: str) -> RouteSocket:
        if where not in self._sockets:
            self._sockets[where] = (
                self._worker.inside(self._fd(where), RouteSocket) if where else RouteSocket()
            )
        return self._sockets[where]

    def _index(self, where: str, ifname: str) -> int:
        """Look up a link's index. Raises OSError, ENODEV if there is no such link."""
        known = self._indexes.setdefault(where, {})
        if ifname not in known:
            answer = self._socket(where).get(RTM_GETLINK, messages.named_link(ifname))
            known[ifname] = int.from_bytes(answer[4:8], sys.byteorder)
        return known[ifname]

    def _save(self, step: s.SaveSpec) -> None:
        old = self._records.one(step.spec.name)
        there = old is not None and handles.exists(step.spec.name)
        self._records.save(step.spec, old.create_time if old and there else None)

    def _create_netns(self, step: s.CreateNetns) -> None:
        def make() -> tuple[int, RouteSocket]:
            fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            return fd, RouteSocket()

        self._drop(step.name)
        self._fds[step.name], self._sockets[step.name] = self._worker.inside_new(make)
        self._change_link(step.name, messages.link_up(_LO_INDEX))

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

    def _create_veth(self, step: link_steps.CreateVeth) -> None:
        mtu = messages.mtu(step.mtu_bytes)
        there = messages.namespace_fd(self._fd(step.where))
        peer = messages.named_link(step.ifname, mtu, there)
        self._new_link(messages.named_link(step.host_ifname, mtu, messages.veth(peer)))
        self._forget_index(step.where, step.ifname)
        self._forget_index("", step.host_ifname)

    def _create_macvlan(self, step: link_steps.CreateMacvlan) -> None:
        kind = messages.macvlan(self._index("", step.parent), step.mode)
        there = messages.namespace_fd(self._fd(step.where))
        mtu = messages.mtu(step.mtu_bytes)
        self._new_link(messages.named_link(step.ifname, mtu, there, kind))
        self._forget_index(step.where, step.ifname)

    def _new_link(self, body: bytes) -> None:
        self._socket("").change(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)

    def _forget_index(self, where: str, ifname: str) -> None:
        self._indexes.get(where, {}).pop(ifname, None)

    def _change_link(self, where: str, body: bytes) -> None:
        self._socket(where).change(RTM_NEWLINK, 0, body)

    def _remove_link(self, step: link_steps.RemoveLink) -> None:
        body = messages.named_link(step.ifname)
        self._forget_index(step.where, step.ifname)
        unless(GONE, lambda: self._socket(step.where).change(RTM_DELLINK, 0, body))

    def _remove_host_links(self, step: link_steps.RemoveHostLinks) -> None:
        for ifname in step.ifnames:
            self._forget_index("", ifname)
        remove_together(self._socket(""), step.ifnames)

    def _join_bridge(self, step: link_steps.JoinBridge) -> None:
        master = self._index("", step.bridge) if step.bridge else 0
        joined = messages.number_attribute(messages.IFLA_MASTER, master)
        self._change_link("", messages.link_change(self._index("", step.ifname), joined))

    def _set_up(self, step: link_steps.SetLinkUp) -> None:
        index = self._index(step.where, step.ifname)
        self._change_link(step.where, messages.link_up(index, step.up))

    def _set_mtu(self, step: link_steps.SetMtu) -> None:
        index = self._index(step.where, step.ifname)
        self._change_link(step.where, messages.link_change(index, messages.mtu(step.mtu_bytes)))

    def _add_address(self, step: link_steps.AddAddress) -> None:
        body = self._address(step.where, step.ifname, step.address)
        flags = NLM_F_CREATE | NLM_F_EXCL
        unless(
            {errno.EEXIST},
            lambda: self._socket(step.where).change(RTM_NEWADDR, flags, body),
        )

    def _remove_address(self, step: link_steps.RemoveAddress) -> None:
        def remove() -> None:
            body = self._address(step.where, step.ifname, step.address)
            self._socket(step.where).change(RTM_DELADDR, 0, body)

        unless({errno.EADDRNOTAVAIL, *GONE}, remove)

    def _address(self, where: str, ifname: str, address: Address) -> bytes:
        return messages.address(address, self._index(where, ifname))

    def _add_route(self, step: link_steps.AddRoute) -> None:
        body = self._route(step.where, step.route)
        self._socket(step.where).change(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body)

    def _remove_route(self, step: link_steps.RemoveRoute) -> None:
        def remove() -> None:
            body = self._route(step.where, step.route)
            self._socket(step.where).change(RTM_DELROUTE, 0, body)

        # The kernel drops routes with their link or its last address, before we come to it.
        unless({errno.ESRCH, *GONE}, remove)

    def _route(self, where: str, route: Route) -> bytes:
        return messages.route(route, self._index(where, route.ifname))

    def _set_sysctl(self, step: link_steps.SetSysctl) -> None:
        path = Path("/proc/sys") / step.key
        self._worker.inside(self._fd(step.where), lambda: path.write_text(step.value))


def unless(numbers: set[int], work: Callable[[], None]) -> None:
    """Do it; errors of these numbers mean that it is so already."""
    try:
        work()
    except OSError as e:
        if e.errno not in numbers:
            raise
