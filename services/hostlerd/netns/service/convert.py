"""Protobuf to model and back, for namespaces."""

from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from hostler.api.netns.v1 import namespace_pb2 as pb
from hostlerd.netns.model.asked import (
    AskedDns,
    AskedInterface,
    AskedLink,
    AskedNamespace,
    AskedRoute,
)
from hostlerd.netns.model.namespace import Macvlan, MacvlanMode, Route, Veth
from hostlerd.netns.plan.show import Shown, ShownInterface

_MODES = {
    pb.Macvlan.MODE_UNSPECIFIED: "bridge",
    pb.Macvlan.MODE_BRIDGE: "bridge",
    pb.Macvlan.MODE_VEPA: "vepa",
    pb.Macvlan.MODE_PRIVATE: "private",
}
_SHOWN_MODES = {
    MacvlanMode.BRIDGE: pb.Macvlan.MODE_BRIDGE,
    MacvlanMode.VEPA: pb.Macvlan.MODE_VEPA,
    MacvlanMode.PRIVATE: pb.Macvlan.MODE_PRIVATE,
}


def from_proto(message: pb.Namespace) -> AskedNamespace:
    """Take what a caller asks for; fields that are output only are left aside (AIP-203)."""
    has_start = message.HasField("unprivileged_port_start")
    return AskedNamespace(
        name=message.name,
        interfaces=tuple(_interface(i) for i in message.interfaces),
        routes=tuple(
            AskedRoute(r.destination, r.gateway, r.ifname, r.metric) for r in message.routes
        ),
        dns=AskedDns(
            tuple(message.dns.servers), tuple(message.dns.search), tuple(message.dns.options)
        ),
        hostname=message.hostname,
        unprivileged_port_start=message.unprivileged_port_start if has_start else None,
        persistent=message.persistent,
        remove_with_processes=message.remove_with_processes,
    )


def _interface(message: pb.Interface) -> AskedInterface:
    return AskedInterface(
        name=message.name,
        link=_link(message),
        addresses=tuple(message.addresses),
        ipv4_pool=message.ipv4_pool,
        ipv6_pool=message.ipv6_pool,
        mtu_bytes=message.mtu_bytes if message.HasField("mtu_bytes") else None,
        default_route=message.default_route,
        gateways=tuple(message.gateways),
    )


def _link(message: pb.Interface) -> AskedLink:
    kind = message.WhichOneof("link") or ""
    if kind == "veth":
        veth = message.veth
        return AskedLink(kind, veth.host_ifname, tuple(veth.host_addresses), veth.bridge)
    if kind == "macvlan":
        mode = _MODES.get(message.macvlan.mode, str(message.macvlan.mode))
        return AskedLink(kind, parent=message.macvlan.parent, mode=mode)
    return AskedLink()


def to_proto(shown: Shown) -> pb.Namespace:
    """Answer a namespace as callers see it."""
    message = pb.Namespace(
        name=shown.name,
        interfaces=[_shown_interface(i) for i in shown.interfaces],
        routes=[_shown_route(r) for r in shown.routes],
        dns=pb.Dns(
            servers=map(str, shown.dns.servers),
            search=shown.dns.search,
            options=shown.dns.options,
        ),
        hostname=shown.hostname,
        unprivileged_port_start=shown.unprivileged_port_start,
        persistent=shown.persistent,
        remove_with_processes=shown.remove_with_processes,
        managed=shown.managed,
        inode=shown.inode,
        etag=shown.etag,
        drift=shown.drift,
        process_count=len(shown.processes),
    )
    if shown.create_time is not None:
        made = Timestamp()
        made.FromDatetime(shown.create_time)
        message.create_time.CopyFrom(made)
    return message


def _shown_interface(interface: ShownInterface) -> pb.Interface:
    return pb.Interface(
        name=interface.name,
        addresses=map(str, interface.addresses),
        ipv4_pool=interface.ipv4_pool,
        ipv6_pool=interface.ipv6_pool,
        mtu_bytes=interface.mtu_bytes,
        default_route=interface.default_route,
        gateways=map(str, interface.gateways),
        mac_address=interface.mac_address,
        up=interface.up,
        **_shown_link(interface.link),
    )


def _shown_link(link: Veth | Macvlan | None) -> dict[str, Any]:
    if isinstance(link, Veth):
        addresses = map(str, link.host_addresses)
        return {
            "veth": pb.Veth(
                host_ifname=link.host_ifname, host_addresses=addresses, bridge=link.bridge
            )
        }
    if isinstance(link, Macvlan):
        return {"macvlan": pb.Macvlan(parent=link.parent, mode=_SHOWN_MODES[link.mode])}
    return {}


def _shown_route(route: Route) -> pb.Route:
    return pb.Route(
        destination=str(route.destination),
        gateway=str(route.gateway or ""),
        ifname=route.ifname,
        metric=route.metric,
    )
