"""A block device as a plan saw it: what has to be so still when it is touched."""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.storage.model import blkid
from hostlerd.storage.model.observed import Signature


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

    def describe(self) -> str:
        """Name it so that an operator finds the right disk: by all that tells it from others."""
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
