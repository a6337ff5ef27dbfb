"""Where the memory of a host is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Zones:
    """What the kernel keeps back, in bytes. Source: /proc/zoneinfo.

    `low` is where it begins to reclaim; `reserve` is what it never gives to programs.
    """

    low: int
    reserve: int


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the memory; no two share a byte. `reclaimable` could be given away at once."""

    name: str
    bytes: int
    reclaimable: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """All memory in bytes; `parts` add up to `total`, the one that nobody accounts for included."""

    total: int
    available: int
    is_estimate: bool
    free_buffers_cached: int
    parts: tuple[Part, ...]
    unaccounted_percent: float
    dirty: int
    writeback: int
    swap_total: int
    swap_used: int
    committed: int

    @property
    def used(self) -> int:
        """What is neither free nor could be given away."""
        return self.total - self.available
