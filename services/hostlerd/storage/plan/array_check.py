"""What is wrong with an array that is asked for, whatever the host has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.storage.model.array import FEWEST, MADE, NAME, PARITY_LAYOUTS, Copies

MOST_MEMBERS = 128
CHUNK_LEAST_BYTES, CHUNK_MOST_BYTES = 4 << 10, 64 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """An array that is asked for; empty and 0 leave it to mdadm."""

    name: str
    level: str
    devices: tuple[str, ...]
    spares: tuple[str, ...] = ()
    layout: str = ""
    chunk_bytes: int = 0
    bitmap: bool = False
    assume_clean: bool = False
    write_mostly: int = 0
    """So many of the last devices are read only when the others cannot be."""


def check(wanted: Wanted) -> None:
    """Raise InvalidRequest, with all that is wrong."""
    if found := [Violation(field, why) for field, why in _faults(wanted)]:
        raise InvalidRequest.of(found)


def _faults(wanted: Wanted) -> Iterator[tuple[str, str]]:
    if not NAME.fullmatch(wanted.name):
        yield "name", "must be 1 to 24 letters, digits, dots, dashes and underscores"
    if wanted.level not in MADE:
        yield "level", f"must be one of {', '.join(MADE)}"
        return
    yield from _number_faults(wanted)
    yield from _layout_faults(wanted)
    chunk = wanted.chunk_bytes
    if chunk and wanted.level == "raid1":
        yield "chunk_bytes", "raid1 has no chunks"
    elif chunk and not (CHUNK_LEAST_BYTES <= chunk <= CHUNK_MOST_BYTES and chunk.bit_count() == 1):
        yield "chunk_bytes", f"a power of 2 from {CHUNK_LEAST_BYTES} to {CHUNK_MOST_BYTES}"
    if wanted.write_mostly and wanted.level != "raid1":
        yield "write_mostly_count", f"{wanted.level} reads from all of its devices"
    elif wanted.write_mostly and not 0 < wanted.write_mostly < len(wanted.devices):
        yield "write_mostly_count", "must be fewer than there are devices"
    if wanted.level == "raid0":
        for field in ("bitmap", "assume_clean"):
            if getattr(wanted, field):
                yield field, "raid0 has no copies to keep alike"


def _number_faults(wanted: Wanted) -> Iterator[tuple[str, str]]:
    count, fewest = len(wanted.devices), FEWEST[wanted.level]
    if count < fewest:
        yield "devices", f"{wanted.level} needs at least {fewest} devices"
    if count + len(wanted.spares) > MOST_MEMBERS:
        yield "devices", f"an array has at most {MOST_MEMBERS} devices"
    if wanted.spares and wanted.level == "raid0":
        yield "spares", "raid0 has no use for spares"


def _layout_faults(wanted: Wanted) -> Iterator[tuple[str, str]]:
    layout, level = wanted.layout, wanted.level
    if not layout:
        return
    if level == "raid10":
        copies = Copies.parse(layout)
        if copies is None or not 2 <= copies.count <= len(wanted.devices):
            yield "layout", "must be n, f or o and the number of copies, 2 to that of devices"
    elif level not in ("raid5", "raid6"):
        yield "layout", f"{level} has only one layout"
    elif layout not in PARITY_LAYOUTS:
        yield "layout", f"must be one of {', '.join(PARITY_LAYOUTS)}"
