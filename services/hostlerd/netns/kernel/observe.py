"""Reads the host's links and routes, and what is inside each namespace."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from hostlerd.netns.kernel import dump, handles
from hostlerd.netns.kernel.etc import EtcFolders
from hostlerd.netns.kernel.records import Record, Records
from hostlerd.netns.kernel.rtnetlink import RouteSocket
from hostlerd.netns.kernel.syscalls import in_thread, setns
from hostlerd.netns.model.namespace import Namespace, Route
from hostlerd.netns.model.seen import Host, Link, Seen, State

_SYSCTLS = Path("/proc/sys")
_NO_RECORD = Record(None, None)
_LOST = Record(None, None, "its record is gone")


@dataclass(frozen=True, slots=True)
class _Inside:
    """What one namespace has inside."""

    links: tuple[Link, ...] = ()
    routes: tuple[Route, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def observe(records: Records, etc: EtcFolders, names: Collection[str] | None) -> State:
    """Read the state. Links, routes and sysctls inside are read of `names` alone, None means all.

    Others are there with name, inode and record. Reading all of one namespace takes about 1 ms.
    """
    inodes = handles.inodes()
    held = etc.names()
    known = records.all()
    # Only Hostler makes such a folder: what has one is ours, even if its record has been lost. A
    # change that goes on meanwhile makes the record first and removes it last.
    lost = (held & etc.names()) - known.keys()
    known = {**known, **dict.fromkeys(lost, _LOST)}
    every = sorted(inodes.keys() | known.keys())
    looked_at = [n for n in every if inodes.get(n) and (names is None or n in names)]
    inside = _look_inside(looked_at, known)
    namespaces = {}
    for name in every:
        record = known.get(name, _NO_RECORD)
        what = inside.get(name)
        # A handle may go between listing and looking: then there is no such namespace any more.
        there = inodes.get(name, 0) if what or name not in looked_at else 0
        what = what or _Inside()
        namespaces[name] = Seen(
            name=name,
            inode=there,
            stale_handle=name in inodes and not inodes[name],
            record=record.namespace,
            record_problem=record.problem,
            create_time=record.create_time,
            detailed=name in inside,
            links=what.links,
            routes=what.routes,
            sysctls=what.sysctls,
            etc=etc.read(name) if names is None or name in names else None,
        )
    return State(_host(), MappingProxyType(namespaces))


def _host() -> Host:
    with RouteSocket() as sock:
        links = dump.read_links(sock, settled=False)
        routes = dump.read_networks(sock, {link.index: link.name for link in links})
    return Host(MappingProxyType({link.name: link for link in links}), routes)


def _look_inside(names: Sequence[str], known: Mapping[str, Record]) -> dict[str, _Inside]:
    """Enter namespaces one after the other, in one throw-away thread."""
    if not names:
        return {}

    def look() -> dict[str, _Inside]:
        found = {}
        for name in names:
            try:
                found[name] = _enter(name, known.get(name, _NO_RECORD))
            except OSError as e:
                # EINVAL: its mount has gone, the file is about to.
                if e.errno not in (errno.ENOENT, errno.EINVAL):
                    raise
        return found

    return in_thread(look)


def _enter(name: str, record: Record) -> _Inside:
    fd = handles.open_handle(name)
    try:
        setns(fd)
    finally:
        os.close(fd)
    with RouteSocket() as sock:
        links = dump.read_links(sock)
        indexes = {link.index: link.name for link in links}
        managed = record.namespace is not None or bool(record.problem)
        routes = dump.read_routes(sock, indexes, ours=managed)
    return _Inside(links, routes, _read_sysctls(record.namespace, links))


def _read_sysctls(record: Namespace | None, links: Sequence[Link]) -> Mapping[str, str]:
    """Read what a record may concern; a sysctl that this kernel has not is left out."""
    if record is None:
        return MappingProxyType({})
    keys = ["net/ipv4/ip_unprivileged_port_start"]
    concerned = {i.name for i in record.interfaces if any(a.version == 6 for a in i.addresses)}
    keys += [f"net/ipv6/conf/{x.name}/accept_ra" for x in links if x.name in concerned]
    values = {}
    for key in keys:
        with suppress(FileNotFoundError):
            values[key] = (_SYSCTLS / key).read_text().strip()
    return MappingProxyType(values)
