"""What nft's statements do to a packet: those that rewrite it or mark it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from hostlerd.firewall.model.ruleset import Address
from hostlerd.firewall.plan import explain_routes as fib
from hostlerd.firewall.plan import explain_words as words
from hostlerd.firewall.plan.explain_expressions import value
from hostlerd.firewall.plan.explain_flow import Flow, Sets, Unknown

#: They end a rule's way through the chain.
VERDICTS = frozenset({"accept", "drop", "reject", "return", "jump", "goto", "continue", "queue"})
#: They do nothing that another rule could ask for.
HARMLESS = frozenset(
    {"counter", "log", "flow", "ct helper", "ct timeout", "ct expectation", "last", "dup"}
)
NATS = {"dnat": "destination", "redirect": "destination", "snat": "source", "masquerade": "source"}


def marks(given: Mapping[str, Any], flow: Flow, sets: Sets) -> bool:
    """Carry out `KEY set VALUE`; answers whether it is one that is understood."""
    key = given["key"]
    ((kind, said),) = key.items()
    if (kind, said.get("key")) not in (("meta", "mark"), ("ct", "mark")):
        # A priority, a packet type: rules that ask for it get no answer anyway.
        return kind == "meta" and said.get("key") in ("priority", "nftrace", "pkttype")
    new = value(given["value"], flow, sets)
    new = new if isinstance(new, int | Unknown) else Unknown("the mark is not known")
    if kind == "meta":
        flow.mark = new
    elif flow.state not in ("invalid", "untracked"):
        flow.ct_mark = new
    return True


def rewrite(kind: str, given: Mapping[str, Any] | None, flow: Flow, sets: Sets) -> str | Unknown:
    """Rewrite an address; answers what was done in words, or why that cannot be told."""
    told = dict(given or {})
    family = told.get("family", "")
    if family and family != ("ip" if flow.packet.version == 4 else "ip6"):
        # The kernel takes it for what has been given: such a rule is never loaded for both.
        return Unknown("it rewrites addresses of the other family")
    address = _address(kind, told, flow, sets)
    if isinstance(address, Unknown):
        return address
    port = told.get("port")
    if isinstance(address, tuple):
        address, port = address
    if port is not None and not isinstance(port, int):
        return Unknown("to which port is not known")
    if NATS[kind] == "destination":
        _to_destination(flow, address, port)
    else:
        _to_source(flow, address, port)
    where = shown(address, port)
    return f"{kind} to {where}"


def shown(address: Address, port: int | None) -> str:
    """Answer an address and a port as people write them."""
    if port is None:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _to_destination(flow: Flow, address: Address, port: int | None) -> None:
    before = flow.destination, flow.destination_port
    flow.destination = address
    flow.destination_port = flow.destination_port if port is None else port
    if before != (flow.destination, flow.destination_port) and isinstance(flow.status, int):
        flow.status |= words.STATUS["dnat"]


def _to_source(flow: Flow, address: Address, port: int | None) -> None:
    before = flow.source, flow.source_port
    flow.source = address
    flow.source_port = flow.source_port if port is None else port
    if before != (flow.source, flow.source_port) and isinstance(flow.status, int):
        flow.status |= words.STATUS["snat"]


def _address(
    kind: str, told: Mapping[str, Any], flow: Flow, sets: Sets
) -> Address | tuple[Address, int] | Unknown:
    if kind == "redirect":
        return _own(flow)
    if kind == "masquerade":
        return _leaving(flow)
    given = told.get("addr")
    if given is None:
        return flow.destination if kind == "dnat" else flow.source
    if isinstance(given, dict) and "map" in given:
        given = value(given, flow, sets)
    port = None
    if isinstance(given, dict) and "concat" in given and len(given["concat"]) == 2:
        given, port = given["concat"]
    if not isinstance(given, str):
        return given if isinstance(given, Unknown) else Unknown("to which of several is not known")
    address = ip_address(given)
    return address if port is None else (address, int(port))


def _own(flow: Flow) -> Address | Unknown:
    """Answer where redirect leads: the first address of the incoming link."""
    if flow.hook == "output":
        return ip_address("127.0.0.1" if flow.packet.version == 4 else "::1")
    if isinstance(flow.in_ifname, Unknown):
        return flow.in_ifname
    listed = [
        a for a, _ in flow.routes.addresses.get(flow.in_ifname, ())
        if a.version == flow.packet.version
    ]  # fmt: skip
    return listed[0] if listed else Unknown("the incoming link has no address")


def _leaving(flow: Flow) -> Address | Unknown:
    if isinstance(flow.out_ifname, Unknown):
        return flow.out_ifname
    toward = flow.destination
    try:
        route = fib.lookup(flow.routes, toward, None, "", flow.out_ifname)
    except fib.RouteUnknown as e:
        return Unknown(str(e))
    if route is not None:
        toward = fib.next_hop(route, toward)
    found = fib.source_address(flow.routes, flow.out_ifname, toward)
    return found if found is not None else Unknown("which address of the link is not known")
