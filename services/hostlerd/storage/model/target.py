"""A block device as a plan saw it: what has to be so still when it is touched."""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.storage.model import blkid
from hostlerd.storage.model.observed import Signature


@dataclass(frozen=True, slots=True)
class Slice:
    """A partition that a step makes before another one uses it, by its place on the disk."""

    number: int
    start_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Target:
    """A block device as the plan saw it; all of it must still be so when it is touched."""

    id: str
    """The graph's, the same after a boot."""
    name: str
    """The kernel's, such as "sdb1"; it says where to look, never which device is meant."""
    number: str
    """MAJOR:MINOR."""
    size_bytes: int
    disk_sequence: int
    """Of the whole disk, BLKGETDISKSEQ; 0 where the kernel has none."""
    serial: str = ""
    wwn: str = ""
    signatures: tuple[str, ...] = ()
    """What lies on it, as "TYPE UUID", sorted."""
    part: Slice | None = None
    """If any, not the disk is meant that the rest tells of, but a partition that is made on it
    before: what lay there then was the disk's, and went with it."""

    @property
    def kernel_name(self) -> str:
        """What the kernel calls it. Source: Linux block/partitions/core.c, add_partition()."""
        if self.part is None:
            return self.name
        mark = "p" if self.name[-1:].isdigit() else ""
        return f"{self.name}{mark}{self.part.number}"

    @property
    def place(self) -> str:
        """Its number; of a partition that is to be made, its disk's and its own, as in 8:16/2."""
        return self.number if self.part is None else f"{self.number}/{self.part.number}"

    def describe(self) -> str:
        """Name it so that an operator finds the right disk: by all that tells it from others."""
        if self.part is not None:
            whole = f"{self.id} ({self.name}{f'; serial {self.serial}' if self.serial else ''})"
            return f"partition {self.part.number} ({self.part.size_bytes} bytes) of {whole}"
        facts = [self.name, f"{self.size_bytes} bytes"]
        if self.serial:
            facts.append(f"serial {self.serial}")
        facts.append("holds " + (", ".join(self.signatures) or "no signature"))
        return f"{self.id} ({'; '.join(facts)})"


def signature_words(signatures: tuple[Signature, ...]) -> tuple[str, ...]:
    """The signatures of a device as a target has them."""
    if blkid.CONTRADICTION in signatures:
        return (blkid.CONTRADICTION.type,)
    return tuple(sorted(f"{one.type} {one.uuid}".rstrip() for one in signatures))
