"""An inventory of Ansible as entries of the fleet file.

Ansible itself reads it: `ansible-inventory --list` prints any inventory, static or not, as JSON.
Source: Ansible documentation, "Developing dynamic inventory".
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostler.config import HostlerError
from hostler.fleet import PORTS, Fleet, Host

_MAX_BYTES = 16 << 20
_TIMEOUT_S = 120.0
# By itself it warns of what it cannot read, and goes on with the rest.
_STRICTLY = {
    "ANSIBLE_INVENTORY_UNPARSED_FAILED": "1",
    "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
}
# Ansible's own: every host, and every host that is in no other group.
_OF_ANSIBLE = frozenset({"all", "ungrouped"})


class InventoryError(HostlerError):
    """An inventory that cannot be had or understood."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """Hosts, and groups by their name: the names of their hosts and "@" and those of groups."""

    hosts: tuple[Host, ...]
    groups: Mapping[str, tuple[str, ...]]

    def missing_in(self, fleet: Fleet) -> tuple[Host, ...]:
        """The hosts that the fleet has not yet. Raises InventoryError if one is elsewhere there."""
        known = {host.name: host for host in fleet.hosts}
        for host in self.hosts:
            there = known.get(host.name)
            if there is not None and there.address != host.address:
                raise InventoryError(
                    f"{host.name} is at {there.address} in the fleet and at {host.address} in the"
                    " inventory"
                )
        return tuple(host for host in self.hosts if host.name not in known)


def ask_ansible(path: Path) -> str:
    """Have `ansible-inventory` read an inventory; answers its JSON. Raises InventoryError."""
    argv = ["ansible-inventory", "-i", str(path), "--list"]
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, **_STRICTLY},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise InventoryError(
            "there is no ansible-inventory here: install Ansible, or give what it printed elsewhere"
            " by `ansible-inventory --list` as -"
        ) from None
    except (OSError, UnicodeDecodeError, subprocess.TimeoutExpired) as error:
        raise InventoryError(f"ansible-inventory: {error}") from error
    if done.returncode != 0 or len(done.stdout) > _MAX_BYTES:
        words = done.stderr.strip()[-1000:] or "it printed too much"
        raise InventoryError(f"ansible-inventory ended with {done.returncode}: {words}")
    return done.stdout


def read(text: str) -> Inventory:
    """Read what `ansible-inventory --list` printed. Raises InventoryError.

    A host's address is its `ansible_host`, else its name. The variables `hostler_labels` (a
    mapping) and `hostler_domains` (a list) are taken over where it has them.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InventoryError(f"not what `ansible-inventory --list` prints: {error}") from error
    if not isinstance(data, dict):
        raise InventoryError("not what `ansible-inventory --list` prints: not an object")
    variables = _table(_table(data.pop("_meta", {}), "_meta").get("hostvars", {}), "hostvars")
    groups = {name: _table(group, name) for name, group in data.items()}
    names = dict.fromkeys(
        host for name, group in groups.items() for host in _names(group, "hosts", name)
    )
    hosts = tuple(_host(name, _table(variables.get(name, {}), name)) for name in names)
    kept = {name for name in groups if name not in _OF_ANSIBLE}
    members = {
        name: (
            *_names(groups[name], "hosts", name),
            *(f"@{one}" for one in _names(groups[name], "children", name) if one in kept),
        )
        for name in sorted(kept)
    }
    return Inventory(hosts, members)


def _host(name: str, variables: Mapping[str, Any]) -> Host:
    address = variables.get("ansible_host", name)
    labels = variables.get("hostler_labels", {})
    domains = variables.get("hostler_domains", [])
    if not isinstance(address, str):
        raise InventoryError(f"{name}: ansible_host: not a string")
    if not isinstance(labels, dict) or not all(isinstance(one, str) for one in labels.values()):
        raise InventoryError(f"{name}: hostler_labels: a mapping of strings is needed")
    if not isinstance(domains, list) or not all(one in PORTS for one in domains):
        raise InventoryError(f"{name}: hostler_domains: a list of {', '.join(PORTS)} is needed")
    return Host(name, address, labels, domains=tuple(one for one in PORTS if one in domains))


def _table(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InventoryError(f"not what `ansible-inventory --list` prints: {what}: not an object")
    return value


def _names(group: Mapping[str, Any], key: str, name: str) -> list[str]:
    found = group.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        words = f"{name}.{key}: not a list of names"
        raise InventoryError(f"not what `ansible-inventory --list` prints: {words}")
    return found
