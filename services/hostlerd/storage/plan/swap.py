"""Plans of changes to what is swapped to."""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan, canonical, fingerprint
from hostlerd.storage.errors import FilesystemNotFound, SwapNeeded, UnitNotOurs
from hostlerd.storage.model.declared import ActiveSwap, Units
from hostlerd.storage.model.graph import Graph, Node
from hostlerd.storage.model.mount import PRIORITY_MOST, State, Unit, swap_fits
from hostlerd.storage.model.mount_steps import SetSwap
from hostlerd.storage.model.observed import Observed
from hostlerd.storage.plan.choose import choose_node, target_of
from hostlerd.storage.plan.mount import is_remote, link_of, not_ours
from hostlerd.storage.plan.resolve import named


@dataclass(frozen=True, slots=True)
class Wanted:
    """A swap area that is to be used. `priority` None: the kernel gives one."""

    device: str
    priority: int | None = None
    discard: bool = False
    lasting: bool = True


def apply(wanted: Wanted, graph: Graph, seen: Observed, units: Units) -> Plan:
    """Swap to an area, or change how; nothing if it is so."""
    if wanted.priority is not None and not 0 <= wanted.priority <= PRIORITY_MOST:
        words = f"must be 0 to {PRIORITY_MOST}"
        raise InvalidRequest.of([Violation("priority", words)])
    node = choose_node(graph, wanted.device)
    held = [one.type for one in node.signatures if one.usage != "partition-table"]
    if held != ["swap"]:
        raise FilesystemNotFound(
            f"{node.id} holds {', '.join(held) or 'nothing'}, and no swap area: make one before",
            device=node.id,
        )
    before = _before(node, seen, units)
    what = _what(before, node, wanted, graph)
    unit = Unit(what, "", "swap", _options(wanted, node, graph), wanted.lasting)
    after = State(unit, is_active=True)
    if before.is_active and before.unit is not None and before.unit.options != unit.options:
        # Another priority is had by swapping off and on.
        _refuse_if_needed(node, units)
    return _plan(node, before, after)


def delete(device: str, graph: Graph, seen: Observed, units: Units) -> Plan:
    """Swap to an area no more, and remove its unit; nothing if there is neither."""
    node = choose_node(graph, device)
    before = _before(node, seen, units)
    if before.is_active:
        _refuse_if_needed(node, units)
    return _plan(node, before, State())


def _what(before: State, node: Node, wanted: Wanted, graph: Graph) -> str:
    # Its name is made of it: another link would be another unit.
    return before.unit.what if before.unit is not None else link_of(node, wanted.device, graph)


def _options(wanted: Wanted, node: Node, graph: Graph) -> tuple[str, ...]:
    found = [] if wanted.priority is None else [f"pri={wanted.priority}"]
    found += ["discard"] if wanted.discard else []
    found += ["nofail", *(["_netdev"] if is_remote(graph, node.id) else [])]
    return tuple(found)


def active(node: Node, units: Units) -> ActiveSwap | None:
    """What the kernel says of an area, if it is used."""
    return next((one for one in units.swaps if one.number and one.number == node.number), None)


def _before(node: Node, seen: Observed, units: Units) -> State:
    """What there is of an area. Raises UnitNotOurs if it is not Hostler's."""
    names = {f"/dev/disk/by-uuid/{one.uuid}" for one in node.signatures if one.uuid}
    found = [
        one
        for one in units.declared
        if one.type == "swap"
        and (one.what in names or node.name in {d.name for d in named(seen, one.what)})
    ]
    for one in found:
        if one.ours is None:
            raise not_ours(node.id, one)
    used = active(node, units)
    if used is not None and not found:
        raise UnitNotOurs(
            f"{node.id} is swapped to, not by a unit of Hostler's", subject=node.id, declared_by=""
        )
    return State(found[0].ours if found else None, used is not None)


def _refuse_if_needed(node: Node, units: Units) -> None:
    used = active(node, units)
    if used is None:
        return
    others = sum(one.size_bytes - one.used_bytes for one in units.swaps if one != used)
    if not swap_fits(used.used_bytes, units.available_bytes, others):
        raise SwapNeeded(
            f"{node.id} has {used.used_bytes} bytes in use, and {units.available_bytes} of memory "
            f"and {others} of other areas are free",
            device=node.id,
            used_bytes=used.used_bytes,
        )


def _plan(node: Node, before: State, after: State) -> Plan:
    unit = after.unit or before.unit
    if before == after or unit is None:
        etag = fingerprint([node.id, before])
        return Plan(etag=etag, etag_after=etag, result=after.unit)
    step = SetSwap(unit.what, target_of(node), before, after)
    return Plan(
        (step,),
        etag=fingerprint([node.id, before]),
        etag_after=fingerprint([node.id, after]),
        result=after.unit,
        bindings={"device": canonical(step.device)},
    )
