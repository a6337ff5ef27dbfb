"""What explaining a packet takes of the host: all tables, routes and addresses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from hostlerd.firewall.errors import NftRejected, ScratchUnavailable, ToolFailed
from hostlerd.firewall.kernel import nft, pieces
from hostlerd.firewall.kernel.text import read
from hostlerd.firewall.kernel.tool import run
from hostlerd.firewall.model.explain import Route, RouteRule, Routes
from hostlerd.firewall.model.ruleset import Address
from hostlerd.firewall.model.state import FORWARDING

_IP = "/usr/sbin/ip"
_NFT = "/usr/sbin/nft"
_ROUTES_MOST = 100_000
_RULE_KEYS = frozenset({"priority", "src", "srclen", "dst", "dstlen", "table", "iif"})


def tables() -> list[dict[str, Any]]:
    """Answer all that nft lists of this host. Raises ToolFailed."""
    answer = run([_NFT, "-j", "list", "ruleset"])
    if answer.status != 0:
        raise ToolFailed("nft cannot list", tool=_NFT, stderr=answer.errors[:2000])
    listed: list[dict[str, Any]] = json.loads(answer.output)["nftables"]
    return listed


def scratch_tables(text: str) -> list[dict[str, Any]]:
    """Load tables into a scratch namespace; answer what nft lists of them there.

    Raises NftRejected, ScratchUnavailable, ToolFailed.
    """
    parts = [piece.text for piece in pieces.cut(text, nft.PIECE_BYTES)]
    parts += pieces.elements(text, nft.PIECE_BYTES)
    answer = run([*nft.SCRATCH, nft.CHILD, "--json"], json.dumps(parts).encode())
    if answer.status != 0:
        last = answer.errors.strip().splitlines()[-1:] or [f"exit status {answer.status}"]
        raise ScratchUnavailable(f"no scratch namespace: {last[0]}", stderr=answer.errors[:2000])
    result = json.loads(answer.output)
    if "errors" in result:
        raise NftRejected(result["errors"].splitlines()[0], stderr=result["errors"][:2000])
    listed: list[dict[str, Any]] = json.loads(result["listed"])["nftables"]
    return listed


def dynamic_sets(text: str) -> list[str]:
    """Answer the sets of the table `inet hostler` whose elements are not in its text."""
    return [block.name for block in read(text).get("inet", {}).values() if block.is_dynamic]


def routes(version: int) -> Routes:
    """Answer the routes, rules and addresses of an IP version. Raises ToolFailed."""
    listed = _ip(version, "route", "show", "table", "all")
    if len(listed) > _ROUTES_MOST:
        raise ToolFailed(f"the host has more than {_ROUTES_MOST} routes", tool=_IP)
    links = _ip(version, "addr", "show")
    addresses: dict[str, tuple[tuple[Address, int], ...]] = {
        link["ifname"]: tuple(
            (ip_address(a["local"]), a["prefixlen"])
            for a in link.get("addr_info", ())
            if "local" in a
        )
        for link in links
    }
    return Routes(
        routes=tuple(_routes(version, listed)),
        rules=tuple(_rule(version, each) for each in _ip(version, "rule", "show")),
        addresses=addresses,
        indexes={link["ifname"]: link["ifindex"] for link in links},
        forwarding=_forwards(version),
    )


def _ip(version: int, *args: str) -> list[dict[str, Any]]:
    answer = run([_IP, "-j", f"-{version}", *args])
    if answer.status != 0:
        raise ToolFailed(f"ip cannot list: {args[0]}", tool=_IP, stderr=answer.errors[:2000])
    # Older ones write a trailing brace of nothing for links without addresses.
    return [each for each in json.loads(answer.output or b"[]") if each]


def _routes(version: int, listed: list[dict[str, Any]]) -> Iterator[Route]:
    everything = "0.0.0.0/0" if version == 4 else "::/0"
    for each in listed:
        if {"dead", "linkdown"} & {*each.get("flags", ())}:
            continue
        dst = each["dst"]
        yield Route(
            table=str(each.get("table", "main")),
            network=ip_network(everything if dst == "default" else dst),
            type=each.get("type", "unicast"),
            ifname=each.get("dev", ""),
            gateway=each.get("gateway", ""),
            metric=each.get("metric", 0),
            plain="nexthops" not in each and "tos" not in each,
        )


def _rule(version: int, each: dict[str, Any]) -> RouteRule:
    def network(name: str) -> Any:
        at = each.get(name, "all")
        most = 32 if version == 4 else 128
        return None if at == "all" else ip_network((at, each.get(f"{name}len", most)))

    others = sorted(each.keys() - _RULE_KEYS)
    return RouteRule(
        priority=each["priority"],
        table=str(each.get("table", "main")),
        source=network("src"),
        destination=network("dst"),
        in_ifname=each.get("iif", ""),
        other=", ".join(others),
    )


def _forwards(version: int) -> bool:
    name = FORWARDING[version].replace(".", "/")
    try:
        return Path("/proc/sys", name).read_text().strip() != "0"
    except FileNotFoundError:
        return False
