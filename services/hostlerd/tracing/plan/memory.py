"""Accounts for memory. Sources: Documentation/filesystems/proc.rst, mm/show_mem.c."""

from __future__ import annotations

from collections.abc import Mapping

from hostlerd.tracing.model.memory import Memory, Part, Zones


def account(info: Mapping[str, int], zones: Zones) -> Memory:
    """Account for all memory, given /proc/meminfo in bytes. A line that is missing counts 0."""
    total = info.get("MemTotal", 0)
    parts = _parts(info)
    known = sum(part.bytes for part in parts)
    rest = Part("other", max(0, total - known))
    estimate = estimate_available(info, zones)
    is_estimate = "MemAvailable" not in info
    return Memory(
        total=total,
        available=estimate if is_estimate else info["MemAvailable"],
        is_estimate=is_estimate,
        free_buffers_cached=sum(info.get(name, 0) for name in ("MemFree", "Buffers", "Cached")),
        parts=tuple(sorted((*parts, rest), key=lambda part: part.bytes, reverse=True)),
        unaccounted_percent=100 * abs(total - known) / total if total else 0.0,
        dirty=info.get("Dirty", 0),
        writeback=info.get("Writeback", 0),
        swap_total=info.get("SwapTotal", 0),
        swap_used=info.get("SwapTotal", 0) - info.get("SwapFree", 0),
        committed=info.get("Committed_AS", 0),
    )


def _parts(info: Mapping[str, int]) -> list[Part]:
    def read(name: str) -> int:
        return info.get(name, 0)

    # What tmpfs and shared memory hold the kernel counts as cached; it can only be swapped out.
    cache = read("Cached") - read("Shmem") + read("Buffers")
    # Stacks lie in vmalloc's area, and are counted twice.
    vmalloc = max(0, read("VmallocUsed") - read("KernelStack"))
    files = read("Active(file)") + read("Inactive(file)")
    # Older kernels have no Hugetlb, which sums up the pages of all sizes.
    huge = read("Hugetlb") or read("HugePages_Total") * read("Hugepagesize")
    return [
        Part("free", read("MemFree"), read("MemFree")),
        Part("anonymous", read("AnonPages")),
        Part("page_cache", max(0, cache), min(max(0, cache), files)),
        Part("tmpfs", read("Shmem")),
        Part("slab_reclaimable", read("SReclaimable"), read("SReclaimable")),
        Part("slab_unreclaimable", read("SUnreclaim")),
        Part("page_tables", read("PageTables") + read("SecPageTables")),
        Part("kernel_stacks", read("KernelStack")),
        Part("vmalloc", vmalloc),
        Part("per_cpu", read("Percpu")),
        Part("huge_pages", huge),
    ]


def estimate_available(info: Mapping[str, int], zones: Zones) -> int:
    """Estimate as the kernel does since 3.14, for those before. Source: si_mem_available.

    Half of what could be reclaimed stays, or as much as keeps the kernel from reclaiming.
    """
    files = info.get("Active(file)", 0) + info.get("Inactive(file)", 0)
    slab = info.get("KReclaimable", info.get("SReclaimable", 0))
    free = info.get("MemFree", 0) - zones.reserve
    kept = min(files // 2, zones.low) + min(slab // 2, zones.low)
    return max(0, free + files + slab - kept)
