"""Namespaces as JSON can say them: what is kept on record."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from hostlerd.netns.model.namespace import (
    Dns,
    Interface,
    Macvlan,
    MacvlanMode,
    Namespace,
    Route,
    Veth,
)
from hostlerd.runtime.steps import canonical


def to_record(namespace: Namespace) -> dict[str, Any]:
    """Turn a namespace into plain values; `from_record` is the way back."""
    record: dict[str, Any] = canonical(namespace)
    for interface, plain in zip(namespace.interfaces, record["interfaces"], strict=True):
        plain["link"]["kind"] = "veth" if isinstance(interface.link, Veth) else "macvlan"
    return record


def from_record(record: Mapping[str, Any]) -> Namespace:
    """Make a namespace of a record. Raises KeyError, TypeError or ValueError if it is none."""
    dns = record["dns"]
    return Namespace(
        name=str(record["name"]),
        interfaces=tuple(_interface(i) for i in record["interfaces"]),
        routes=tuple(
            Route(
                ip_network(r["destination"]),
                ip_address(r["gateway"]) if r["gateway"] else None,
                str(r["ifname"]),
                int(r["metric"]),
            )
            for r in record["routes"]
        ),
        dns=Dns(
            tuple(ip_address(s) for s in dns["servers"]),
            tuple(map(str, dns["search"])),
            tuple(map(str, dns["options"])),
        ),
        hostname=str(record["hostname"]),
        unprivileged_port_start=record["unprivileged_port_start"],
        persistent=bool(record["persistent"]),
        remove_with_processes=bool(record["remove_with_processes"]),
    )


def _interface(record: Mapping[str, Any]) -> Interface:
    return Interface(
        name=str(record["name"]),
        link=_link(record["link"]),
        addresses=tuple(ip_interface(a) for a in record["addresses"]),
        ipv4_pool=str(record["ipv4_pool"]),
        ipv6_pool=str(record["ipv6_pool"]),
        mtu_bytes=int(record["mtu_bytes"]),
        default_route=bool(record["default_route"]),
        gateways=tuple(ip_address(g) for g in record["gateways"]),
    )


def _link(record: Mapping[str, Any]) -> Veth | Macvlan:
    if record["kind"] == "veth":
        addresses = tuple(ip_interface(a) for a in record["host_addresses"])
        return Veth(str(record["host_ifname"]), addresses, str(record["bridge"]))
    return Macvlan(str(record["parent"]), MacvlanMode[record["mode"]])
