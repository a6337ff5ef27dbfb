"""The fleet: which hosts there are, where, with which labels and groups; and how some are selected.

Its file is changed by `hostler.fleet_file`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from hostler.config import ConfigError, HostlerError, read_toml

PORTS: Mapping[str, int] = {
    "netns": 7441,
    "storage": 7442,
    "firewall": 7443,
    "tracing": 7444,
    "ssl": 7445,
}
SOCKETS = Path("/run/hostler")
LOCAL = "local"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_KEYS = frozenset({"address", "labels", "ports", "domains"})


class SelectionError(HostlerError):
    """No host is selected, or a selector matches none."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Host:
    """A host of the fleet.

    `name` is also the name that its certificate must carry. `address` is an IP address, a DNS
    name, or "unix:" (with a folder, else /run/hostler) for the sockets of this very machine.
    `domains` are the doors that it has, where it has not all of them. `groups` are the fleet's
    groups that it is in.
    """

    name: str
    address: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    ports: Mapping[str, int] = field(default_factory=dict, hash=False)
    domains: tuple[str, ...] = ()
    groups: frozenset[str] = field(default=frozenset(), compare=False)

    def to_record(self) -> dict[str, Any]:
        """What `from_record` takes, as JSON has it: all but the groups, which the fleet knows."""
        return {
            "name": self.name,
            "address": self.address,
            "labels": dict(self.labels),
            "ports": dict(self.ports),
            "domains": list(self.domains),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Host:
        """The host that was recorded. Raises KeyError."""
        return cls(
            record["name"],
            record["address"],
            dict(record["labels"]),
            dict(record["ports"]),
            tuple(record.get("domains", ())),
        )

    @property
    def is_local(self) -> bool:
        """Whether it is reached by the unix sockets of this machine."""
        return self.address.startswith("unix:")

    def socket(self, domain: str) -> str:
        """The path of a domain's door, of one that is reached by the sockets of this machine."""
        return f"{self.address.removeprefix('unix:') or SOCKETS}/{domain}.sock"

    def port(self, domain: str) -> int:
        """The port of a domain's door. Raises ConfigError for a domain that there is not."""
        port = self.ports.get(domain, PORTS.get(domain))
        if port is None:
            raise ConfigError(f"there is no domain {domain!r}; there are: {', '.join(PORTS)}")
        return port

    def target(self, domain: str) -> str:
        """The gRPC target of a domain's door. Source: gRPC name resolution."""
        if self.is_local:
            return f"unix:{self.socket(domain)}"
        port = self.port(domain)
        try:
            version = ip_address(self.address.partition("%")[0]).version
        except ValueError:
            return f"dns:///{self.address}:{port}"
        return f"ipv4:{self.address}:{port}" if version == 4 else f"ipv6:[{self.address}]:{port}"


LOCAL_HOST = Host(LOCAL, "unix:")


@dataclass(frozen=True, slots=True)
class Fleet:
    """The hosts, in the order of their file."""

    hosts: tuple[Host, ...] = ()

    def select(self, selectors: Iterable[str]) -> tuple[Host, ...]:
        """Select hosts by names, globs, label=value, @group or "all", in the fleet's order.

        "local" is this machine by its unix sockets, unless a host of the fleet has that name.
        Raises SelectionError if there is no selector, or if one of them matches no host: a
        misspelt name must not shrink the selection in silence.
        """
        wanted = tuple(selectors)
        if not wanted:
            raise SelectionError(
                "no host is selected: give -H with a name, a glob, label=value, @group or all"
            )
        chosen: set[str] = set()
        for selector in wanted:
            found = {host.name for host in self.hosts if matches(host, selector)}
            if not found and selector != LOCAL:
                raise SelectionError(f"no host matches {selector!r}")
            chosen |= found or {LOCAL}
        hosts = tuple(host for host in self.hosts if host.name in chosen)
        missing = LOCAL in chosen and not any(host.name == LOCAL for host in hosts)
        return (LOCAL_HOST, *hosts) if missing else hosts


def matches(host: Host, selector: str) -> bool:
    """Whether a host is meant by one selector. Case matters; a label's value may be a glob."""
    if selector == "all":
        return True
    if selector.startswith("@"):
        return selector[1:] in host.groups
    label, equals, value = selector.partition("=")
    if equals:
        return label in host.labels and fnmatchcase(host.labels[label], value)
    return fnmatchcase(host.name, selector)


def load_fleet(path: Path) -> Fleet:
    """Load a fleet file. Raises ConfigError that names the key."""
    data = read_toml(path)
    if unknown := sorted(set(data) - {"hosts", "groups"}):
        raise ConfigError(f"{path}: {unknown[0]}: unknown key; known: groups, hosts")
    for key in ("hosts", "groups"):
        if not isinstance(data.get(key, {}), dict):
            raise ConfigError(f"{path}: {key}: not a table")
    hosts = [
        _host(name, entry, f"{path}: hosts.{name}") for name, entry in data.get("hosts", {}).items()
    ]
    groups = data.get("groups", {})
    for name, members in groups.items():
        _check_group(name, members, groups, hosts, f"{path}: groups.{name}")
    within = {name: _within(name, groups, hosts, (), f"{path}: groups.{name}") for name in groups}
    return Fleet(
        tuple(
            replace(host, groups=frozenset(name for name in groups if host.name in within[name]))
            for host in hosts
        )
    )


def _check_group(
    name: str, members: Any, groups: Mapping[str, Any], hosts: Sequence[Host], where: str
) -> None:
    check_name(name, where)
    if not isinstance(members, list) or not all(isinstance(one, str) and one for one in members):
        raise ConfigError(f'{where}: a list of selectors is needed, such as ["role=web", "db1"]')
    names = {host.name for host in hosts}
    for member in members:
        if member.startswith("@") and member[1:] not in groups:
            raise ConfigError(f"{where}: there is no group {member!r}")
        # What a glob or a label means may come later; a misspelt name must not be left out.
        if _NAME.fullmatch(member) and member != "all" and member not in names:
            raise ConfigError(f"{where}: there is no host {member!r}")


def _within(
    name: str,
    groups: Mapping[str, Sequence[str]],
    hosts: Sequence[Host],
    above: tuple[str, ...],
    where: str,
) -> set[str]:
    """The names of the hosts in a group and in the groups in it."""
    if name in above:
        raise ConfigError(f"{where}: is in itself: {' > '.join((*above, name))}")
    found: set[str] = set()
    for member in groups[name]:
        if member.startswith("@"):
            found |= _within(member[1:], groups, hosts, (*above, name), where)
        else:
            found |= {host.name for host in hosts if matches(host, member)}
    return found


def _host(name: str, entry: Any, where: str) -> Host:
    check_name(name, where)
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: not a table")
    if unknown := sorted(set(entry) - _KEYS):
        raise ConfigError(f"{where}.{unknown[0]}: unknown key; known: {', '.join(sorted(_KEYS))}")
    address = entry.get("address")
    if not isinstance(address, str) or not address:
        raise ConfigError(f"{where}.address: an address is needed")
    labels = entry.get("labels", {})
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        raise ConfigError(f"{where}.labels: a table of strings is needed")
    ports = _ports(entry.get("ports", {}), f"{where}.ports")
    return Host(name, address, labels, ports, _domains(entry, f"{where}.domains"))


def _ports(ports: Any, where: str) -> Mapping[str, int]:
    if not isinstance(ports, dict):
        raise ConfigError(f"{where}: a table of port numbers is needed")
    for domain, port in ports.items():
        if domain not in PORTS:
            raise ConfigError(f"{where}.{domain}: there is no such domain")
        if type(port) is not int or not 1 <= port <= 65535:
            raise ConfigError(f"{where}.{domain}: a number from 1 to 65535 is needed")
    return ports


def _domains(entry: Mapping[str, Any], where: str) -> tuple[str, ...]:
    domains = entry.get("domains", list(PORTS))
    if not domains or not isinstance(domains, list):
        raise ConfigError(f"{where}: a list of domains is needed; absent means all")
    for domain in domains:
        if domain not in tuple(PORTS):
            raise ConfigError(f"{where}: there is no domain {domain!r}")
    # One order, and nothing for all of them, so that equal hosts are equal.
    had = tuple(one for one in PORTS if one in domains)
    return () if len(had) == len(PORTS) else had


def check_name(name: str, where: str) -> None:
    """Raise ConfigError if a name cannot be the name in a host's certificate."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: a name of letters, digits, '.', '-' and '_' is needed")
    if name == "all":
        raise ConfigError(f"{where}: 'all' means every host and cannot be the name of one")
