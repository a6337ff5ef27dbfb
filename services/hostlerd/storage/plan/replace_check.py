"""What is looked at before a disk takes the place of another one: replacements fail too."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hostlerd.storage.model.graph import Kind, Node
from hostlerd.storage.model.replacement import Content, Fate, Finding, Weight
from hostlerd.storage.model.smart import Smart
from hostlerd.storage.model.table import Table
from hostlerd.storage.model.target import Target
from hostlerd.storage.plan.array_choose import plain_uuid
from hostlerd.storage.plan.in_use import users
from hostlerd.storage.plan.replace_case import Case
from hostlerd.storage.plan.replace_md import least_bytes

_DISKS = (Kind.DISK, Kind.LOOP, Kind.NETWORK, Kind.MULTIPATH)
_TABLES = frozenset(("gpt", "dos", "PMBR"))
_GOOD_STATES = ("", "running", "live")


def findings(
    case: Case, have: Table, contents: Collection[Content], smart: Smart
) -> Iterator[Finding]:
    """All that speaks against the new disk, or is to be known of it."""
    yield from _of_disk(case, contents)
    yield from _of_sectors(case)
    yield from _of_room(case, contents)
    yield from _of_what_it_holds(case, have, contents)
    yield from _of_smart(case.new, smart)


def _of_smart(new: Node, smart: Smart) -> Iterator[Finding]:
    if smart.passed is None:
        yield _note("SMART_UNKNOWN", f"{new.id} does not answer to SMART: {smart.why}")
        return
    if not smart.passed:
        yield _error("SMART_FAILING", f"{new.id} says itself that it is failing")
    if smart.damage:
        yield _warning("SMART_DAMAGE", f"{new.id} has counted {', '.join(smart.damage)}")
    if smart.hours:
        yield _note("NOT_NEW", f"{new.id} has run for {smart.hours} hours")


def _of_disk(case: Case, contents: Collection[Content]) -> Iterator[Finding]:
    new = case.new
    if new.kind not in _DISKS:
        yield _error("NEW_IS_NO_DISK", f"{new.id} is {new.kind.name.lower()}, and no disk")
    if new.is_read_only:
        yield _error("NEW_READ_ONLY", f"{new.id} cannot be written")
    if new.state not in _GOOD_STATES:
        yield _error("NEW_NOT_RUNNING", f"{new.id} is {new.state}, as the kernel has it")
    if new.is_removable:
        yield _warning("NEW_REMOVABLE", f"{new.id} can be pulled out by anybody")
    if used := sorted(set(_users(case, contents))):
        yield _error("NEW_IN_USE", f"{new.id} is in use: {', '.join(used[:8])}")
    others = _others(case)
    if others and all(one.is_rotational != new.is_rotational for one in others):
        words = "rotates" if new.is_rotational else "does not rotate"
        yield _note("KIND_DIFFERS", f"{new.id} {words}, unlike the disks beside it")


def _users(case: Case, contents: Collection[Content]) -> Iterator[str]:
    """Who uses what is to be overwritten: not what has been brought back already."""
    for one in contents:
        if one.overwrites is None:
            continue
        if one.overwrites.part is None:
            yield from users(case.graph, one.overwrites.id)
            continue
        # It comes with the table, which takes away all partitions that are not wanted.
        for number in case.on(case.new).values():
            there, wanted = case.partition(number), case.target(number)
            if there is not None and (wanted is None or wanted.id != there.id):
                yield from users(case.graph, there.id)


def _others(case: Case) -> list[Node]:
    """The disks that the new one is to be like: the old one, or else the others of its arrays."""
    if case.old is not None:
        return [case.old]
    names = {one.name for array in case.arrays for one in array.members}
    names |= {one.name for pool in case.seen.btrfs for one in pool.devices}
    names |= {name for group in case.seen.groups if group.missing for name in group.devices}
    disks = {case.places[name][0] for name in names if name in case.places}
    return [case.nodes[name] for name in sorted(disks - {case.new.name}) if name in case.nodes]


def _of_sectors(case: Case) -> Iterator[Finding]:
    new = case.new
    for other in _others(case):
        if new.logical_sector_bytes != other.logical_sector_bytes:
            words = f"of {new.logical_sector_bytes} bytes, {other.id} of"
            words = f"{new.id} has sectors {words} {other.logical_sector_bytes}"
            yield _warning("SECTORS_DIFFER", f"{words}: what is on them grows or is refused")
            return
        if new.physical_sector_bytes > other.physical_sector_bytes:
            words = f"{new.id} has physical sectors of {new.physical_sector_bytes} bytes"
            words += f", {other.id} of {other.physical_sector_bytes}"
            yield _note("SECTORS_DIFFER", f"{words}: partitions that begin in one are slow")
            return


def _of_room(case: Case, contents: Collection[Content]) -> Iterator[Finding]:
    arrays = {case.nodes[one.name].id: one for one in case.arrays if one.name in case.nodes}
    numbers: dict[int, str] = {}
    for one in contents:
        if one.fate is not Fate.TO_DO:
            continue
        if one.number in numbers:
            words = f"{one.id} and {numbers[one.number]} would both be on {_place(one.number)}"
            yield _error("SEVERAL_GONE", f"{words}: say which of them was on {case.asked.old}")
        numbers[one.number] = one.id
        place = case.target(one.number)
        if place is None:
            words = f"{one.id} was on {_place(one.number)}, and no table says where that is"
            yield _error("TABLE_UNKNOWN", f"{words}: name a disk to copy it from")
            continue
        least = least_bytes(arrays[one.id]) if one.id in arrays else _least(one)
        if case.room(place) < least:
            words = f"{_place(one.number)} of {case.new.id} has {case.room(place)} bytes"
            yield _error("NEW_TOO_SMALL", f"{words}: {one.id} takes {least}")


def _least(one: Content) -> int:
    copied = one.follow.size_bytes if one.follow is not None else 0
    return max(one.least_bytes, copied)


def _place(number: int) -> str:
    return f"partition {number}" if number else "the whole disk"


def _of_what_it_holds(case: Case, have: Table, contents: Collection[Content]) -> Iterator[Finding]:
    """What would be lost with what the new disk holds, if anything would."""
    lost = list(dict.fromkeys(_lost(case, have, contents)))
    if not lost:
        return
    words = f"{case.new.id} is not empty: {'; '.join(lost)}"
    if case.asked.erase:
        yield _warning("CONTENT_LOST", f"{words}: it is lost")
    else:
        yield _error("NEW_NOT_EMPTY", f"{words}: wipe it before, or say that it may be lost")


def _lost(case: Case, have: Table, contents: Collection[Content]) -> Iterator[str]:
    filled = [(one, one.overwrites) for one in contents if one.overwrites is not None]
    wanted = case.want.entries if case.want is not None else ()
    kept = {(one.number, one.start_sector, one.size_sectors) for one in wanted}
    there = {(one.number, one.start_sector, one.size_sectors) for one in have.entries}
    if (filled and there - kept) or (there and any(not one.number for one, _ in filled)):
        yield f"it has a table with {len(have.entries)} partitions"
    for one, place in filled:
        yield from _strange(place, one)


def _is_table(words: str) -> bool:
    return words.split(" ")[0] in _TABLES


def _strange(place: Target, content: Content) -> Iterator[str]:
    """What lies on a place beside what the very same array or filesystem had written there."""
    own = {plain_uuid(str(getattr(step, "uuid", ""))) for step in content.steps} - {""}
    for words in place.signatures:
        if not _is_table(words) and plain_uuid(words.partition(" ")[2]) not in own:
            yield f"it holds {words}"


def _error(code: str, message: str) -> Finding:
    return Finding(code, Weight.ERROR, message)


def _warning(code: str, message: str) -> Finding:
    return Finding(code, Weight.WARNING, message)


def _note(code: str, message: str) -> Finding:
    return Finding(code, Weight.NOTE, message)
