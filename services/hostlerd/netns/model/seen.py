"""Namespaces and links as the kernel has them, and what Hostler has on record of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from hostlerd.netns.model.namespace import Address, MacvlanMode, Namespace, Network, Route


@dataclass(frozen=True, slots=True)
class Link:
    """A link. `addresses` leaves out those that the kernel or a router made.

    `parent_index` is the peer of a veth or the parent of a macvlan, in its own namespace; 0 if
    there is none. `master` is the name of the bridge it is in. `mtu_bytes` leaves the L2 header
    out.
    """

    name: str
    kind: str
    index: int = 0
    mtu_bytes: int = 1500
    up: bool = False
    carrier: bool = False
    mac_address: str = ""
    addresses: tuple[Address, ...] = ()
    parent_index: int = 0
    master: str = ""
    mode: MacvlanMode | None = None


@dataclass(frozen=True, slots=True)
class EtcFiles:
    """The files that the processes of a namespace see in /etc instead of the host's."""

    resolv_conf: str
    nsswitch_conf: str
    hosts: str
    hostname: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A namespace as it is.

    `inode` 0 means that there is none; then `stale_handle` tells whether a file of its name is
    left in /run/netns. `record` is what was asked for, None if Hostler did not make it;
    `record_problem` says why a record that is there cannot be read. `detailed` tells whether links,
    routes and sysctls were read; `sysctls` holds those that the record concerns, by their path
    below /proc/sys.
    """

    name: str
    inode: int = 0
    stale_handle: bool = False
    record: Namespace | None = None
    record_problem: str = ""
    create_time: datetime | None = None
    detailed: bool = False
    links: tuple[Link, ...] = ()
    routes: tuple[Route, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    etc: EtcFiles | None = None

    @property
    def managed(self) -> bool:
        """Whether Hostler made it, as far as its records tell."""
        return self.record is not None or bool(self.record_problem)

    def link(self, name: str) -> Link | None:
        """Answer the link of that name inside, or None."""
        return next((link for link in self.links if link.name == name), None)


@dataclass(frozen=True, slots=True)
class Host:
    """The host's own network namespace: its links by name, and where its routes go.

    `routes` are of all tables but the local one, those of links included, default routes left out.
    """

    links: Mapping[str, Link] = field(default_factory=lambda: MappingProxyType({}))
    routes: tuple[tuple[Network, str], ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """What the daemon knows of the host: its links and routes, and the namespaces by name."""

    host: Host = Host()
    namespaces: Mapping[str, Seen] = field(default_factory=lambda: MappingProxyType({}))
