"""Runs: processes whose caller stays with them, on the caller's own descriptors."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hostlerd.privileged.refused import Refused

from . import libc, store, units
from .endings import retire, why
from .processes import STOP_MARGIN_S, discard, exclusively, prepare, stop_unit
from .resolve import Account
from .waiting import readable

Send = Callable[[dict[str, Any]], None]

POLL_S = 0.02
PIPEFS_MAGIC = 0x50495045


def run(unit: dict[str, Any], fds: list[int], watched: socket.socket, send: Send) -> None:
    """Run a process: tells that it runs, then how it has ended.

    It is stopped when the caller's connection is cut.
    """
    if unit["restart"] != "never" or len(fds) != 3:
        raise Refused("MALFORMED", "a run is never restarted, and takes three descriptors")
    namespace, name = unit["namespace"], unit["name"]
    with exclusively(namespace, name):
        _own_pipes(fds, prepare(unit))
        child = subprocess.Popen(
            [units.SYSTEMD_RUN, "--pipe", "--wait", *_bound_to_us(), *units.compose(unit)],
            # Whatever it says itself would be mixed into the process's standard error.
            env={**units.ENVIRONMENT, "SYSTEMD_LOG_TARGET": "null"},
            stdin=fds[0],
            stdout=fds[1],
            stderr=fds[2],
        )
        # The process's own copies are to be the last ones, or its reader would never see the end.
        while fds:
            os.close(fds.pop())
        try:
            told = _tell_started(unit, child, watched, send)
        except BaseException:
            _cut(unit, child)
            raise
    try:
        if not _wait(child, watched):
            _cut(unit, child)
            return
        _tell_ended(unit, told, send)
    finally:
        with exclusively(namespace, name):
            discard(unit)


def _own_pipes(fds: Sequence[int], account: Account) -> None:
    """Give pipes to who will use them: /dev/stdout is opened anew, with the rights of its user."""
    for fd in fds:
        if libc.filesystem_magic(fd) == PIPEFS_MAGIC:
            os.fchown(fd, account.uid, account.gid)


def _tell_started(
    unit: dict[str, Any], child: subprocess.Popen[bytes], watched: socket.socket, send: Send
) -> bool:
    """Wait until it runs and tell so; False if it ends before, or its caller goes."""
    namespace, name = unit["namespace"], unit["name"]
    full_name = units.unit_name(namespace, name)
    deadline = time.monotonic() + units.START_TIMEOUT_S + STOP_MARGIN_S
    while child.poll() is None and time.monotonic() < deadline:
        properties = units.show(full_name).get((namespace, name), {})
        if units.runs(properties):
            store.set_live(namespace, name)
            pid = units.main_pid(properties, unit["private_pid"])
            send({"more": True, "started": {"unit": full_name, "pid": pid}})
            return True
        if readable(POLL_S, watched)[0]:
            return False
    return False


def _tell_ended(unit: dict[str, Any], told: bool, send: Send) -> None:
    namespace, name = unit["namespace"], unit["name"]
    end = store.load_end(namespace, name)
    if end is None:
        raise Refused("START_FAILED", why(namespace, name) or "systemd did not start it")
    if not told:
        if words := why(namespace, name):
            raise Refused("START_FAILED", words)
        full_name = units.unit_name(namespace, name)
        send({"more": True, "started": {"unit": full_name, "pid": 0}})
    send({"ok": True, "exited": end})
    if unit["remove_namespace"]:
        retire(namespace, name)


def _wait(child: subprocess.Popen[bytes], watched: socket.socket) -> bool:
    """Wait for the child; False as soon as the caller has gone, or says anything out of turn."""
    if child.returncode is not None:
        return True
    pidfd = os.pidfd_open(child.pid)
    try:
        return readable(None, pidfd, watched)[0]
    finally:
        os.close(pidfd)


def _cut(unit: dict[str, Any], child: subprocess.Popen[bytes]) -> None:
    """Stop a run nobody waits for any more."""
    stop_unit(unit["namespace"], unit["name"], STOP_MARGIN_S + unit["stop_timeout_ms"] / 1000)
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout=STOP_MARGIN_S)
    if child.poll() is None:
        child.kill()
        child.wait()


def _bound_to_us() -> list[str]:
    """A run does not outlive the launcher, through which alone its caller hears of it."""
    group = Path("/proc/self/cgroup").read_text()
    if f"/{units.SERVICE}" not in group:
        return []
    return ["-p", f"BindsTo={units.SERVICE}", "-p", f"After={units.SERVICE}"]
