"""What this host's kernel can do for the firewall, each thing tried for real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hostlerd.firewall.errors import (
    NftRejected,
    ScratchUnavailable,
    ToolFailed,
    TrackingUnavailable,
)
from hostlerd.firewall.kernel import conntrack, nft
from hostlerd.runtime.host import Capability

_FILTER = "type filter hook forward priority filter; policy accept;"
_NAT = "type nat hook postrouting priority srcnat; policy accept;"
_HOOKED = "\tchain filter_probe {{\n\t\t{hook}\n\t}}\n"
_DNAT = "type nat hook prerouting priority dstnat; policy accept;"


def probe_scratch_check() -> Capability:
    """Whether tables can be tried in user and network namespaces of their own."""
    try:
        nft.check(_table(_FILTER))
    except (ScratchUnavailable, ToolFailed, NftRejected) as e:
        return Capability("scratch_check", False, e.message)
    return Capability("scratch_check", True)


def probe_nf_tables() -> Capability:
    """Whether there is a packet filter at all."""
    return _try("nf_tables", _FILTER, "counter accept")


def probe_nat() -> Capability:
    """Whether sources can be rewritten, for masquerades."""
    return _try("nat", _NAT, "ip saddr 10.0.0.0/24 masquerade", "ip6 saddr fd00::/64 masquerade")


def probe_dnat() -> Capability:
    """Whether destinations can be rewritten, for forwards."""
    return _try(
        "dnat",
        _DNAT,
        "fib daddr type local tcp dport 80 dnat ip to 10.0.0.2:80",
        "fib daddr type local tcp dport 80 dnat ip6 to [fd00::2]:80",
    )


def probe_conntrack() -> Capability:
    """Whether answers can be told from what is new."""
    return _try(
        "conntrack", _FILTER, "ct state established,related accept", "ct status dnat accept"
    )


def probe_connections() -> Capability:
    """Whether the connections that are tracked can be listed and cut."""
    try:
        conntrack.size()
    except TrackingUnavailable as e:
        return Capability("connections", False, e.message)
    return Capability("connections", True)


def probe_reject() -> Capability:
    """Whether packets can be refused, not only lost."""
    return _try("reject", _FILTER, "reject", "meta l4proto tcp reject with tcp reset")


def probe_fib() -> Capability:
    """Whether rules can ask the routing table, for hairpin forwards and isolated networks."""
    return _try("fib", _FILTER, "fib daddr . iif oif exists accept")


def probe_bridge() -> Capability:
    """Whether frames between ports of a bridge can be judged, for rules of bridge_forward."""
    return _try_verbatim(
        "bridge", "table bridge hostler {\n" + _HOOKED.format(hook=_FILTER) + "}\n"
    )


def probe_bridge_conntrack() -> Capability:
    """Whether rules of bridge_forward can ask for the states of connections."""
    rule = _FILTER + "\n\t\tct state established accept"
    text = "table bridge hostler {\n" + _HOOKED.format(hook=rule) + "}\n"
    return _try_verbatim("bridge_conntrack", text)


def probe_flowtable() -> Capability:
    """Whether established connections can pass the rules by."""
    chain = _HOOKED.format(hook=_FILTER + "\n\t\tflow add @f")
    text = (
        "table inet hostler {\n\tflowtable f {\n\t\thook ingress priority filter\n"
        '\t\tdevices = { "lo" }\n\t}\n' + chain + "}\n"
    )
    return _try_verbatim("flowtable", text)


def probe_helpers() -> Capability:
    """Whether connections can be given helpers."""
    text = (
        'table inet hostler {\n\tct helper h {\n\t\ttype "ftp" protocol tcp\n'
        "\t\tl3proto inet\n\t}\n}\n"
    )
    return _try_verbatim("helpers", text)


def probe_bridge_filtering() -> Capability:
    """Whether rules of forward can be shown what bridges carry, for bridge_filtering."""
    if Path("/proc/sys/net/bridge").is_dir():
        return Capability("bridge_filtering", True)
    return Capability("bridge_filtering", False, "br_netfilter is not there, or not loaded")


PROBES = (
    probe_scratch_check,
    probe_nf_tables,
    probe_nat,
    probe_dnat,
    probe_conntrack,
    probe_connections,
    probe_reject,
    probe_fib,
    probe_bridge,
    probe_bridge_conntrack,
    probe_flowtable,
    probe_helpers,
    probe_bridge_filtering,
)


def _try(name: str, hook: str, *rules: str) -> Capability:
    return _answer(name, nft.check, _table(hook, *rules))


def _answer(name: str, check: Callable[[str], None], text: str) -> Capability:
    try:
        try:
            check(text)
        except ScratchUnavailable:
            nft.check_unapplied(text)
    except (NftRejected, ToolFailed) as e:
        return Capability(name, False, e.message)
    return Capability(name, True)


def _try_verbatim(name: str, text: str) -> Capability:
    return _answer(name, nft.try_verbatim, text)


def _table(*lines: str) -> str:
    body = "".join(f"\t\t{line}\n" for line in lines)
    return "table inet hostler {\n\tchain filter_probe {\n" + body + "\t}\n}\n"
