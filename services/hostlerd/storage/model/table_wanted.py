"""Partition tables as somebody asks for them: what is None is left as it is, or has the default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wanted:
    """A partition that is wanted; a size of 0 is all that is free behind its start."""

    number: int | None = None
    start_bytes: int | None = None
    size_bytes: int | None = None
    type: str | None = None
    name: str | None = None
    bootable: bool | None = None
    uuid: str | None = None


@dataclass(frozen=True, slots=True)
class WantedTable:
    """A whole table that is wanted; partitions that are not listed go."""

    kind: str
    id: str | None = None
    partitions: tuple[Wanted, ...] = ()


@dataclass(frozen=True, slots=True)
class Add:
    """Add a partition."""

    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Update:
    """Change the partition of a number."""

    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the partition of a number."""

    number: int


Edit = Add | Update | Delete
