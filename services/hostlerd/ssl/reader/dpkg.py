"""Which package a file belongs to, and its version, by dpkg's own database.

Source: dpkg-query(1), deb-control(5): /var/lib/dpkg/status and info/*.list.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress

from hostlerd.ssl.reader import proc

_STATUS_BYTES, _LIST_BYTES = 64 << 20, 8 << 20
_MOST_LISTS = 20_000
# Libraries lie in packages called so; others are looked into only if these do not have the file.
_LIKELY = "lib"


def versions(root: str, paths: Iterable[str]) -> Mapping[str, str]:
    """The version of the package that each file belongs to, of the host or container below `root`.

    Files of no package are left out, as are all where there is no dpkg.
    """
    wanted = {variant: path for path in paths for variant in _variants(path)}
    if not wanted:
        return {}
    packages = _packages(f"{root}/var/lib/dpkg/info", wanted)
    known = _status(f"{root}/var/lib/dpkg/status") if packages else {}
    return {path: known[package] for path, package in packages.items() if package in known}


def _variants(path: str) -> tuple[str, ...]:
    """A package may list a file by the path that it had before /lib became a link to /usr/lib."""
    if path.startswith("/usr/lib"):
        return path, path.removeprefix("/usr")
    return (path, f"/usr{path}") if path.startswith("/lib") else (path,)


def _packages(folder: str, wanted: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    lists: list[str] = []
    with suppress(OSError):
        lists = [n for n in os.listdir(folder) if n.endswith(".list")][:_MOST_LISTS]  # noqa: PTH208
    missing = set(wanted.values())
    for name in sorted(lists, key=lambda n: not n.startswith(_LIKELY)):
        if not missing:
            break
        lines = set(proc.text(f"{folder}/{name}", _LIST_BYTES).splitlines())
        for variant in lines & wanted.keys():
            found[wanted[variant]] = name.removesuffix(".list").partition(":")[0]
            missing.discard(wanted[variant])
    return found


def _status(path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    package = ""
    for line in proc.text(path, _STATUS_BYTES).splitlines():
        if line.startswith("Package: "):
            package = line[9:]
        elif line.startswith("Version: ") and package:
            found[package] = line[9:]
    return found
