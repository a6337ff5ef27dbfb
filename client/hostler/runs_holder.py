"""The process that carries out a run: how it is named, and whether it is still there."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def this_process() -> str:
    """This process, so that no other one at any time has the same name. Source: proc(5)."""
    return json.dumps({**_place(), "pid": os.getpid(), "start": _start(os.getpid())})


def is_gone(holder: str) -> bool:
    """Whether a process is certainly gone: it was of this boot and namespace, and is not there."""
    try:
        told = json.loads(holder)
        here = all(told[key] == value for key, value in _place().items())
        return here and _start(int(told["pid"])) != told["start"]
    except (KeyError, TypeError, ValueError):
        return False


def _place() -> dict[str, str]:
    return {
        "machine": socket.gethostname(),
        "boot": _BOOT.read_text().strip(),
        "namespace": str(Path("/proc/self/ns/pid").readlink()),
    }


def _start(pid: int) -> str:
    """When a process began, in ticks since the boot; empty if there is none, or it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    # The name before it is in parentheses and may itself have some.
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]
