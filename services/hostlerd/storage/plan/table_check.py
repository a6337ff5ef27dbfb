"""What a partition table that is wanted must be, so that no tool makes another one of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from hostlerd.storage.model.table import EXTENDED, FIRST_LOGICAL, GPT, MBR, Entry, Table

_GUID = re.compile(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}")
_DOS_TYPE = re.compile(r"0x[0-9a-f]{2}")
_DOS_ID = re.compile(r"0x[0-9a-f]{8}")
_NAME_UNITS = 36
_DOS_SECTORS = (1 << 32) - 1
_DOS_PRIMARY = 4
_DOS_MOST = 60
# What sfdisk can say: bits 0 to 2, and those that the type gives a meaning to.
_ATTRIBUTES = 0xFFFF000000000003


def faults(table: Table) -> list[tuple[str, str]]:
    """What is wrong with it, as the path of the field and words."""
    found = list(_of_ids(table))
    for at, one in enumerate(table.entries):
        found += [(f"partitions[{at}]{path}", words) for path, words in _of_entry(table, one)]
    if not found:
        found += _of_numbers(table)
        found += _of_places(table)
    return found


def _of_ids(table: Table) -> Iterator[tuple[str, str]]:
    if table.kind not in (GPT, MBR):
        yield "kind", "must be a GPT or an MBR"
        return
    pattern = _GUID if table.kind == GPT else _DOS_ID
    if table.id and not pattern.fullmatch(table.id):
        yield "id", "must be a GUID" if table.kind == GPT else "must be such as 0x1a2b3c4d"


def _of_entry(table: Table, one: Entry) -> Iterator[tuple[str, str]]:
    if one.size_sectors < 1:
        yield ".size_bytes", "is no whole sector, or there is no room left"
    if table.kind == GPT:
        yield from _of_gpt_entry(one)
    else:
        if not _DOS_TYPE.fullmatch(one.type) or one.type in ("0x00", "0xee"):
            yield ".type", f"{one.type} is no type of a partition in an MBR"
        if one.name or one.uuid or one.attributes:
            yield "", "an MBR has neither names nor GUIDs of partitions, nor attributes"
        if one.end_sector > _DOS_SECTORS:
            yield ".size_bytes", "an MBR reaches no further than 2^32 sectors: take a GPT"
    if one.size_sectors >= 1 and not (
        table.first_sector <= one.start_sector and one.end_sector <= table.last_sector
    ):
        usable = f"sectors {table.first_sector} to {table.last_sector}"
        taken = f"{one.start_sector} to {one.end_sector}"
        yield ".start_bytes", f"partition {one.number} takes {taken}; there are {usable}"


def _of_gpt_entry(one: Entry) -> Iterator[tuple[str, str]]:
    if not _GUID.fullmatch(one.type) or one.type.strip("0-") == "":
        yield ".type", f"{one.type} is no GUID"
    if one.uuid and not _GUID.fullmatch(one.uuid):
        yield ".uuid", "is no GUID"
    if any("\ud800" <= c <= "\udfff" for c in one.name):
        yield ".name", "is no text"
    elif len(one.name.encode("utf-16-le")) > 2 * _NAME_UNITS:
        yield ".name", f"has more than {_NAME_UNITS} characters"
    if any(ord(c) < 32 or c == "\x7f" for c in one.name):
        yield ".name", "has control characters"
    if one.attributes & ~_ATTRIBUTES:
        yield "", f"partition {one.number} has attributes that sfdisk cannot write"


def _of_numbers(table: Table) -> Iterator[tuple[str, str]]:
    numbers = [one.number for one in table.entries]
    twice = {number for number in numbers if numbers.count(number) > 1}
    if twice:
        yield "partitions", f"several have the number {min(twice)}"
    if table.kind == GPT:
        if any(not 1 <= number <= table.slots for number in numbers):
            yield "partitions", f"a number is not from 1 to {table.slots}"
        uuids = [one.uuid for one in table.entries if one.uuid]
        if len(set(uuids)) < len(uuids):
            yield "partitions", "several have one GUID"
        return
    logical = sorted(number for number in numbers if number > _DOS_PRIMARY)
    if any(number < 1 for number in numbers) or len(numbers) > _DOS_MOST:
        yield "partitions", f"there are 4 primary ones, and at most {_DOS_MOST} in all"
    if logical != list(range(FIRST_LOGICAL, FIRST_LOGICAL + len(logical))):
        yield "partitions", "logical partitions are numbered from 5 on, without gaps"
    if sum(one.is_extended for one in table.entries) > 1:
        yield "partitions", "there is more than one extended partition"
    if logical and table.extended is None:
        yield "partitions", "a number above 4 needs an extended partition"
    if any(one.type in EXTENDED and one.number > _DOS_PRIMARY for one in table.entries):
        yield "partitions", "an extended partition has a number from 1 to 4"


def records(table: Table) -> dict[int, int]:
    """The last sector where each logical partition's boot record can be, by its number.

    The first one is where the extended partition begins. The others sfdisk puts further in front
    where there is room, and refuses to do its work where it finds none.
    """
    extended = table.extended
    if extended is None:
        return {}
    return {
        one.number: extended.start_sector if one.number == FIRST_LOGICAL else one.start_sector - 1
        for one in table.entries
        if one.number >= FIRST_LOGICAL
    }


def _of_places(table: Table) -> Iterator[tuple[str, str]]:
    solid = sorted(
        (one for one in table.entries if not one.is_extended), key=lambda one: one.start_sector
    )
    for one, following in pairwise(solid):
        if following.start_sector <= one.end_sector:
            yield "partitions", f"partitions {one.number} and {following.number} overlap"
    if (extended := table.extended) is not None:
        yield from _beside(extended, solid)
        yield from _of_records(records(table), solid)


def _beside(extended: Entry, solid: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    for one in solid:
        inside = extended.start_sector < one.start_sector and one.end_sector <= extended.end_sector
        outside = one.end_sector < extended.start_sector or one.start_sector > extended.end_sector
        if one.number >= FIRST_LOGICAL and not inside:
            yield "partitions", f"partition {one.number} is not inside of the extended one"
        if one.number < FIRST_LOGICAL and not outside:
            yield "partitions", f"partition {one.number} overlaps the extended one"


def _of_records(places: Mapping[int, int], solid: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    if len(set(places.values())) < len(places):
        yield "partitions", "two logical partitions want their boot record in one sector"
    for number, sector in places.items():
        for one in solid:
            if one.start_sector <= sector <= one.end_sector:
                words = f"there is no room for the boot record of partition {number}"
                yield "partitions", f"{words}: sector {sector} belongs to {one.number}"
