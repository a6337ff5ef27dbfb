"""What LVM has now, held against what the plan saw, under the locks of all devices of a group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from hostlerd.storage.model.lvm import Group, Volume, volume_name_fault
from hostlerd.storage.model.target import Target, signature_words
from hostlerd.storage.worker import identity, lvm_tool, tools, use
from hostlerd.storage.worker.grammar import read_target
from hostlerd.storage.worker.identity import Device
from hostlerd.storage.worker.operation import Request
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools


def look(request: Request, _: Tools) -> dict[str, Any]:
    """What LVM reports of the groups on some devices, as they are by now."""
    with _opened([read_target(one) for one in request["devices"]]) as devices:
        return {"reports": lvm_tool.report(devices)}


@contextmanager
def _opened(targets: Sequence[Target]) -> Iterator[list[Device]]:
    """Those that are still there, without their locks: nothing is changed."""
    with ExitStack() as stack:
        found = []
        for one in targets:
            try:
                found.append(stack.enter_context(identity.opened(one)))
            except Refused as refused:
                if refused.reason not in ("DEVICE_GONE", "DEVICE_CHANGED"):
                    raise
        yield found


def proven(request: Request) -> Group:
    """The group as it is now. Raises Refused unless it is as the plan saw it."""
    name, uuid, seqno = (request[key] for key in ("group", "uuid", "seqno"))
    found = lvm_tool.groups(request.devices["devices"])
    group = next((one for one in found if one.uuid == uuid), None)
    if group is None:
        raise _changed(request, "is on these devices no more")
    if group.name != name:
        raise _changed(request, f"is called {group.name} by now")
    if sum(one.name == name for one in found) > 1:
        raise _changed(request, "shares its name with another one")
    if seqno not in (0, group.seqno):
        raise _changed(request, f"has been changed since: it counts {group.seqno}, not {seqno}")
    # Once more asked to do without what is missing, it may have done so.
    is_less = seqno == 0 and group.missing < request["missing"]
    if group.missing != request["missing"] and not is_less:
        raise _changed(request, f"lacks {group.missing} devices now, and not {request['missing']}")
    if group.is_foreign:
        raise _changed(request, "is exported, or a cluster's")
    return group


def has_ended(request: Request) -> bool:
    """Whether a group that was to be ended has been, where that is asked for once more."""
    found = lvm_tool.groups(request.devices["devices"]) if request["seqno"] == 0 else ()
    return request["seqno"] == 0 and all(one.uuid != request["uuid"] for one in found)


def volume(request: Request, group: Group) -> Volume:
    """The volume that a request names. Raises Refused unless it is the one that the plan saw."""
    found = group.volume(str(request["volume"]))
    if found is None or found.uuid != request["volume_uuid"]:
        raise _changed(request, f"has another {request['volume']} now, or none")
    return found


def refuse_name(group: Group, name: str) -> None:
    """Raise Refused unless a new volume of a group may be called so."""
    if why := volume_name_fault(group.name, name):
        raise Refused("INVALID", f"name: {why}", [("name", why)])
    if group.volume(name) is not None:
        raise Refused("VOLUME_EXISTS", f"there is a {group.name}/{name}", group=group.uuid)


def device_of(request: Request, number: str) -> Device:
    """The device of a place, one of the group's. Raises Refused."""
    asked = (read_target(one).place for one in request["devices"])
    for place, device in zip(asked, request.devices["devices"], strict=True):
        if number in (place, device.target.number):
            return device
    raise Refused("INVALID", f"{number} is no device of {request['group']}")


def path_of(request: Request, number: str) -> str:
    """The node of it. Raises Refused."""
    return device_of(request, number).path


def refuse_unless_free(target: Target, request: Request, *, is_kept: bool) -> str:
    """Raise Refused if a volume's device is in use or holds something else than the plan saw.

    It is open no longer than that: LVM refuses what anybody has open. Answers under which name the
    places that tell what it holds were saved, if they are to be.
    """
    with identity.opened(target) as device:
        device.check()
        use.refuse_if_used(device, tools.probe)
        found = signature_words(tools.signatures(device.path))
        if found != target.signatures:
            told, planned = (", ".join(words) or "nothing" for words in (found, target.signatures))
            raise Refused(
                "SIGNATURES_CHANGED",
                f"{target.id} ({target.name}) holds {told}, where the plan saw {planned}",
                device=target.id,
            )
        return request.store.save(device, request.operation) if is_kept else ""


def _changed(request: Request, words: str) -> Refused:
    return Refused("GROUP_CHANGED", f"group {request['group']} {words}", group=str(request["uuid"]))
