"""Mounts and swap areas: their units, started and seen, or all put back as it was.

The worker mounts nothing by itself: systemd does, so that what is mounted now is mounted as it will
be at the next boot.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hostlerd.privileged import refused
from hostlerd.privileged.grammar import Check, array, flag, record, text, whole
from hostlerd.privileged.refused import Fault
from hostlerd.storage.model.mount import (
    TIMEOUT_S_MOST,
    State,
    Unit,
    mount_name,
    swap_fits,
    swap_name,
    unit_faults,
)
from hostlerd.storage.worker import holders, mount_point, sysfs, tools
from hostlerd.storage.worker.grammar import WORDS, target
from hostlerd.storage.worker.identity import Device
from hostlerd.storage.worker.operation import Operation, Request
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools
from hostlerd.storage.worker.units import Kept, Units
from hostlerd.storage.worker.use import number_of, plain

# systemd reads all units at once, and folders are shared: one change after the other.
_ONE_AT_A_TIME = threading.Lock()
_WAIT_S = 600.0
_PER_MOUNT = frozenset(("nosuid", "nodev", "noexec"))


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is brought up: a mount or a swap area."""

    name: str
    """Of its unit."""
    where: str
    """Empty for a swap area."""
    device: Device | None
    units: Units
    tools: Tools

    @property
    def proven(self) -> Device:
        """The device. Raises Refused if it is not there."""
        if self.device is None:
            raise Refused("DEVICE_GONE", f"the device of {self.name} is not there")
        return self.device

    def is_active(self) -> bool:
        """Whether the device is mounted there, or swapped to. Raises Refused for another one."""
        if not self.where:
            return _swap_line(self.device) is not None
        found = _mounted(self.where)
        if found is None:
            return False
        if self.device is not None and not _is_of(found, self.device):
            words = f"{found.source} is mounted on {self.where}, and not {self.device.target.id}"
            raise Refused("UNIT_NOT_OURS", words, declared_by="")
        return True


def _set(units: Units, named: Callable[[Request], str], request: Request, tools_: Tools) -> Any:
    before, after = _state(request["before"]), _state(request["after"])
    where = str(request["where"] or "")
    device = request.devices["device"][0] if request.devices["device"] else None
    subject = _Subject(named(request), where, device, units, tools_)
    _refuse_faults(subject, before, after)
    if not _ONE_AT_A_TIME.acquire(timeout=_WAIT_S):
        raise Refused("DEVICE_LOCKED", "another mount takes its time", device=subject.name)
    try:
        _change(subject, before, after)
    finally:
        _ONE_AT_A_TIME.release()
    return {}


def _refuse_faults(subject: _Subject, before: State, after: State) -> None:
    faults: list[Fault] = []
    for word, state in (("before", before), ("after", after)):
        if state.unit is None:
            continue
        faults += [(f"{word}.unit.{field}", why) for field, why in unit_faults(state.unit)]
        if not faults and (state.unit.where, state.unit.name) != (subject.where, subject.name):
            faults.append((f"{word}.unit", "is of another place"))
    if after.is_active and after.unit is None:
        faults.append(("after", "must have a unit to be brought up"))
    if faults:
        raise Refused("INVALID", "; ".join(f"{f}: {why}" for f, why in faults[:5]), faults)
    if after.is_active:
        _ = subject.proven


def _change(subject: _Subject, before: State, after: State) -> None:
    """Bring it from what it is to what is wanted, or back to what it is."""
    had = subject.units.read(subject.name)
    if had is not None and had.unit not in (before.unit, after.unit):
        words = f"{subject.name} is another one than the plan saw"
        raise Refused("UNIT_CHANGED", words, unit=subject.name)
    was_active = subject.is_active()
    if had is None and was_active:
        words = f"{subject.name} is there, and not by a unit of Hostler's"
        raise Refused("UNIT_NOT_OURS", words, declared_by="")
    if (had.unit if had else None) == after.unit and was_active == after.is_active:
        return
    try:
        _forward(subject, had, was_active, after)
    except (refused.Refused, OSError) as cause:
        _back(subject, had, was_active, after, cause)
        raise


def _forward(subject: _Subject, had: Kept | None, was_active: bool, after: State) -> None:
    """Do it. What a failure has brought up is brought down again."""
    new, anew = after.unit, False
    if was_active and after.is_active and not subject.where:
        # A swap area takes options only as it is taken into use.
        anew = had is not None and _differ(had.unit, new)
    if was_active and (anew or not after.is_active):
        _stop(subject, had)
    # Which folders are made is on record as long as they may be there, also after a kill.
    made, had_made = "", had.made if had is not None else ""
    if new is not None and after.is_active and not was_active:
        _refuse_other_link(new.what, subject.proven)
        made = mount_point.missing(subject.where) if subject.where else ""
    elif new is None:
        mount_point.unmake(subject.where, had_made)
    try:
        kept = Kept(new, made or had_made) if new is not None else None
        subject.units.put(subject.name, kept)
        if made:
            mount_point.make(subject.where)
        subject.units.reload(subject.tools)
        if after.is_active and new is not None:
            _up(subject, had.unit if had is not None else None, new, was_active and not anew)
    except (refused.Refused, OSError):
        if not was_active:
            _quietly_down(subject)
            mount_point.unmake(subject.where, made)
        raise


def _up(subject: _Subject, old: Unit | None, new: Unit, was_active: bool) -> None:
    """Start what is not there, or have it take other options; then see that it is there."""
    device = subject.proven
    if not was_active:
        subject.units.start(subject.tools, subject.name)
    elif subject.where and _differ(old, new):
        subject.units.remount(subject.tools, subject.name)
    if not subject.where:
        if _swap_line(device) is None:
            raise Refused("MOUNT_FAILED", f"{device.target.id} is not swapped to")
        return
    found = _mounted(subject.where)
    if found is None or not _is_of(found, device):
        there = f"{found.source} is" if found is not None else "nothing is"
        words = f"{there} mounted on {subject.where}, and not {device.target.id}"
        raise Refused("MOUNT_FAILED", words, device=device.target.id)
    lacking = (_PER_MOUNT & set(new.options)) - found.options
    if "ro" in new.options and "ro" not in found.options | found.super_options:
        lacking |= {"ro"}
    if lacking:
        words = f"{subject.where} is mounted without {', '.join(sorted(lacking))}"
        raise Refused("MOUNT_FAILED", words, device=device.target.id)


def _differ(old: Unit | None, new: Unit | None) -> bool:
    return (old.options if old is not None else ()) != (new.options if new is not None else ())


def _stop(subject: _Subject, had: Kept | None) -> None:
    """Unmount what nobody uses, or swap off what memory can hold. Raises Refused."""
    if subject.where:
        _refuse_if_held(subject)
    elif subject.device is not None:
        _refuse_if_needed(subject.device)
    if had is not None and had.unit.lasting:
        subject.units.unwanted(subject.name)
        subject.units.reload(subject.tools)
    _stop_unit(subject)


def _stop_unit(subject: _Subject) -> None:
    try:
        subject.units.stop(subject.tools, subject.name)
    except refused.Refused:
        if subject.where:
            _refuse_if_held(subject)
        raise
    if subject.is_active():
        if subject.where:
            _refuse_if_held(subject)
        raise Refused("MOUNT_FAILED", f"{subject.name} is stopped, and it is still there")


def _refuse_if_held(subject: _Subject) -> None:
    found = holders.holders(subject.where)
    required = subject.units.required_by(subject.tools, subject.name)
    found += [f"{one} requires it" for one in required]
    if found:
        words = f"{subject.where} is in use: {', '.join(found[: holders.TOLD_MOST])}"
        raise Refused("MOUNT_BUSY", words, used_by=", ".join(found[: 4 * holders.TOLD_MOST]))


def _back(
    subject: _Subject,
    had: Kept | None,
    was_active: bool,
    after: State,
    cause: refused.Refused | OSError,
) -> None:
    """Put back the unit, and what it had brought up. Raises Refused with both reasons."""
    try:
        subject.units.put(subject.name, had)
        subject.units.reload(subject.tools)
        is_active = subject.is_active()
        if had is not None and was_active and not is_active:
            if subject.where:
                mount_point.make(subject.where)
            subject.units.start(subject.tools, subject.name)
        elif had is not None and was_active and subject.where and _differ(had.unit, after.unit):
            # It may have taken the other options.
            subject.units.remount(subject.tools, subject.name)
        elif is_active and not was_active:
            _stop_unit(subject)
    except (refused.Refused, OSError) as e:
        words = f"{cause}; then {subject.name} could not be put back: {e}"
        raise Refused("ROLLBACK_FAILED", words, unit=subject.name) from e


def _quietly_down(subject: _Subject) -> None:
    """Bring down what was brought up by mistake; whether it is gone is looked at afterwards."""
    with suppress(refused.Refused, OSError):
        subject.units.stop(subject.tools, subject.name)


def _refuse_other_link(what: str, device: Device) -> None:
    """Raise Refused unless the link of a unit leads to the device that is meant."""
    if number_of(what) != device.target.number:
        there = os.path.realpath(what) if os.path.lexists(what) else "nothing"
        words = f"{what} leads to {there}, and not to {device.target.name}"
        raise Refused("LINK_MISSING", words, device=device.target.id)


@dataclass(frozen=True, slots=True)
class _Mounted:
    number: str
    source: str
    type: str
    options: frozenset[str]
    super_options: frozenset[str]


def _mounted(where: str) -> _Mounted | None:
    """What is mounted there; the last one covers the others. Source: proc_pid_mountinfo(5)."""
    found = None
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        if plain(fields[4]) == where:
            kind, source, above = fields[fields.index("-", 6) + 1 :][:3]
            options, above_options = (frozenset(each.split(",")) for each in (fields[5], above))
            found = _Mounted(fields[2], plain(source), kind, options, above_options)
    return found


def _is_of(found: _Mounted, device: Device) -> bool:
    number = device.target.number
    if found.number == number or number_of(found.source) == number:
        return True
    # Of a btrfs of several devices the kernel tells one.
    return found.type == "btrfs" and [
        one.uuid for one in tools.signatures(found.source) if one.type == "btrfs"
    ] == [word.split(" ")[1] for word in device.target.signatures if word.startswith("btrfs ")]


def _swap_line(device: Device | None) -> tuple[int, int, int] | None:
    """Size, used bytes and what is free in other areas, if the device is swapped to."""
    if device is None:
        return None
    own, free = None, 0
    for line in Path("/proc/swaps").read_text().splitlines()[1:]:
        path, _, size, used = line.split()[:4]
        if number_of(plain(path)) == device.target.number:
            own = int(size) << 10, int(used) << 10
        else:
            free += int(size) - int(used) << 10
    return (*own, free) if own is not None else None


def _refuse_if_needed(device: Device) -> None:
    line = _swap_line(device)
    said = sysfs.text(Path("/proc/meminfo"))
    found = re.search(r"^MemAvailable: +([0-9]+) kB$", said, re.MULTILINE)
    available = int(found[1]) << 10 if found is not None else 0
    if line is not None and not swap_fits(line[1], available, line[2]):
        words = (
            f"{device.target.id} has {line[1]} bytes in use, and {available} of memory and "
            f"{line[2]} of other areas are free"
        )
        raise Refused("SWAP_NEEDED", words, device=device.target.id, used_bytes=str(line[1]))


def _state(value: Mapping[str, Any]) -> State:
    unit = value["unit"]
    if unit is not None:
        unit = Unit(**{**unit, "options": tuple(unit["options"])})
    return State(unit, value["is_active"])


def _nullable(check: Check) -> Check:
    def either(value: Any, path: str, faults: list[Fault]) -> None:
        if value is not None:
            check(value, path, faults)

    return either


_UNIT = record(
    {
        **{key: text(WORDS) for key in ("what", "where", "type")},
        "options": array(text(re.compile(r"[^\x00-\x20\x7f,]{1,256}")), 0, 64),
        "lasting": flag,
        "timeout_s": whole(0, TIMEOUT_S_MOST),
    },
    required=("what", "where", "type", "options", "lasting", "timeout_s"),
)
_STATE = record({"unit": _nullable(_UNIT), "is_active": flag}, required=("unit", "is_active"))
_COMMON: Mapping[str, Check] = {"device": _nullable(target), "before": _STATE, "after": _STATE}


def operations(units: Units) -> Mapping[str, Operation]:
    """What is done with the units of those folders."""
    return {
        "SetMount": Operation(
            {"where": text(WORDS), **_COMMON},
            partial(_set, units, lambda request: mount_name(str(request["where"]))),
            uses=("device",),
        ),
        "SetSwap": Operation(
            {"what": text(WORDS), **_COMMON},
            partial(_set, units, lambda request: swap_name(str(request["what"]))),
            uses=("device",),
        ),
    }


OPERATIONS: Mapping[str, Operation] = operations(Units())
