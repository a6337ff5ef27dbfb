"""What rulesets may not do because of the host as it is, or of each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hostlerd.firewall.errors import NameInUse, NameUnknown, PolicyInUse, PortInUse, TooMany
from hostlerd.firewall.model.document_nat import collide, port_key
from hostlerd.firewall.model.ruleset import SET_ONCE, Forward, Hook, Protocol, Ruleset
from hostlerd.firewall.model.state import State
from hostlerd.firewall.plan.names import Names, collect, unknown
from hostlerd.runtime.errors import DomainError, InvalidRequest, Violation

RULESETS_MOST = 1000
# Of all rulesets together: what nft and the kernel take in seconds, not in minutes.
ENTRIES_MOST = 50_000
ELEMENTS_MOST = 1_048_576
_NAMED = ("address_sets", "zones", "services", "flowtables")


def check(wanted: Mapping[str, Ruleset], after: Mapping[str, Ruleset], state: State) -> None:
    """Look for what is in the way of rulesets, which have these paths in the request.

    `after` is all that the host will have. Raises InvalidRequest, TooMany, NameInUse, NameUnknown,
    PolicyInUse or PortInUse, each with all that is in the way.
    """
    _check_uplinks(wanted, state)
    _check_room(after)
    names = collect(after.values())
    _check_names(wanted, after, names)
    _check_policies(wanted, after)
    _check_ports(wanted, after)


def check_left(gone: Iterable[Ruleset], after: Mapping[str, Ruleset]) -> None:
    """Look whether what is left still has the names it uses. Raises NameInUse."""
    names = collect(after.values())
    for ruleset in after.values():
        missing = unknown(ruleset, names, ruleset.name)
        if missing:
            from_whom = ", ".join(r.name for r in gone)
            raise NameInUse(
                f"ruleset {ruleset.name} uses what would be gone with {from_whom}: "
                f"{missing[0].description}",
                ruleset=ruleset.name,
                violations=missing,
            )


def _check_uplinks(wanted: Mapping[str, Ruleset], state: State) -> None:
    faults = [
        Violation(f"{path}.{field}[{i}].uplink", f"the host has no link {nat.uplink}")
        for path, want in wanted.items()
        for field in ("masquerades", "source_nats")
        for i, nat in enumerate(getattr(want, field))
        if nat.uplink and nat.uplink not in state.links
    ]
    faults += [
        Violation(f"{path}.flowtables[{i}].ifnames[{k}]", f"the host has no link {ifname}")
        for path, want in wanted.items()
        for i, flowtable in enumerate(want.flowtables)
        for k, ifname in enumerate(flowtable.ifnames)
        if ifname not in state.links
    ]
    if faults:
        raise InvalidRequest.of(faults)


def _check_room(after: Mapping[str, Ruleset]) -> None:
    if len(after) > RULESETS_MOST:
        raise TooMany(f"the host would have {len(after)} rulesets", most=RULESETS_MOST)
    entries = sum(_size(r) for r in after.values())
    if entries > ENTRIES_MOST:
        raise TooMany(
            f"all rulesets together would have {entries} entries; {ENTRIES_MOST} are allowed",
            most=ENTRIES_MOST,
        )
    elements = sum(len(s.elements) for r in after.values() for s in r.address_sets)
    if elements > ELEMENTS_MOST:
        raise TooMany(
            f"all address sets would have {elements} elements; {ELEMENTS_MOST} are allowed",
            most=ELEMENTS_MOST,
        )


def _size(r: Ruleset) -> int:
    return sum(
        len(listed)
        for listed in (
            r.rules, r.forwards, r.masquerades, r.isolated_networks, r.source_nats, r.redirects,
        )
    )  # fmt: skip


def _check_names(wanted: Mapping[str, Ruleset], after: Mapping[str, Ruleset], names: Names) -> None:
    given = {
        (field, each.name): r.name
        for r in sorted(after.values(), key=lambda r: r.order, reverse=True)
        for field in _NAMED
        for each in getattr(r, field)
    }
    taken = [
        (Violation(f"{path}.{field}[{i}].name", f"ruleset {owner} has {each.name} already"), owner)
        for path, want in wanted.items()
        for field in _NAMED
        for i, each in enumerate(getattr(want, field))
        if (owner := given[field, each.name]) != want.name
    ]
    _refuse(NameInUse, taken)
    missing = [v for path, want in wanted.items() for v in unknown(want, names, path)]
    missing += [v for path, want in wanted.items() for v in _dynamic_in_bridge(path, want, names)]
    if missing:
        words = "; ".join(v.description for v in missing[:5])
        raise NameUnknown(words, violations=missing)
    changed = {want.name for want in wanted.values()}
    rest = {name: r for name, r in after.items() if name not in changed}
    if rest:
        _check_rest(wanted, rest, names)


def _check_rest(wanted: Mapping[str, Ruleset], rest: Mapping[str, Ruleset], names: Names) -> None:
    for name, r in rest.items():
        lost = unknown(r, names, name)
        if lost:
            raise NameInUse(
                f"ruleset {name} uses what this would take away: {lost[0].description}",
                violations=[Violation(path, lost[0].description) for path in wanted],
                ruleset=name,
            )


def _dynamic_in_bridge(path: str, want: Ruleset, names: Names) -> list[Violation]:
    """A set belongs to one table, and what is added to dynamic ones goes to that of IP rules."""
    return [
        Violation(f"{path}.rules[{i}].{field}", f"{name} is dynamic: not for bridge_forward")
        for i, rule in enumerate(want.rules)
        if rule.hook is Hook.BRIDGE_FORWARD
        for field in ("source_sets", "destination_sets")
        for name in getattr(rule, field)
        if name in names.sets and names.sets[name].dynamic
    ]


def _check_policies(wanted: Mapping[str, Ruleset], after: Mapping[str, Ruleset]) -> None:
    taken = [
        (Violation(f"{path}.{field}", f"ruleset {holder} sets it already"), holder)
        for path, want in wanted.items()
        for field in SET_ONCE
        if getattr(want, field) is not None
        for holder in [_holder(field, want, after)]
        if holder
    ]
    if taken:
        fields = ", ".join(dict.fromkeys(v.field.rpartition(".")[2] for v, _ in taken))
        message = f"{fields} is set by ruleset {taken[0][1]} already"
        raise PolicyInUse(message, violations=[v for v, _ in taken], ruleset=taken[0][1])


def _holder(field: str, want: Ruleset, after: Mapping[str, Ruleset]) -> str:
    holders = (n for n, r in sorted(after.items()) if n != want.name and getattr(r, field))
    return next(holders, "")


def _check_ports(wanted: Mapping[str, Ruleset], after: Mapping[str, Ruleset]) -> None:
    keys = {port_key(f) for want in wanted.values() for f in want.forwards}
    rivals: dict[tuple[int, Protocol, int], list[tuple[str, Forward]]] = {key: [] for key in keys}
    for name, r in sorted(after.items()):
        for forward in r.forwards:
            if port_key(forward) in rivals:
                rivals[port_key(forward)].append((name, forward))
    taken = []
    for path, want in wanted.items():
        for index, forward in enumerate(want.forwards):
            others = ((n, f) for n, f in rivals[port_key(forward)] if n != want.name)
            holder = next((n for n, other in others if collide(forward, other)), None)
            if holder is not None:
                words = f"{forward.protocol.value} {forward.port} is forwarded by ruleset {holder}"
                taken.append((Violation(f"{path}.forwards[{index}].port", words), holder))
    _refuse(PortInUse, taken)


def _refuse(error: type[DomainError], taken: Sequence[tuple[Violation, str]]) -> None:
    if taken:
        message = "; ".join(v.description for v, _ in taken[:5])
        raise error(message, violations=[v for v, _ in taken], ruleset=taken[0][1])
