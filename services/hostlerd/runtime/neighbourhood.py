"""Where a daemon sees which units of systemd run and which a boot will start; asks nobody for it.

Sources: systemd's layout of cgroups (systemd.slice(5)), cgroup.events of cgroup-v2, and the links
that `systemctl enable` makes (systemd.unit(5)).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
_MOST_BYTES = 1 << 20


def runs(unit: str, root: Path = ROOT) -> bool:
    """Whether a service of the system has processes."""
    events = root / "sys/fs/cgroup/system.slice" / unit / "cgroup.events"
    return "populated 1" in _text(events).splitlines()


def starts_at_boot(unit: str, root: Path = ROOT) -> bool:
    """Whether an administrator, or a package, has enabled a unit."""
    folder = root / "etc/systemd/system"
    return any(True for _ in folder.glob(f"*.wants/{unit}")) or any(
        True for _ in folder.glob(f"*.requires/{unit}")
    )


def settings(
    folders: tuple[str, ...], pattern: str, root: Path = ROOT
) -> Iterator[tuple[str, str]]:
    """The files of folders, by name, with their text; the first folder's hide others of a name."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted((root / folder.lstrip("/")).glob(pattern)):
            found.setdefault(path.name, path)
    for name in sorted(found):
        yield f"/{found[name].relative_to(root)}", _text(found[name])


def values(text: str, section: str, key: str) -> Iterator[str]:
    """What a key of a section is set to in a file of systemd's syntax, in order."""
    inside = ""
    for line in text.splitlines():
        if head := re.fullmatch(r"\s*\[([^]]+)\]\s*", line):
            inside = head[1]
        elif inside == section and line.partition("=")[0].strip() == key:
            yield line.partition("=")[2].strip()


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode(errors="replace")
    except OSError:
        return ""
