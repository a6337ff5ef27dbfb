"""Rulesets: messages to documents and models to messages."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hostler.api.firewall.v1 import ruleset_pb2 as pb
from hostlerd.firewall.model.document import to_document
from hostlerd.firewall.model.ruleset import Ruleset
from hostlerd.firewall.plan import change


def from_proto(message: pb.Ruleset) -> dict[str, Any]:
    """Answer the document of a message; nothing is judged here."""
    return {
        "name": message.name,
        "priority": message.priority,
        "input_policy": _word(pb.Action, message.input_policy),
        "forward_policy": _word(pb.Action, message.forward_policy),
        "rules": [_rule(r) for r in message.rules],
        "masquerades": [{"source": m.source, "uplink": m.uplink} for m in message.masquerades],
        "forwards": [_forward(f) for f in message.forwards],
        "isolated_networks": list(message.isolated_networks),
        "persistent": message.persistent,
    }


def to_proto(ruleset: Ruleset, update_time: datetime | None = None) -> pb.Ruleset:
    """Answer the message of a ruleset."""
    document = to_document(ruleset)
    for values in (document, *document.get("rules", ()), *document.get("forwards", ())):
        for field, kind in _KINDS.items():
            if field in values:
                values[field] = kind.Value(f"{_PREFIXES[kind]}_{values[field].upper()}")
    message = pb.Ruleset(**document, etag=change.etag(ruleset))
    if update_time is not None:
        message.update_time.FromDatetime(update_time)
    return message


_KINDS = {
    "input_policy": pb.Action,
    "forward_policy": pb.Action,
    "action": pb.Action,
    "hook": pb.Hook,
    "protocol": pb.Protocol,
}
_PREFIXES = {pb.Action: "ACTION", pb.Hook: "HOOK", pb.Protocol: "PROTOCOL"}


def _word(kind: Any, number: int) -> str:
    """Answer a value of an enumeration as the word of documents; empty for unspecified."""
    if number == 0:
        return ""
    if number not in kind.values():
        return str(number)
    name: str = kind.Name(number)
    return name.partition("_")[2].lower()


def _rule(r: pb.Rule) -> dict[str, Any]:
    return {
        "id": r.id,
        "hook": _word(pb.Hook, r.hook),
        "action": _word(pb.Action, r.action),
        "protocol": _word(pb.Protocol, r.protocol),
        "sources": list(r.sources),
        "destinations": list(r.destinations),
        "destination_ports": [{"first": p.first, "last": p.last} for p in r.destination_ports],
        "in_ifname": r.in_ifname,
        "out_ifname": r.out_ifname,
        "comment": r.comment,
    }


def _forward(f: pb.Forward) -> dict[str, Any]:
    return {
        "protocol": _word(pb.Protocol, f.protocol),
        "port": f.port,
        "addresses": list(f.addresses),
        "target_address": f.target_address,
        "target_port": f.target_port,
        "sources": list(f.sources),
    }
