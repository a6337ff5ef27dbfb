"""Plans that grow an array, compare its copies, and bound how fast that goes."""

from __future__ import annotations

from collections.abc import Sequence

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan, Step
from hostlerd.storage.errors import ArrayBusy, ArrayLevel
from hostlerd.storage.model.array import REDUNDANT, RESHAPED, Array
from hostlerd.storage.model.array_steps import (
    ReshapeArray,
    SetSyncAction,
    SetSyncSpeed,
)
from hostlerd.storage.model.graph import Graph
from hostlerd.storage.plan.array_check import MOST_MEMBERS
from hostlerd.storage.plan.array_choose import Found, find
from hostlerd.storage.plan.array_create import etag, refuse_overlap
from hostlerd.storage.plan.array_members import adding
from hostlerd.storage.plan.choose import choose_node

SPEED_MOST_KIB = 1 << 30


def grow(
    words: str,
    raid_disks: int,
    devices: Sequence[str],
    whole_size: bool,
    arrays: Sequence[Array],
    graph: Graph,
) -> Plan:
    """Use more devices, after `devices` are added, or all of each; nothing if it does.

    What stands still in the middle of that goes on.
    """
    found = find(arrays, graph, words)
    array = found.array
    _check_growth(found, raid_disks, whole_size)
    nodes = [choose_node(graph, one, f"devices[{i}]") for i, one in enumerate(devices)]
    refuse_overlap(graph, nodes)
    fresh = [one for one in nodes if array.member(one.name) is None]
    added = tuple(adding(found, node, True, graph) for node in fresh)
    if raid_disks > array.raid_disks:
        _refuse_too_few(found, raid_disks, len(fresh))
    steps: tuple[Step, ...] = added or found.resumed()
    if raid_disks > array.raid_disks or (whole_size and _has_room(found, graph)):
        _refuse_unless_idle(array)
        if array.stands_still:
            words = f"{array.label or array.uuid} stands still in the middle of something else"
            raise ArrayBusy(f"{words}: ask for that again before", array=array.uuid)
        steps += (ReshapeArray(found.target, array.uuid, raid_disks, whole_size),)
    return Plan(
        steps,
        etag=etag(array),
        result=array,
        bindings={"array": found.target, "devices": [one.device for one in added]},
    )


def _check_growth(found: Found, raid_disks: int, whole_size: bool) -> None:
    array = found.array
    if bool(raid_disks) == whole_size:
        raise InvalidRequest.of([Violation("raid_disks", "either that, or whole_size")])
    if raid_disks and not array.raid_disks <= raid_disks <= MOST_MEMBERS:
        words = f"must be {array.raid_disks}, as many as now, to {MOST_MEMBERS}: none is shrunk"
        raise InvalidRequest.of([Violation("raid_disks", words)])
    far = array.level == "raid10" and not array.layout_words.startswith("n")
    if array.level not in RESHAPED or (far and raid_disks > array.raid_disks):
        words = f"{array.level} {array.layout_words}".rstrip()
        raise ArrayLevel(f"{words} takes no more devices than it has", array=array.uuid)


def _refuse_too_few(found: Found, raid_disks: int, fresh: int) -> None:
    array = found.array
    spares = sum(one.role == "spare" for one in array.members) + fresh
    if array.degraded:
        raise ArrayBusy("it lacks a device: replace that before", array=array.uuid)
    if raid_disks - array.raid_disks > spares:
        lacking = raid_disks - array.raid_disks - spares
        raise InvalidRequest.of([Violation("devices", f"needs {lacking} more")])


def _has_room(found: Found, graph: Graph) -> bool:
    """Whether each member has room beyond what is used of it; mdadm says how much of that."""
    array = found.array
    sizes = {node.name: node.size_bytes for node in graph.nodes if node.number}
    used = array.component_bytes + array.data_offset_bytes
    chunk = max(array.chunk_bytes, 64 << 10)
    rooms = [sizes.get(one.name, 0) - used for one in array.members if not one.is_faulty]
    return bool(rooms) and min(rooms) >= chunk


def _refuse_unless_idle(array: Array) -> None:
    if not array.sync.is_idle:
        words = f"{array.label or array.uuid} is busy with {array.sync.action}"
        raise ArrayBusy(words, array=array.uuid, action=array.sync.action)


def compare(words: str, action: str, arrays: Sequence[Array], graph: Graph) -> Plan:
    """Have md read all copies and compare ("check"), or write what differs anew too ("repair")."""
    found = find(arrays, graph, words)
    array = found.array
    if array.level not in REDUNDANT:
        words = f"{array.level} has no copies to compare"
        raise ArrayLevel(words, array=array.uuid)
    steps: tuple[Step, ...] = ()
    if array.sync.action != action:
        _refuse_unless_idle(array)
        steps = (SetSyncAction(found.target, array.uuid, action),)
    return Plan(steps, etag=etag(array), result=array)


def speed(words: str, least_kib: int, most_kib: int, arrays: Sequence[Array], graph: Graph) -> Plan:
    """Bound how fast an array is synchronised, in KiB/s of each device; 0: as the host does."""
    found = find(arrays, graph, words)
    faults = [
        Violation(field, f"must be 0 to {SPEED_MOST_KIB} KiB/s")
        for field, kib in (("least", least_kib), ("most", most_kib))
        if not 0 <= kib <= SPEED_MOST_KIB
    ]
    if least_kib and most_kib and least_kib > most_kib:
        faults.append(Violation("least", "must not be above the most"))
    if faults:
        raise InvalidRequest.of(faults)
    array = found.array
    before = (array.speed.least_kib or 0, array.speed.most_kib or 0)
    steps: tuple[Step, ...] = ()
    if before != (least_kib, most_kib):
        steps = (SetSyncSpeed(found.target, array.uuid, least_kib, most_kib, *before),)
    return Plan(steps, etag=etag(array), result=array)
