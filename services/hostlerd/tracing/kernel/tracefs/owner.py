"""Whose instances of tracefs are: made for a process, and removed when it is no more.

The name tells it: `hostler-PID-START`, with when that process began, as /proc has it.
"""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hostlerd.tracing.kernel import proc

PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
"""Where tracefs is."""
_NAME = re.compile(r"hostler-(\d{1,10})-(\d{1,20})(?:-tasks)?")
_INIT_PID_NAMESPACE = 0xEFFFFFFC
_REMOVE_S = 5.0
# Somebody has it open; somebody else removes it just now.
_FOR_NOW = (errno.EBUSY, errno.ENODEV)
_PAUSE_S = 0.01


class Folders:
    """The instances of this process: `calls`, and `tasks`, which is never full of calls.

    They are removed when it ends, however it does.
    """

    def __init__(self) -> None:
        """Make them. Raises OSError with the file that cannot be had."""
        self.root = found()
        remove_stale(self.root)
        self.calls, self.tasks = folders_of(self.root, os.getpid())
        self.calls.mkdir()
        try:
            self.tasks.mkdir()
        except OSError:
            remove(self.calls)
            raise
        # Before anything of them is open: what another process has open cannot be removed.
        self._control = _hold((self.calls, self.tasks))

    def remove(self) -> None:
        """Remove them, with what is in their rings; nothing of them may be open."""
        for folder in (self.calls, self.tasks):
            remove(folder)
        os.close(self._control)


def found() -> Path:
    """Where tracefs is. Raises OSError if it is nowhere, or tells of other processes than /proc."""
    if Path("/proc/self/ns/pid").stat().st_ino != _INIT_PID_NAMESPACE:
        raise OSError(
            0, "it numbers processes as the host does, and this is a container", "tracefs"
        )
    for place in map(Path, PLACES):
        # Whoever may not look into it is told so when it is used.
        with suppress(PermissionError):
            if not (place / "instances").is_dir():
                continue
        return place
    raise OSError(errno.ENOENT, "not mounted", PLACES[0])


def folders_of(root: Path, pid: int) -> tuple[Path, Path]:
    """The two instances of a process, for calls and for tasks. Raises OSError if it is gone."""
    name = f"hostler-{pid}-{_start_of(pid)}"
    return root / "instances" / name, root / "instances" / f"{name}-tasks"


def remove_stale(root: Path) -> None:
    """Remove the instances of processes that are no more."""
    for folder in (root / "instances").iterdir():
        owner = _NAME.fullmatch(folder.name)
        if owner and not _is(int(owner[1]), owner[2]):
            # What somebody looks into stays until the next time.
            with suppress(OSError):
                remove(folder)


def remove(folder: Path) -> None:
    """Remove an instance, once nobody has it open any more. Raises OSError if somebody has."""
    give_up = time.monotonic() + _REMOVE_S
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as e:
            if e.errno not in _FOR_NOW or time.monotonic() > give_up:
                raise
            time.sleep(_PAUSE_S)
        else:
            return


def _is(pid: int, start: str) -> bool:
    try:
        return _start_of(pid) == start
    except OSError:
        return False


def _start_of(pid: int) -> str:
    return proc.read(f"/proc/{pid}/stat").decode("ascii", "replace").rpartition(")")[2].split()[19]


def _hold(folders: Iterable[Path]) -> int:
    """Fork what removes instances once the answered fd is closed, however that comes about."""
    wait, control = os.pipe()
    if os.fork():
        os.close(wait)
        return control
    try:
        # Who ends a unit or a job ends all of its processes; this one goes by itself.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for fd in (control, 0, 1):
            os.close(fd)
        select.select([wait], [], [])
        for folder in folders:
            remove(folder)
    finally:
        os._exit(0)
