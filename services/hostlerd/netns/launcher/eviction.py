"""Ending what is left in a network namespace, whoever started it, before the namespace goes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hostlerd.privileged.refused import Refused

from . import handles

PROC = Path("/proc")
POLITE_S = 2.0
FORCED_S = 5.0
POLL_S = 0.05


def evict(namespace: str) -> None:
    """End every process in the namespace of a handle: SIGTERM, and after 2 s SIGKILL.

    Processes that have only a thread there are left: they belong elsewhere. Refused: the host's
    own namespace under another name, a process that does not end.
    """
    net = handles.inode(namespace)
    if not net:
        return
    if net == _net_of(PROC / "self"):
        raise Refused("HOST_NAMESPACE", f"{namespace} is the host's own network namespace")
    for number, patience_s in ((signal.SIGTERM, POLITE_S), (signal.SIGKILL, FORCED_S)):
        deadline = time.monotonic() + patience_s
        _send(net, number)
        while time.monotonic() < deadline:
            if not any(True for _ in _processes(net)):
                return
            if number == signal.SIGKILL:
                # What forked meanwhile is killed as well.
                _send(net, number)
            time.sleep(POLL_S)
    left = ", ".join(str(pid) for pid in list(_processes(net))[:10])
    raise Refused("BUSY", f"processes do not end: {left}")


def _send(net: int, number: signal.Signals) -> None:
    for pid in _processes(net):
        with suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                # The number may have passed on to another process before we held it.
                if _net_of(PROC / str(pid)) == net:
                    signal.pidfd_send_signal(pidfd, number)
            finally:
                os.close(pidfd)


def _processes(net: int) -> Iterator[int]:
    for folder in PROC.iterdir():
        if folder.name.isdigit() and _net_of(folder) == net and not _is_zombie(folder):
            yield int(folder.name)


def _net_of(folder: Path) -> int:
    try:
        return (folder / "ns/net").stat().st_ino
    except OSError:
        return 0


def _is_zombie(folder: Path) -> bool:
    try:
        return (folder / "stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except (OSError, IndexError):
        return True
