"""What units and fstab declare, and what the kernel has of it."""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.storage.model.mount import Unit
from hostlerd.storage.model.observed import Mount


@dataclass(frozen=True, slots=True)
class Declared:
    """A mount or a swap area that something declares; `where` is empty for a swap area."""

    where: str
    what: str
    type: str
    options: tuple[str, ...]
    by: str
    """The path of a unit, or "fstab line 3"."""
    ours: Unit | None = None
    lasting: bool = True


@dataclass(frozen=True, slots=True)
class ActiveSwap:
    """A line of proc_swaps(5). `number` is empty for a file."""

    path: str
    number: str
    size_bytes: int
    used_bytes: int
    priority: int


@dataclass(frozen=True, slots=True)
class Units:
    """What is declared, and what there is. `mounts` has those without a disk too."""

    declared: tuple[Declared, ...] = ()
    mounts: tuple[Mount, ...] = ()
    swaps: tuple[ActiveSwap, ...] = ()
    available_bytes: int = 0
    """Of memory."""

    def of_place(self, where: str) -> tuple[Declared, ...]:
        """All that declares a mount there."""
        return tuple(one for one in self.declared if one.where == where and one.type != "swap")

    def mounted_at(self, where: str) -> Mount | None:
        """What is seen there: the last mount covers the others."""
        return next((one for one in reversed(self.mounts) if one.path == where), None)
