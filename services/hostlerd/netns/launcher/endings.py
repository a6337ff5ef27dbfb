"""What is to be done when a process has ended: noting how, and removing what was to go with it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from hostlerd.privileged.refused import Refused

from . import handles, libc, store, units

# The daemon's own note that it made the namespace; it goes with the handle.
SPECS = Path("/run/hostler-netns/namespaces")
# Results of systemd.exec(5), $SERVICE_RESULT, with which a process never began.
NEVER_BEGAN = frozenset({"timeout", "resources", "oom-kill"})


def ended(namespace: str, name: str) -> None:
    """Note how a process ended, and remove what was to go with it. Run by systemd."""
    # systemd 252 gives this command a copy of the host's mounts, "+" or not.
    libc.setns("/proc/1/ns/mnt", libc.CLONE_NEWNS)
    properties = units.show(units.unit_name(namespace, name)).get((namespace, name), {})
    result = os.environ.get("SERVICE_RESULT", "")
    end = {
        "result": result,
        "exit_code": os.environ.get("EXIT_CODE", ""),
        "exit_status": os.environ.get("EXIT_STATUS", ""),
        "words": units.words(properties),
        "start_time": properties.get("ExecMainStartTimestamp", ""),
        "restarts": properties.get("NRestarts", "0"),
    }
    store.save_end(namespace, name, end)
    try:
        unit = store.load(namespace, name)
    except Refused:
        unit = None
    # A job on the unit is somebody stopping it: then no policy starts it again.
    stopped = properties.get("Job", "0") not in {"", "0"}
    policy = unit["restart"] if unit else "never"
    if policy == "never" or stopped or (policy == "on-failure" and result == "success"):
        settle(namespace, name)


def settle(namespace: str, name: str) -> None:
    """It will not run again: its secrets go, and its namespace if that was to go with it.

    Not before its start has succeeded: what failed to start leaves all as it was.
    """
    unit = store.load(namespace, name)
    if unit is None or not store.is_live(namespace, name):
        return
    store.drop_unit(namespace, name)
    if unit["remove_namespace"]:
        retire(namespace, name)


def retire(namespace: str, ended_name: str = "") -> None:
    """Remove a namespace's handle, unless a process of ours is left in it."""
    for (_, name), properties in units.show(units.pattern(namespace)).items():
        if name != ended_name and units.is_active(properties):
            return
    handles.detach([namespace])
    _unlink(SPECS, f"{namespace}.json")
    etc = units.ETC[0] / namespace
    for file in units.ETC_FILES:
        _unlink(etc, file)
    with suppress(OSError):
        etc.rmdir()


def why(namespace: str, name: str) -> str:
    """Why a process never began, in words; empty if it did."""
    properties = units.show(units.unit_name(namespace, name)).get((namespace, name), {})
    end = store.load_end(namespace, name) or {}
    if words := units.words(properties) or end.get("words", ""):
        return words
    result = end.get("result") or properties.get("Result", "")
    if result not in NEVER_BEGAN:
        return ""
    how = f"{end.get('exit_code', '')} {end.get('exit_status', '')}".strip()
    limit = "; its memory limit is too low to start" if result == "oom-kill" else ""
    return f"systemd says {result}{f' ({how})' if how else ''}{limit}"


def _unlink(folder: Path, name: str) -> None:
    """Remove a file of the daemon's, and never one that a link leads to."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.unlink(name, dir_fd=fd)
        finally:
            os.close(fd)
