"""Sysctls of the network namespace, and what they were before this domain set them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hostlerd.firewall.kernel.file import write_durably
from hostlerd.firewall.model.state import (
    BRIDGE_CALLS,
    FORWARDING,
    IP6_FORWARDING,
    IP_FORWARD,
    accept_ra,
)

_ROOT = Path("/proc/sys")
_ALL_REDIRECTS = "net.ipv4.conf.all.accept_redirects"


class Sysctls:
    """Reads and sets sysctls; `memory` is the file of the values found."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory

    def read(self, links: frozenset[str]) -> dict[str, str]:
        """Answer the values of what this domain may set; what the kernel lacks is left out."""
        names = [*FORWARDING.values(), *BRIDGE_CALLS, *(accept_ra(link) for link in sorted(links))]
        values = ((name, _get(name)) for name in names)
        return {name: value for name, value in values if value is not None}

    def found(self) -> dict[str, str]:
        """Answer the values from before, by the names of what was set since."""
        return {name: entry["value"] for name, entry in self._remembered().items()}

    def set(self, name: str, value: str) -> None:
        """Set a sysctl. What was there is remembered first, and forgotten once it is back.

        Raises OSError.
        """
        remembered = self._remembered()
        entry = remembered.get(name)
        if entry is None:
            now = _get(name)
            if now == value:
                # Taken back before it was done: there is nothing to remember.
                return
            found = {"value": now or "", "along": _set_along(name)}
            self._remember({**remembered, name: found})
        _put(name, value)
        if entry is not None and entry["value"] == value:
            _put_back_along(entry["along"])
            self._remember({n: e for n, e in remembered.items() if n != name})

    def _remembered(self) -> dict[str, Any]:
        try:
            entries: dict[str, Any] = json.loads(self._memory.read_text())
        except FileNotFoundError:
            return {}
        return entries

    def _remember(self, entries: Mapping[str, Any]) -> None:
        write_durably(self._memory, json.dumps(entries, sort_keys=True))


def _set_along(name: str) -> dict[str, str]:
    """Answer the sysctls that the kernel changes when this one goes on and off again.

    Turning forwarding off turns it off for each link, and turning IPv4's off lets the host accept
    redirects. Source: inet_forward_change in net/ipv4/devinet.c, addrconf_forward_change in
    net/ipv6/addrconf.c.
    """
    if name not in (IP_FORWARD, IP6_FORWARDING):
        return {}
    family = "ipv4" if name == IP_FORWARD else "ipv6"
    links = [p.name.replace(".", "/") for p in (_ROOT / "net" / family / "conf").iterdir()]
    names = [f"net.{family}.conf.{link}.forwarding" for link in links if link != "all"]
    along = {n: "1" for n in names if _get(n) == "1"}
    redirects = _get(_ALL_REDIRECTS)
    if name == IP_FORWARD and redirects is not None:
        along[_ALL_REDIRECTS] = redirects
    return along


def _put_back_along(along: Mapping[str, str]) -> None:
    for name, value in along.items():
        # A link may have gone since; what is right already needs no writing.
        if _get(name) not in (None, value):
            _put(name, value)


def _path(name: str) -> Path:
    """Answer the file of a sysctl; slashes in its name stand for dots of a link's."""
    return _ROOT.joinpath(*(part.replace("/", ".") for part in name.split(".")))


def _get(name: str) -> str | None:
    try:
        return _path(name).read_text().strip()
    except FileNotFoundError:
        return None


def _put(name: str, value: str) -> None:
    _path(name).write_text(value)
