"""The folders below which files may be copied, read for each request from root's own files."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hostler.core.copying.place import Place, place_beneath
from hostlerd.storage.model.backup import is_within, path_fault
from hostlerd.storage.worker.refused import Refused

ROOTS = Path("/etc/hostler/storage.d")
MOST_ROOTS = 64
_BYTES_MOST = 65_536
#: Whoever can write here, or read it all, owns the host or its doors.
_NEVER = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/root", "/run"),
    *("/sbin", "/sys", "/usr", "/opt/hostler", "/var/lib/hostler", "/var/log", "/var/spool/cron"),
    *("/var/lib/hostler-ssl-installer", "/var/lib/hostler-storage-worker", "/var/lib/systemd"),
)


def declared(folder: Path) -> tuple[str, ...]:
    """The roots that the files of a folder name, the longest first. Raises Refused."""
    found = []
    for path in sorted(folder.glob("*.toml")):
        found += [_checked(one, path) for one in _roots_of(path)]
    if len(found) > MOST_ROOTS:
        raise _unusable(folder, f"more than {MOST_ROOTS} roots are named")
    return tuple(sorted(set(found), key=lambda one: (-len(one), one)))


@contextmanager
def place_of(roots: Sequence[str], path: str) -> Iterator[Place]:
    """A place below one of the roots. Raises Refused, CopyRefused."""
    root = next((one for one in roots if path != one and is_within(path, one)), None)
    if root is None:
        words = ", ".join(sorted(roots)) or f"none; they are named in {ROOTS}"
        raise Refused(
            "COPY_OUTSIDE", f"{path} is below no folder that is for copies: {words}", path=path
        )
    with ExitStack() as stack:
        top = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, top)
        # The root itself, too, is what it says and no symlink to something else.
        above = stack.enter_context(place_beneath(top, "/", f"{root[1:]}/-"))
        below = place_beneath(above.folder, root, path[len(root) + 1 :])
        yield stack.enter_context(below)


def _roots_of(path: Path) -> list[str]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            seen = os.fstat(file)
            if not stat.S_ISREG(seen.st_mode) or seen.st_uid != 0 or seen.st_mode & 0o022:
                raise _unusable(path, "is to be a file of root's that nobody else may write")
            table = tomllib.loads(os.read(file, _BYTES_MOST).decode())
        finally:
            os.close(file)
    except (OSError, ValueError, RecursionError) as e:
        raise _unusable(path, str(e)) from e
    copies = table.get("copies", {})
    roots = copies.get("roots", []) if isinstance(copies, dict) else None
    if not isinstance(roots, list) or not all(isinstance(one, str) for one in roots):
        raise _unusable(path, "[copies] has roots, a list of absolute paths")
    return roots


def _checked(root: str, path: Path) -> str:
    if why := path_fault(root):
        raise _unusable(path, f"root {root!r} {why}")
    for one in _NEVER:
        if is_within(root, one) or is_within(one, root):
            raise _unusable(path, f"root {root} is, or has in it, {one}, which is the system's own")
    return root


def _unusable(path: Path, why: str) -> Refused:
    return Refused("COPY_ROOTS_UNUSABLE", f"{path}: {why}", path=str(path))
