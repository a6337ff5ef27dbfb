"""Plans of changes to mounts."""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan, canonical, fingerprint
from hostlerd.storage.errors import (
    DeviceBusy,
    FilesystemNotFound,
    LinkMissing,
    MountExists,
    UnitNotOurs,
)
from hostlerd.storage.model.declared import Declared, Units
from hostlerd.storage.model.graph import Graph, Kind, Node
from hostlerd.storage.model.mount import (
    TIMEOUT_S_MOST,
    TYPES,
    WHAT,
    State,
    Unit,
    mount_name,
    option_faults,
    where_fault,
)
from hostlerd.storage.model.mount_steps import SetMount
from hostlerd.storage.model.observed import Mount
from hostlerd.storage.plan.choose import choose_node, is_device, target_of
from hostlerd.storage.plan.in_use import users


@dataclass(frozen=True, slots=True)
class Wanted:
    """A mount that is asked for."""

    where: str
    device: str
    options: tuple[str, ...] = ()
    lasting: bool = True
    required: bool = False
    timeout_s: int = 0


def apply(wanted: Wanted, graph: Graph, units: Units, hidden: int) -> Plan:
    """Mount a device, or change how; `hidden` entries lie in the folder that it would cover."""
    check(wanted)
    node = choose_node(graph, wanted.device)
    unit = _unit(wanted, node, graph)
    ours = _ours(wanted.where, units)
    mounted = units.mounted_at(wanted.where)
    if ours is not None and not _means(ours.what, node):
        raise MountExists(
            f"{wanted.where} is the mount of {ours.what}: delete it before",
            where=wanted.where,
            what=ours.what,
        )
    if mounted is not None and (ours is None or not _is_of(mounted, node)):
        raise _by_hand(wanted.where, mounted)
    before, after = State(ours, mounted is not None), State(unit, is_active=True)
    if before == after:
        return _plan(wanted.where, before, after)
    _refuse_if_built_on(graph, node)
    notices = _notices(wanted.where, node, graph, 0 if mounted is not None else hidden)
    step = SetMount(wanted.where, target_of(node), before, after)
    return _plan(wanted.where, before, after, step, tuple(notices))


def delete(where: str, graph: Graph, units: Units) -> Plan:
    """Unmount, and remove the unit; nothing if there is neither."""
    if why := where_fault(where):
        raise InvalidRequest.of([Violation("where", why)])
    ours, mounted = _ours(where, units), units.mounted_at(where)
    if ours is None and mounted is not None:
        raise _by_hand(where, mounted)
    before = State(ours, mounted is not None)
    if ours is None:
        return _plan(where, before, before)
    node = node_of(graph, ours.what)
    if mounted is not None and (node is None or not _is_of(mounted, node)):
        raise _by_hand(where, mounted)
    step = SetMount(where, None if node is None else target_of(node), before, State())
    return _plan(where, before, State(), step)


def node_of(graph: Graph, what: str) -> Node | None:
    """The device that a link of one of our units means; None if it is not there."""
    return next((one for one in graph.nodes if is_device(one) and _means(what, one)), None)


def link_of(node: Node, asked: str, graph: Graph) -> str:
    """The link by which a unit names a device: by what lies on it, if nothing else has that UUID.

    Raises LinkMissing if there is none that stays the same.
    """
    if asked in node.links and asked.startswith("/dev/disk/by-id/") and WHAT.fullmatch(asked):
        return asked
    content = _content(node)
    holders = [
        one
        for one in graph.nodes
        if is_device(one) and any(each.uuid == content.uuid for each in one.signatures)
    ]
    link = f"/dev/disk/by-uuid/{content.uuid}"
    if content.uuid and WHAT.fullmatch(link) and (len(holders) == 1 or content.type == "btrfs"):
        return link
    for link in sorted(node.links):
        if link.startswith("/dev/disk/by-id/") and WHAT.fullmatch(link):
            return link
    raise LinkMissing(
        f"{node.id} has no name that stays the same: no UUID of its own and no link by-id",
        device=node.id,
    )


def is_remote(graph: Graph, node_id: str) -> bool:
    """Whether a device is a disk of another host, or lies on one."""
    if graph.node(node_id).kind is Kind.NETWORK:
        return True
    return any(is_remote(graph, lower) for lower in graph.lower(node_id))


def check(wanted: Wanted) -> None:
    """Raise InvalidRequest for all that is wrong with a request by itself."""
    faults = [Violation(f"options[{at}]", why) for at, why in option_faults("", wanted.options)]
    if why := where_fault(wanted.where):
        faults.append(Violation("where", why))
    if not 0 <= wanted.timeout_s <= TIMEOUT_S_MOST:
        faults.append(Violation("timeout_seconds", f"must be 0 to {TIMEOUT_S_MOST}"))
    if not wanted.device:
        faults.append(Violation("device", "must name a device"))
    if faults:
        raise InvalidRequest.of(faults)


def _unit(wanted: Wanted, node: Node, graph: Graph) -> Unit:
    content = _content(node)
    if content.usage != "filesystem" or content.type not in TYPES:
        held = ", ".join(one.type for one in node.signatures) or "nothing"
        raise FilesystemNotFound(
            f"{node.id} holds {held}: mounted are {', '.join(TYPES)}", device=node.id
        )
    faults = option_faults(content.type, wanted.options)
    if faults:
        raise InvalidRequest.of([Violation(f"options[{at}]", why) for at, why in faults])
    options = [one for one in wanted.options if one not in ("suid", "dev")]
    options += [f"no{one}" for one in ("suid", "dev") if one not in wanted.options]
    options += [] if wanted.required else ["nofail"]
    options += ["_netdev"] if is_remote(graph, node.id) else []
    return Unit(
        what=link_of(node, wanted.device, graph),
        where=wanted.where,
        type=content.type,
        options=tuple(dict.fromkeys(options)),
        lasting=wanted.lasting,
        timeout_s=wanted.timeout_s,
    )


def _content(node: Node) -> _Signature:
    found = [one for one in node.signatures if one.usage != "partition-table"]
    if len(found) != 1:
        return _NOTHING
    return _Signature(found[0].type, found[0].usage, found[0].uuid)


@dataclass(frozen=True, slots=True)
class _Signature:
    type: str
    usage: str
    uuid: str


_NOTHING = _Signature("", "", "")


def _ours(where: str, units: Units) -> Unit | None:
    """The unit of ours of a place. Raises UnitNotOurs if something else declares it too."""
    declared = units.of_place(where)
    named = [one for one in units.declared if one.by.endswith(f"/{mount_name(where)}")]
    for one in (*declared, *named):
        if one.ours is None:
            raise not_ours(where, one)
    return next((one.ours for one in declared), None)


def not_ours(subject: str, one: Declared) -> UnitNotOurs:
    """The refusal of what something else declares."""
    return UnitNotOurs(
        f"{subject} is declared by {one.by}, which is not Hostler's",
        subject=subject,
        declared_by=one.by,
    )


def _by_hand(where: str, mounted: Mount) -> UnitNotOurs:
    return UnitNotOurs(
        f"{mounted.source} ({mounted.type}) is mounted on {where}, not by a unit of Hostler's",
        subject=where,
        declared_by="",
    )


def _means(what: str, node: Node) -> bool:
    uuid = what.removeprefix("/dev/disk/by-uuid/")
    return what in node.links or any(one.uuid == uuid for one in node.signatures if one.uuid)


def _is_of(mounted: Mount, node: Node) -> bool:
    """Whether a device is what is mounted. A btrfs has a number of its own."""
    if mounted.number == node.number or mounted.source == f"/dev/{node.name}":
        return True
    return mounted.type == "btrfs" and mounted.source in node.links


def _refuse_if_built_on(graph: Graph, node: Node) -> None:
    built = [one for one in users(graph, node.id) if not one.startswith("mounted on ")]
    if built:
        raise DeviceBusy(
            f"{node.id} ({node.name}) is in use: {', '.join(built)}",
            device=node.id,
            used_by=", ".join(built),
        )


def _notices(where: str, node: Node, graph: Graph, hidden: int) -> list[Notice]:
    found = []
    if hidden:
        words = f"{where} has {hidden} entries, which nobody sees while it is mounted over"
        found.append(Notice("MOUNT_HIDES_CONTENT", words, where))
    elsewhere = [
        one.removeprefix("mounted on ")
        for one in users(graph, node.id)
        if one.startswith("mounted on ") and one != f"mounted on {where}"
    ]
    if elsewhere:
        words = f"{node.id} is mounted on {', '.join(elsewhere)} too"
        found.append(Notice("MOUNTED_ELSEWHERE", words, node.id))
    return found


def _plan(
    where: str,
    before: State,
    after: State,
    step: SetMount | None = None,
    notices: tuple[Notice, ...] = (),
) -> Plan:
    return Plan(
        () if step is None else (step,),
        etag=fingerprint([where, before]),
        etag_after=fingerprint([where, after]),
        notices=notices,
        result=after.unit,
        bindings={} if step is None else {"device": canonical(step.device)},
    )
