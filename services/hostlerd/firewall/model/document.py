"""Rulesets as documents: what callers send and what is saved, read with all faults at once.

A document has the fields of the Ruleset message by their names there; enumerations are words in
lower case ("drop", "tcp", "input"), absent and empty are the same.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from hostlerd.firewall.model.document_names import (
    address_sets,
    flowtables,
    fragments,
    helpers,
    services,
    zones,
)
from hostlerd.firewall.model.document_nat import forwards, masquerades, redirects, source_nats
from hostlerd.firewall.model.document_rule import rules
from hostlerd.firewall.model.fields import Fields, name_fault
from hostlerd.firewall.model.remembered import Remembered
from hostlerd.firewall.model.ruleset import Action, BridgeFiltering, Network, Ruleset
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import canonical

PRIORITY_MAX = 1000
RULESETS_MOST = 100
ISOLATED_MOST = 1000


def parse(document: object, path: str = "ruleset") -> Ruleset:
    """Read a document. Raises InvalidRequest with every fault in it, by paths below `path`."""
    faults: list[Violation] = []
    ruleset = _ruleset(Fields(document, path, faults))
    if faults:
        raise InvalidRequest.of(faults)
    return ruleset


def parse_all(documents: Sequence[object], gone: Collection[str]) -> dict[str, Ruleset]:
    """Read documents, and answer the rulesets by their paths, `rulesets[N]`.

    `gone` are names that must be none of theirs. Raises InvalidRequest with all faults.
    """
    faults: list[Violation] = []
    if len(documents) > RULESETS_MOST or len(gone) > RULESETS_MOST:
        raise InvalidRequest.of([Violation("rulesets", f"has over {RULESETS_MOST} entries")])
    found: dict[str, Ruleset] = {}
    first: dict[str, str] = {}
    for index, document in enumerate(documents):
        path = f"rulesets[{index}]"
        found[path] = _ruleset(Fields(document, path, faults))
        name = found[path].name
        if first.setdefault(name, path) != path:
            faults.append(Violation(f"{path}.name", f"{name} is also {first[name]}"))
    for index, name in enumerate(gone):
        fault = name_fault(name) or ("is also applied" if name in first else None)
        if fault is not None:
            faults.append(Violation(f"delete_names[{index}]", fault))
    if not documents and not gone:
        faults.append(Violation("rulesets", "must be given, or delete_names"))
    if faults:
        raise InvalidRequest.of(faults)
    return found


_DUMPED = Remembered(8)


def dump(ruleset: Ruleset) -> str:
    """Write a ruleset as the JSON text that `parse` reads back as the same ruleset.

    Equal rulesets make equal texts: etags are made of them.
    """
    return _DUMPED.get(
        [ruleset],
        lambda: json.dumps(to_document(ruleset), sort_keys=True, separators=(",", ":")),
    )


def load(text: str) -> Ruleset:
    """Read what `dump` has written. Raises ValueError, InvalidRequest.

    A text that was written lately answers the very ruleset it was made of: to read a large one
    takes a second.
    """
    for known in _DUMPED.made_of(text):
        if isinstance(known, Ruleset):
            return known
    return parse(json.loads(text))


def to_document(value: Any) -> dict[str, Any]:
    """Answer the document of a ruleset or of a part of it, without its empty fields."""
    filled = ((f.name, getattr(value, f.name)) for f in fields(value))
    return {name: _plain(v) for name, v in filled if v or isinstance(v, Enum)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return to_document(value)
    return canonical(value)


_RULESET = frozenset(f.name for f in fields(Ruleset))


def _ruleset(d: Fields) -> Ruleset:
    d.refuse_unknown(_RULESET)
    ruleset = Ruleset(
        name=d.name("name"),
        priority=d.number("priority", 0, PRIORITY_MAX),
        input_policy=d.policy("input_policy"),
        forward_policy=d.policy("forward_policy"),
        rules=rules(d),
        masquerades=masquerades(d),
        forwards=forwards(d),
        isolated_networks=_isolated(d),
        persistent=d.flag("persistent"),
        output_policy=d.policy("output_policy"),
        bridge_policy=d.policy("bridge_policy"),
        bridge_filtering=d.choice("bridge_filtering", BridgeFiltering),
        address_sets=address_sets(d),
        zones=zones(d),
        services=services(d),
        source_nats=source_nats(d),
        redirects=redirects(d),
        helpers=helpers(d),
        flowtables=flowtables(d),
        fragments=fragments(d),
        closes_management=d.flag("closes_management"),
    )
    if ruleset.bridge_policy is Action.REJECT:
        d.fault("bridge_policy", "must be accept or drop")
    return ruleset


def _isolated(d: Fields) -> tuple[Network, ...]:
    """Isolated networks may be of both families, unlike what one rule lists."""
    found: dict[Network, None] = {}
    for index, item in enumerate(d.items("isolated_networks", ISOLATED_MOST)):
        one = Fields({"at": item}, d.path(f"isolated_networks[{index}]"), [])
        network = one.network("at")
        key = f"isolated_networks[{index}]"
        if network is None:
            d.fault(key, one.first_fault())
        elif network.prefixlen == 0:
            d.fault(key, "is everything; nothing can be isolated from it")
        elif network in found:
            d.fault(key, f"{network} is listed twice")
        else:
            found[network] = None
    return tuple(found)
