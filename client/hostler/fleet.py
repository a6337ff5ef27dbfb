"""The fleet: which hosts there are, where, and with which labels; and how some are selected."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
_KEYS = frozenset({"address", "labels", "ports"})


class SelectionError(HostlerError):
    """No host is selected, or a selector matches none."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Host:
    """A host of the fleet.

    `name` is also the name that its certificate must carry. `address` is an IP address, a DNS
    name, or "unix:" (with a folder, else /run/hostler) for the sockets of this very machine.
    """

    name: str
    address: str
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    ports: Mapping[str, int] = field(default_factory=dict, hash=False)

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
        """Select hosts by names, globs, label=value or "all", in the fleet's order.

        "local" is this machine by its unix sockets, unless a host of the fleet has that name.
        Raises SelectionError if there is no selector, or if one of them matches no host: a
        misspelt name must not shrink the selection in silence.
        """
        wanted = tuple(selectors)
        if not wanted:
            raise SelectionError(
                "no host is selected: give -H with a name, a glob, label=value or all"
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
    label, equals, value = selector.partition("=")
    if equals:
        return label in host.labels and fnmatchcase(host.labels[label], value)
    return fnmatchcase(host.name, selector)


def load_fleet(path: Path) -> Fleet:
    """Load a fleet file. Raises ConfigError that names the key."""
    data = read_toml(path)
    if unknown := sorted(set(data) - {"hosts"}):
        raise ConfigError(f"{path}: {unknown[0]}: unknown key; known: hosts")
    hosts = data.get("hosts", {})
    if not isinstance(hosts, dict):
        raise ConfigError(f"{path}: hosts: not a table")
    return Fleet(
        tuple(_host(name, entry, f"{path}: hosts.{name}") for name, entry in hosts.items())
    )


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
    ports = entry.get("ports", {})
    if not isinstance(ports, dict):
        raise ConfigError(f"{where}.ports: a table of port numbers is needed")
    for domain, port in ports.items():
        if domain not in PORTS:
            raise ConfigError(f"{where}.ports.{domain}: there is no such domain")
        if type(port) is not int or not 1 <= port <= 65535:
            raise ConfigError(f"{where}.ports.{domain}: a number from 1 to 65535 is needed")
    return Host(name, address, labels, ports)


def check_name(name: str, where: str) -> None:
    """Raise ConfigError if a name cannot be the name in a host's certificate."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: a name of letters, digits, '.', '-' and '_' is needed")
    if name == "all":
        raise ConfigError(f"{where}: 'all' means every host and cannot be the name of one")


def add_host(path: Path, host: Host) -> None:
    """Add a host to a fleet file, keeping its comments and order. Made if it is not there.

    Raises ConfigError if the name is taken or the entry would not load.
    """
    import tomlkit

    document, hosts = _document(path)
    if host.name in hosts:
        raise ConfigError(f"{path}: hosts.{host.name}: is there already")
    entry: dict[str, Any] = {"address": host.address}
    if host.labels:
        entry["labels"] = dict(host.labels)
    if host.ports:
        entry["ports"] = dict(host.ports)
    _host(host.name, entry, f"{path}: hosts.{host.name}")
    table = tomlkit.table()
    for key, value in entry.items():
        if isinstance(value, dict):
            inline = tomlkit.inline_table()
            inline.update(value)
            value = inline
        table.add(key, value)
    hosts[host.name] = table
    _write(path, tomlkit.dumps(document))


def remove_host(path: Path, name: str) -> None:
    """Take a host out of a fleet file. Raises ConfigError if it is not in it."""
    import tomlkit

    document, hosts = _document(path)
    if name not in hosts:
        raise ConfigError(f"{path}: there is no host {name!r}")
    del hosts[name]
    _write(path, tomlkit.dumps(document))


def _document(path: Path) -> tuple[Any, Any]:
    import tomlkit

    if path.exists():
        load_fleet(path)  # A file that would not load must not be written back.
        document = tomlkit.parse(path.read_text())
    else:
        document = tomlkit.document()
    if "hosts" not in document:
        document["hosts"] = tomlkit.table(is_super_table=True)
    return document, document["hosts"]


def _write(path: Path, text: str) -> None:
    """Replace a file in one step, so that a reader sees the old text or the new."""
    # With its own imports it takes 4 ms, and most commands write no fleet.
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
