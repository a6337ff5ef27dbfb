"""Plans that make arrays, and those that end them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan, Step, fingerprint
from hostlerd.storage.errors import (
    ArrayExists,
    ArrayNotFound,
    DeviceBusy,
    DeviceTooSmall,
)
from hostlerd.storage.model.array import MEMBER_SIGNATURE, NAME, Array, Copies
from hostlerd.storage.model.array_steps import (
    AssembleArray,
    CreateArray,
    DiscardArray,
    StopArray,
    ZeroMember,
)
from hostlerd.storage.model.graph import Graph, Kind, Node
from hostlerd.storage.plan.array_check import Wanted, check
from hostlerd.storage.plan.array_choose import Found, find, label_of, members_of, plain_uuid
from hostlerd.storage.plan.choose import choose_node, target_of
from hostlerd.storage.plan.in_use import refuse_if_used, users

LEAST_BYTES = 16 << 20
"""Below that, superblock, bitmap and the room for a reshape leave next to nothing."""
_WASTED_PERCENT = 2


def create(wanted: Wanted, arrays: Sequence[Array], graph: Graph) -> Plan:
    """Make an array; nothing if that very one is there."""
    check(wanted)
    nodes = [choose_node(graph, one, f"devices[{i}]") for i, one in enumerate(wanted.devices)]
    spares = [choose_node(graph, one, f"spares[{i}]") for i, one in enumerate(wanted.spares)]
    refuse_overlap(graph, [*nodes, *spares])
    there = next((one for one in arrays if one.label == wanted.name), None)
    if there is not None:
        if _is_wanted(there, wanted, nodes, spares):
            return Plan(etag=etag(there), etag_after=etag(there), result=there)
        raise ArrayExists(
            f"there is an array of that name, which is another one: {there.uuid}",
            array=there.uuid,
        )
    for node in (*nodes, *spares):
        refuse_if_used(graph, node)
        if node.size_bytes < LEAST_BYTES:
            raise DeviceTooSmall(
                f"{node.id} has {node.size_bytes} bytes: a member has at least {LEAST_BYTES}",
                device=node.id,
                least_bytes=LEAST_BYTES,
            )
    step = CreateArray(
        name=wanted.name,
        level=wanted.level,
        devices=tuple(target_of(node) for node in nodes),
        spares=tuple(target_of(node) for node in spares),
        layout=wanted.layout,
        chunk_bytes=wanted.chunk_bytes,
        bitmap=wanted.bitmap,
        assume_clean=wanted.assume_clean,
        write_mostly=wanted.write_mostly,
    )
    return Plan(
        (step,),
        etag=fingerprint([]),
        notices=tuple(_notices(wanted, nodes, graph)),
        bindings={"devices": (*step.devices, *step.spares)},
    )


def refuse_overlap(graph: Graph, nodes: Sequence[Node]) -> None:
    """Raise InvalidRequest if a device is named twice, or with a partition of it."""
    parents = {edge.upper: edge.lower for edge in graph.edges if edge.role == "partition of"}
    seen: dict[str, Node] = {}
    for node in nodes:
        if node.id in seen:
            raise InvalidRequest.of([Violation("devices", f"{node.id} is named twice")])
        seen[node.id] = node
    for node in nodes:
        if (parent := parents.get(node.id)) in seen:
            words = f"{node.id} is a partition of {parent}, which is named too"
            raise InvalidRequest.of([Violation("devices", words)])


def _is_wanted(there: Array, wanted: Wanted, nodes: Sequence[Node], spares: Sequence[Node]) -> bool:
    """Whether an array is what is asked for; what was left to mdadm is as it is."""
    if (there.level, there.raid_disks) != (wanted.level, len(nodes)):
        return False
    if wanted.layout and _copies(wanted.layout) != _copies(there.layout_words):
        return False
    if wanted.chunk_bytes and wanted.chunk_bytes != there.chunk_bytes:
        return False
    names = {one.name for one in there.members if not one.is_faulty}
    return names == {node.name for node in (*nodes, *spares)}


def _copies(words: str) -> Copies | str:
    return Copies.parse(words) or words


def _notices(wanted: Wanted, nodes: Sequence[Node], graph: Graph) -> Iterator[Notice]:
    sizes = [node.size_bytes for node in nodes]
    wasted = sum(size - min(sizes) for size in sizes)
    if wanted.level != "raid0" and 100 * wasted > _WASTED_PERCENT * sum(sizes):
        words = f"the smallest device decides: {wasted} bytes of the others are not used"
        yield Notice("SIZE_WASTED", words, wanted.name)
    parents = {edge.upper: edge.lower for edge in graph.edges if edge.role == "partition of"}
    disks = [parents.get(node.id, node.id) for node in nodes]
    for disk in sorted({one for one in disks if disks.count(one) > 1}):
        yield Notice("SAME_DISK", f"several members lie on {disk} and go with it", disk)
    if wanted.assume_clean:
        words = "copies that differ now will be read as if they were alike; check it before use"
        yield Notice("ASSUMED_CLEAN", words, wanted.name)


def etag(array: Array) -> str:
    """What changes with an array's make-up, and not with how far a synchronisation is."""
    members = sorted((one.name, one.slot, one.role) for one in array.members)
    return fingerprint([array.uuid, array.level, array.raid_disks, array.component_bytes, members])


def _refuse_if_used(found: Found, graph: Graph) -> None:
    if used := users(graph, found.node.id):
        raise DeviceBusy(
            f"{found.node.id} ({found.node.name}) is in use: {', '.join(used[:8])}",
            device=found.node.id,
            used_by=", ".join(used[:64]),
        )


def stop(words: str, arrays: Sequence[Array], graph: Graph) -> Plan:
    """Stop an array; nothing if only its members are there."""
    try:
        found = find(arrays, graph, words)
    except ArrayNotFound:
        if _members_called(graph, words):
            return Plan()
        raise
    _refuse_if_used(found, graph)
    array = found.array
    members = tuple(target_of(node) for node in _members(found, graph))
    degraded = array.degraded > 0
    step = StopArray(found.target, array.uuid, _name(array.label, array.uuid), members, degraded)
    return Plan((step,), etag=etag(array), bindings={"array": step.array})


def assemble(words: str, degraded: bool, arrays: Sequence[Array], graph: Graph) -> Plan:
    """Start the array that devices of this host are of; nothing if it has been started."""
    try:
        found = find(arrays, graph, words)
    except ArrayNotFound:
        nodes = _members_called(graph, words)
        if not nodes:
            raise
    else:
        if found.array.state not in ("inactive", "clear"):
            return Plan(etag=etag(found.array), result=found.array)
        nodes = _members(found, graph)
    uuid = next(one.uuid for one in nodes[0].signatures if plain_uuid(one.uuid))
    name = _name(label_of(nodes), uuid)
    step = AssembleArray(uuid, name, tuple(target_of(node) for node in nodes), degraded)
    return Plan((step,), bindings={"devices": step.devices})


def delete(words: str, arrays: Sequence[Array], graph: Graph) -> Plan:
    """Stop an array for good, and zero the superblocks of its members."""
    try:
        found = find(arrays, graph, words)
    except ArrayNotFound:
        nodes = _members_called(graph, words)
        if not nodes:
            raise
        for node in nodes:
            refuse_if_used(graph, node)
        steps: tuple[Step, ...] = tuple(ZeroMember(target_of(node)) for node in nodes)
        return Plan(steps, bindings={"devices": [target_of(node) for node in nodes]})
    _refuse_if_used(found, graph)
    nodes = _members(found, graph)
    targets = tuple(target_of(node) for node in nodes)
    discard = DiscardArray(found.target, found.array.uuid)
    return Plan(
        (discard, *(ZeroMember(one) for one in targets)),
        etag=etag(found.array),
        bindings={"array": discard.array, "devices": targets},
    )


def _name(label: str, uuid: str) -> str:
    """What an array is called when it is started: others give names that are not given here."""
    return label if NAME.fullmatch(label) else plain_uuid(uuid)[:8]


def _members(found: Found, graph: Graph) -> tuple[Node, ...]:
    """The devices that an array is built on now."""
    names = {one.name for one in found.array.members}
    return tuple(
        node
        for node in graph.nodes
        if node.number and node.name in names and node.kind is not Kind.MOUNT
    )


def _members_called(graph: Graph, words: str) -> tuple[Node, ...]:
    """The members of an array that has not been started, by its UUID, id or name."""
    uuid = words.removeprefix("md-")
    if plain_uuid(uuid):
        return members_of(graph, uuid)
    named = [
        plain_uuid(one.uuid)
        for node in graph.nodes
        for one in node.signatures
        if one.type == MEMBER_SIGNATURE and one.label and one.label.rpartition(":")[2] == words
    ]
    return members_of(graph, named[0]) if len(set(named)) == 1 else ()
