"""The programs of storage, which kill themselves, or wait, at a point; see journal_points.py.

`storage_points.py daemon PLACE …` is the daemon, with the doors of a folder; `worker PLACE` and
`backup PLACE`, `restore PLACE` are the programs that it asks. The PLACE of a host's own is `-`.
Their points are where a kill could matter: before and after each request that changes something,
each fsync and each tool, while the tool runs, and around what the kernel is asked of a btrfs. With
such a program its tools are killed, as systemd does it. What the programs of backups begin goes on
after they have answered: of them it is the requests alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import journal_points
from journal_points import around, point

_IOCTLS = {
    **{0x5000940A: "add device", 0x50009417: "snapshot", 0x50009418: "create subvolume"},
    **{0x5000943F: "destroy subvolume", 0xC400941B: "scrub", 0xC4009420: "balance"},
    **{0xCA289435: "replace", 0x5000943A: "remove device", 0xC4089434: "device stats"},
}
OWN = Path("-")
_tool = threading.local()


class _Popen(subprocess.Popen):  # type: ignore[type-arg]
    """A tool; that it runs is a point, if it is one that changes something."""

    def wait(self, timeout: float | None = None) -> int:
        if name := getattr(_tool, "name", ""):
            _tool.name = ""
            point(f"in {name}")
        return super().wait(timeout)


def _daemon(place: Path) -> None:
    from hostlerd.storage.kernel.doors import Door
    from hostlerd.storage.kernel.mount_units import MountUnits
    from hostlerd.storage.kernel.worker_client import Worker

    if place != OWN:
        Worker.__init__.__defaults__ = (place / "worker.sock",)
        Door.__init__.__defaults__ = (place,)
        MountUnits.__init__.__defaults__ = (place / "root",)
    journal_points.main("storage")


def _worker(place: Path) -> None:
    from hostlerd.storage.worker import btrfs_ioctl, btrfs_long, btrfs_subvolume, server, tools
    from hostlerd.storage.worker.__main__ import main
    from hostlerd.storage.worker.operation import Operation

    ioctl = _ioctl(btrfs_ioctl.call)
    for module in (btrfs_ioctl, btrfs_long, btrfs_subvolume):
        module.call = ioctl  # type: ignore[attr-defined]
    run: Callable[..., Any] = tools.Tools.run

    def run_tool(self: Any, argv: Any, *more: Any, **named: Any) -> Any:
        name = Path(argv[0]).name
        point(f"before {name}")
        _tool.name = name
        try:
            answer = run(self, argv, *more, **named)
        finally:
            _tool.name = ""
        point(f"after {name}")
        return answer

    tools.Tools.run = run_tool  # type: ignore[method-assign]
    carry_out = server.carry_out

    def carry(asked: Any, table: Any, *more: Any) -> Any:
        operation: Operation | None = table.get(asked.get("op"))
        if operation is None or operation.only_reads or asked["op"] == "Settle":
            return carry_out(asked, table, *more)
        return around(str(asked["op"]), carry_out)(asked, table, *more)

    server.carry_out = carry
    for name in ("fsync", "fdatasync"):
        setattr(os, name, around(name, getattr(os, name)))
    subprocess.Popen = _Popen  # type: ignore[misc]
    root = place / "root"
    sys.argv[1:] = ["--root", str(root), "--systemctl", str(root / "systemctl")]
    _begin("worker", place, main)


def _ioctl(call: Callable[..., None]) -> Callable[..., None]:
    def made(fd: int, request: int, argument: bytearray) -> None:
        name = _IOCTLS.get(request, "")
        # The same call tells how far it is.
        if not name or (name == "replace" and argument[0]):
            return call(fd, request, argument)
        around(f"ioctl {name}", call)(fd, request, argument)
        return None

    return made


def _restic(role: str, place: Path) -> None:
    from hostlerd.storage.backup import server
    from hostlerd.storage.backup.__main__ import main

    carry_out: Callable[..., Any] = server.Server._carry_out

    def carry(self: Any, asked: Any, *more: Any) -> Any:
        name = str(asked.get("op"))
        if not name.startswith("Begin"):
            return carry_out(self, asked, *more)
        return around(name, carry_out)(self, asked, *more)

    server.Server._carry_out = carry  # type: ignore[method-assign]
    sys.argv[1:] = [role, "--definitions", str(place / "worker-state/backups")]
    _begin(role, place, main)


def _begin(role: str, place: Path, main: Callable[[], None]) -> None:
    words = [*sys.argv[1:], "--state", str(place / f"{role}-state")]
    sys.argv[1:] = ["--idle-s", "3600", *([] if place == OWN else words)]
    os.environ["LISTEN_PID"] = str(os.getpid())
    main()


def _main(role: str, place: Path) -> None:
    if role == "daemon":
        sys.argv[1:] = sys.argv[3:]
        _daemon(place)
        return
    if place != OWN:
        journal_points.END = lambda: os.killpg(0, signal.SIGKILL)
    if role == "worker":
        _worker(place)
    else:
        _restic(role, place)


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
