"""What else on this host configures links, addresses and routes, and how Hostler lives with it."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from hostlerd.runtime.host import Neighbour
from hostlerd.runtime.neighbourhood import ROOT, runs, settings, values

_NETWORK_FOLDERS = ("/etc/systemd/network", "/run/systemd/network", "/usr/lib/systemd/network")
_MATCHES = ("Name", "OriginalName", "Type", "Driver", "Kind", "MACAddress", "Path")
# What each of these may say to mean the host's ends of Hostler's links: v-NAME, a veth.
_OURS = {"Type": "ether", "Driver": "veth", "Kind": "veth"}


def neighbours(root: Path = ROOT) -> Iterator[Neighbour]:
    """Everything that is known to configure networks here."""
    if runs("systemd-networkd.service", root):
        yield _networkd(root)
    if runs("NetworkManager.service", root):
        yield _network_manager(root)


def _networkd(root: Path) -> Neighbour:
    taking = [name for name, text in settings(_NETWORK_FOLDERS, "*.network", root) if _takes(text)]
    if taking:
        return Neighbour(
            "NETWORKD_TAKES_LINKS",
            "systemd-networkd.service",
            f"{', '.join(taking[:3])} matches the host's ends of Hostler's links: networkd takes "
            "their addresses away and sets its own",
            "name in its [Match] the links that it is for, or say Name=!v-* in it",
            conflict=True,
        )
    return Neighbour(
        "NETWORKD_RUNS",
        "systemd-networkd.service",
        "it leaves links alone that no .network file matches, and none matches Hostler's",
        "nothing needs to be done",
    )


def _takes(text: str) -> bool:
    """Whether a .network file matches links of Hostler's. Source: systemd.network(5), [Match]."""
    wanted = {
        key: found[-1]
        for key in _MATCHES
        if (found := [one for one in values(text, "Match", key) if one])
    }
    return bool(wanted) and all(_is_ours(key, value.split()) for key, value in wanted.items())


def _is_ours(key: str, patterns: list[str]) -> bool:
    if key in ("Name", "OriginalName"):
        # A list that begins with `!` matches what none of it does.
        if patterns[0].startswith("!"):
            return not any(_is_of_name(one) for one in (patterns[0][1:], *patterns[1:]))
        return any(_is_of_name(one) for one in patterns)
    return any(fnmatchcase(_OURS.get(key, ""), one) for one in patterns)


def _is_of_name(pattern: str) -> bool:
    return pattern.startswith("v-") or fnmatchcase("v-name", pattern)


def _network_manager(root: Path) -> Neighbour:
    folders = ("/etc/NetworkManager/conf.d", "/run/NetworkManager/conf.d")
    files = [text for _, text in settings(folders, "*.conf", root)]
    files += [text for _, text in settings(("/etc/NetworkManager",), "NetworkManager.conf", root)]
    said = " ".join(
        value for text in files for value in values(text, "keyfile", "unmanaged-devices")
    )
    if "driver:veth" in said or "interface-name:v-" in said:
        return Neighbour(
            "NETWORK_MANAGER_RUNS",
            "NetworkManager.service",
            "it leaves Hostler's links alone: they are unmanaged-devices",
            "nothing needs to be done",
        )
    return Neighbour(
        "NETWORK_MANAGER_TAKES_LINKS",
        "NetworkManager.service",
        "it may take the host's ends of Hostler's links for its own, and set addresses on them",
        "in /etc/NetworkManager/conf.d/hostler.conf: [keyfile] unmanaged-devices=driver:veth",
        conflict=True,
    )
