"""What a ruleset may not do because of the host as it is, or of the other rulesets."""

from __future__ import annotations

from hostlerd.firewall.errors import PolicyInUse, PortInUse, TooMany
from hostlerd.firewall.model.document import collide, port_key
from hostlerd.firewall.model.ruleset import Forward, Protocol, Ruleset
from hostlerd.firewall.model.state import State
from hostlerd.runtime.errors import InvalidRequest, Violation

RULESETS_MOST = 1000
# Of all rulesets together: what nft and the kernel take in seconds, not in minutes.
ENTRIES_MOST = 50_000


def check(want: Ruleset, state: State) -> None:
    """Raise InvalidRequest, PortInUse, PolicyInUse or TooMany, each with all that is in the way."""
    others = {n: r for n, r in state.rulesets.items() if n != want.name}
    _check_uplinks(want, state)
    _check_room(want, others)
    _check_policies(want, others)
    _check_ports(want, others)


def _check_uplinks(want: Ruleset, state: State) -> None:
    faults = [
        Violation(f"ruleset.masquerades[{i}].uplink", f"the host has no link {m.uplink}")
        for i, m in enumerate(want.masquerades)
        if m.uplink and m.uplink not in state.links
    ]
    if faults:
        raise InvalidRequest.of(faults)


def _check_room(want: Ruleset, others: dict[str, Ruleset]) -> None:
    if len(others) >= RULESETS_MOST:
        raise TooMany(f"the host has {len(others)} rulesets already", most=RULESETS_MOST)
    entries = sum(_size(r) for r in (want, *others.values()))
    if entries > ENTRIES_MOST:
        raise TooMany(
            f"all rulesets together would have {entries} entries; {ENTRIES_MOST} are allowed",
            most=ENTRIES_MOST,
        )


def _size(r: Ruleset) -> int:
    return len(r.rules) + len(r.forwards) + len(r.masquerades) + len(r.isolated_networks)


def _check_policies(want: Ruleset, others: dict[str, Ruleset]) -> None:
    taken: dict[str, str] = {}
    for field in ("input_policy", "forward_policy"):
        if getattr(want, field) is None:
            continue
        for name, other in sorted(others.items()):
            if getattr(other, field) is not None:
                taken.setdefault(field, name)
    if taken:
        faults = [
            Violation(f"ruleset.{f}", f"ruleset {name} sets it already")
            for f, name in taken.items()
        ]
        first = next(iter(taken.values()))
        message = f"{', '.join(taken)} is set by ruleset {first} already"
        raise PolicyInUse(message, violations=faults, ruleset=first)


def _check_ports(want: Ruleset, others: dict[str, Ruleset]) -> None:
    taken: dict[tuple[int, Protocol, int], list[tuple[str, Forward]]] = {
        port_key(f): [] for f in want.forwards
    }
    for name, other in sorted(others.items()):
        for forward in other.forwards:
            if port_key(forward) in taken:
                taken[port_key(forward)].append((name, forward))
    faults, holders = [], []
    for index, forward in enumerate(want.forwards):
        rivals = taken[port_key(forward)]
        holder = next((name for name, rival in rivals if collide(forward, rival)), None)
        if holder is not None:
            words = f"{forward.protocol.value} {forward.port} is forwarded by ruleset {holder}"
            faults.append(Violation(f"ruleset.forwards[{index}].port", words))
            holders.append(holder)
    if faults:
        message = "; ".join(f.description for f in faults[:5])
        raise PortInUse(message, violations=faults, ruleset=holders[0])
