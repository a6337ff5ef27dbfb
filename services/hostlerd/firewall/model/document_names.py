"""What rules use by name, and what stands beside them, as documents."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

from hostlerd.firewall.model.document_rule import NETWORKS_MOST
from hostlerd.firewall.model.elements import Span, merged, read_span
from hostlerd.firewall.model.fields import PORT_MAX, Fields
from hostlerd.firewall.model.known import HELPERS
from hostlerd.firewall.model.ruleset import (
    WITH_PORTS,
    AddressSet,
    ConnectionHelper,
    Flowtable,
    Fragment,
    FragmentPlace,
    NamedService,
    Protocol,
    ServicePort,
    Zone,
)

N = TypeVar("N", AddressSet, Zone, NamedService, Flowtable)

SETS_MOST = 200
#: Elements of one set that a ruleset lists.
ELEMENTS_MOST = 262_144
_LISTED_MOST = 64
_FRAGMENT_BYTES = 16_384
_HELPERS_MOST = 100
_FRAGMENTS_MOST = 100

_SET, _ZONE, _SERVICE, _PORT, _HELPER, _FLOWTABLE, _FRAGMENT = (
    frozenset(kind.__dataclass_fields__)
    for kind in (
        AddressSet, Zone, NamedService, ServicePort, ConnectionHelper, Flowtable, Fragment,
    )
)  # fmt: skip

# Only what can stand in a rule: printable, no ";", no comment, no escape, no definition's "$".
_FRAGMENT_LINE = re.compile(r"[A-Za-z0-9 \t_.,:/@{}()<>=!&|^*+\"-]+")
# Words that begin something else than a rule where a rule may stand.
_NOT_RULES = frozenset(
    (
        "add", "chain", "comment", "create", "ct", "define", "delete", "describe", "destroy",
        "device", "devices", "elements", "export", "flags", "flush", "hook", "import", "include",
        "insert", "list", "map", "monitor", "policy", "redefine", "rename", "replace", "reset",
        "rule", "set", "table", "type", "undefine",
    )
)  # fmt: skip
# "ct state ..." is a rule, "ct helper NAME {" in a chain is none.
_CT_RULE = re.compile(r"ct (?:state|status|mark|direction|zone|original|reply|expiration|bytes) ")


def address_sets(d: Fields) -> tuple[AddressSet, ...]:
    """Read the sets of addresses."""
    return _unique(
        d, "address_sets", (_address_set(i) for _, i in d.messages("address_sets", SETS_MOST))
    )


def _address_set(d: Fields) -> AddressSet:
    d.refuse_unknown(_SET)
    dynamic = d.flag("dynamic")
    spans: list[Span] = []
    for index, text in enumerate(d.items("elements", ELEMENTS_MOST)):
        try:
            spans.append(read_span(text))
        except ValueError as e:
            d.fault(f"elements[{index}]", str(e))
    if dynamic and spans:
        d.fault("elements", "must be empty in a dynamic set; AddressSetService adds them")
    elements = tuple(span.nft for span in merged(spans))
    return AddressSet(d.needed_word("name"), elements, dynamic, d.comment("comment"))


def zones(d: Fields) -> tuple[Zone, ...]:
    """Read the groups of links."""
    return _unique(d, "zones", (_zone(item) for _, item in d.messages("zones", SETS_MOST)))


def _zone(d: Fields) -> Zone:
    d.refuse_unknown(_ZONE)
    ifnames = d.ifname_patterns("ifnames", _LISTED_MOST)
    if not ifnames:
        d.fault("ifnames", "must name links")
    # nft takes no name that another one of the set covers already.
    for index, name in enumerate(ifnames):
        for other in ifnames:
            if other != name and other.endswith("*") and name.startswith(other[:-1]):
                d.fault(f"ifnames[{index}]", f"{name} is covered by {other}")
                break
    return Zone(d.needed_word("name"), ifnames)


def services(d: Fields) -> tuple[NamedService, ...]:
    """Read the named services."""
    return _unique(d, "services", (_service(i) for _, i in d.messages("services", SETS_MOST)))


def _service(d: Fields) -> NamedService:
    d.refuse_unknown(_SERVICE)
    ports = []
    for _, item in d.messages("ports", _LISTED_MOST):
        item.refuse_unknown(_PORT)
        protocol = item.choice("protocol", Protocol)
        if protocol not in WITH_PORTS:
            item.fault("protocol", "must be tcp, udp or sctp")
        span = item.port_range("ports")
        if protocol is not None and span is not None:
            ports.append(ServicePort(protocol, span))
    if not ports:
        d.fault("ports", "must be given")
    return NamedService(d.needed_word("name"), tuple(dict.fromkeys(ports)))


def helpers(d: Fields) -> tuple[ConnectionHelper, ...]:
    """Read the helpers of connection tracking."""
    found: dict[ConnectionHelper, None] = {}
    for index, item in d.messages("helpers", _HELPERS_MOST):
        helper = _helper(item)
        if helper in found:
            d.fault(f"helpers[{index}]", "is listed twice")
        elif helper is not None:
            found[helper] = None
    return tuple(found)


def _helper(d: Fields) -> ConnectionHelper | None:
    d.refuse_unknown(_HELPER)
    name, protocol = d.text("helper"), d.choice("protocol", Protocol)
    port, sources = d.number("port", 1, PORT_MAX), d.networks("sources", NETWORKS_MOST)
    if name not in HELPERS:
        d.fault("helper", "must be one of " + ", ".join(HELPERS))
        return None
    if protocol is None or protocol not in HELPERS[name]:
        d.fault("protocol", f"{name} speaks " + " and ".join(p.value for p in HELPERS[name]))
        return None
    return ConnectionHelper(name, protocol, port, sources)


def flowtables(d: Fields) -> tuple[Flowtable, ...]:
    """Read the flowtables."""
    return _unique(d, "flowtables", (_flowtable(i) for _, i in d.messages("flowtables", 8)))


def _flowtable(d: Fields) -> Flowtable:
    d.refuse_unknown(_FLOWTABLE)
    ifnames = d.ifname_patterns("ifnames", _LISTED_MOST)
    if not ifnames or any(name.endswith("*") for name in ifnames):
        d.fault("ifnames", "must name links, each by its whole name")
    return Flowtable(d.needed_word("name"), ifnames)


def fragments(d: Fields) -> tuple[Fragment, ...]:
    """Read the fragments."""
    found: dict[str, Fragment] = {}
    for index, item in d.messages("fragments", _FRAGMENTS_MOST):
        fragment = _fragment(item)
        if fragment.id in found:
            d.fault(f"fragments[{index}].id", f"{fragment.id} is not unique")
        found[fragment.id] = fragment
    return tuple(found.values())


def _fragment(d: Fields) -> Fragment:
    d.refuse_unknown(_FRAGMENT)
    text = d.text("nft_rules")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or len(text) > _FRAGMENT_BYTES:
        d.fault("nft_rules", f"must be rules, at most {_FRAGMENT_BYTES} characters of them")
        lines = []
    for number, line in enumerate(lines, 1):
        fault = _line_fault(line)
        if fault is not None:
            d.fault("nft_rules", f"line {number}: {fault}")
    if not d.text("id"):
        d.fault("id", "must be given")
    place = d.needed_choice("place", FragmentPlace)
    return Fragment(d.id("id"), place or FragmentPlace.INPUT_AFTER, "\n".join(lines))


def _line_fault(line: str) -> str | None:
    """Answer why a line could be something else than one rule; None if it cannot."""
    if not _FRAGMENT_LINE.fullmatch(line):
        return "has a character that no rule needs"
    words = line.split()
    if words[0] in _NOT_RULES and not (words[0] == "ct" and _CT_RULE.match(line)):
        return f"begins with {words[0]!r}, which begins no rule"
    if line.count('"') % 2:
        return "has a quote that is not closed"
    depth = 0
    for sign in re.sub(r'"[^"]*"', "", line):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth < 0 or depth > 2:
            return "has braces that do not match"
    if depth:
        return "has braces that do not match"
    return "must not have a comment; it gets one" if " comment " in f" {line} " else None


def _unique(d: Fields, key: str, found: Iterable[N]) -> tuple[N, ...]:
    kept: dict[str, N] = {}
    for index, each in enumerate(found):
        if each.name in kept:
            d.fault(f"{key}[{index}].name", f"{each.name} is not unique")
        kept[each.name] = each
    return tuple(kept.values())
