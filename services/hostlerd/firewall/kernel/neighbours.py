"""What else on this host writes rules for packets, and how Hostler's live with them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hostlerd.runtime.host import Neighbour
from hostlerd.runtime.neighbourhood import ROOT, runs, starts_at_boot

_FLUSH = re.compile(r"^\s*flush\s+ruleset\b", re.MULTILINE)
_MOST_BYTES = 1 << 20
_EACH_JUDGES = "each table judges every packet, and one that drops it has the last word"


def neighbours(root: Path = ROOT) -> Iterator[Neighbour]:
    """Everything that is known to write rules of its own here."""
    if starts_at_boot("nftables.service", root):
        yield _nftables(root)
    if runs("firewalld.service", root):
        yield Neighbour(
            "FIREWALLD_RUNS",
            "firewalld.service",
            f"it has a table of its own: {_EACH_JUDGES}, so that what Hostler accepts may still be "
            "dropped by its zones; neither touches the other's",
            "keep rules in one of both: open in its zones what Hostler is to judge, or disable it",
        )
    if runs("docker.service", root):
        yield Neighbour(
            "DOCKER_RUNS",
            "docker.service",
            f"it drops in `ip filter FORWARD` what it does not forward itself: {_EACH_JUDGES}, so "
            "that what Hostler forwards to namespaces and guests may be dropped there",
            "accept what is forwarded in its chain DOCKER-USER; `firewall explain` shows who drops",
        )
    if runs("ufw.service", root) or starts_at_boot("ufw.service", root):
        yield Neighbour(
            "UFW_STARTS",
            "ufw.service",
            f"it has tables of its own: {_EACH_JUDGES}, so that what Hostler accepts may still be "
            "dropped by it",
            "keep rules in one of both: ufw disable",
        )


def _nftables(root: Path) -> Neighbour:
    """Debian's unit: it loads the file at its start, and flushes everything when it is stopped."""
    told = "stopping it deletes every table of the host, Hostler's with them"
    try:
        with (root / "etc/nftables.conf").open("rb") as file:
            if _FLUSH.search(file.read(_MOST_BYTES).decode(errors="replace")):
                told = "starting, reloading or stopping it deletes every table of the host, " + (
                    "Hostler's with them: /etc/nftables.conf has `flush ruleset`"
                )
    except OSError:
        pass
    return Neighbour(
        "NFTABLES_FLUSHES",
        "nftables.service",
        told,
        "have one of both keep the rules: systemctl disable nftables.service",
        conflict=True,
    )
