"""Units of mounts and swap areas, as they lie in the folders of systemd.

Source: systemd.unit(5), fstab(5), proc_swaps(5), proc_meminfo(5).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from hostlerd.storage.kernel import mounts
from hostlerd.storage.model.declared import ActiveSwap, Declared, Units
from hostlerd.storage.model.mount import fields_of, parse

#: Those of the generator say what fstab says, and systemd makes some of what is mounted already.
FOLDERS = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
)
_UNIT_BYTES_MOST = 64 << 10
_ENTRIES_MOST = 10_000


class MountUnits:
    """Looks at what is declared, and at what is there."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def look(self) -> Units:
        """All of it."""
        lines = [
            Declared(
                where="" if one.type == "swap" else one.path,
                what=one.source,
                type=one.type,
                options=one.options,
                by=f"fstab line {one.line}",
            )
            for one in mounts.fstab()
        ]
        return Units(
            declared=(*self.declared(), *lines),
            mounts=mounts.mounts(),
            swaps=tuple(_swaps()),
            available_bytes=_available_bytes(),
        )

    def declared(self) -> tuple[Declared, ...]:
        """What units declare: of one name the first, as systemd has it."""
        found: dict[str, Declared] = {}
        for folder in FOLDERS:
            place = self._root / folder
            for path in sorted((*place.glob("*.mount"), *place.glob("*.swap"))):
                if path.name not in found and (one := _read(path, folder)) is not None:
                    found[path.name] = one
        return tuple(found.values())


def hidden_entries(where: str) -> int:
    """How many entries a folder has, as far as they are counted; 0 if it is none."""
    try:
        with os.scandir(where) as entries:
            return sum(1 for _ in zip(range(_ENTRIES_MOST), entries, strict=False))
    except OSError:
        return 0


def _read(path: Path, folder: str) -> Declared | None:
    try:
        with path.open("rb") as file:
            text = file.read(_UNIT_BYTES_MOST).decode("utf-8", "replace")
    except OSError:
        # A mask, or gone meanwhile.
        return None
    lasting = not folder.startswith("run/")
    ours, said = parse(text, lasting=lasting), fields_of(text)
    kind = "Swap" if path.suffix == ".swap" else "Mount"
    return Declared(
        where=said.get("Mount.Where", ""),
        what=said.get(f"{kind}.What", ""),
        type="swap" if kind == "Swap" else said.get("Mount.Type", ""),
        options=tuple(filter(None, said.get(f"{kind}.Options", "").split(","))),
        by=f"/{folder}/{path.name}",
        ours=ours[0] if ours is not None and path.name == ours[0].name else None,
        lasting=lasting,
    )


def _swaps() -> Iterator[ActiveSwap]:
    for line in Path("/proc/swaps").read_text(errors="surrogateescape").splitlines()[1:]:
        path, kind, size, used, priority = line.split()[:5]
        path = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)
        number = _number(path) if kind == "partition" else ""
        yield ActiveSwap(path, number, int(size) << 10, int(used) << 10, int(priority))


def _number(path: str) -> str:
    """MAJOR:MINOR by sysfs: a container has the name and need not have the node."""
    name = os.path.basename(os.path.realpath(path))  # noqa: PTH119
    try:
        return (Path("/sys/class/block") / name / "dev").read_text().strip()
    except OSError:
        pass
    try:
        seen = os.stat(path)  # noqa: PTH116
    except OSError:
        return ""
    return (
        f"{os.major(seen.st_rdev)}:{os.minor(seen.st_rdev)}" if stat.S_ISBLK(seen.st_mode) else ""
    )


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0
