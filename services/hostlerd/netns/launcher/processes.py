"""Processes: started, stopped, signalled, and told about, as units of systemd."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hostlerd.privileged.refused import Refused

from . import handles, store, units
from .endings import retire, settle, why
from .resolve import Account, resolve

POLL_S = 0.02
SHAPE = (
    *("user", "group", "working_directory", "private_tmp", "private_uts", "private_ipc"),
    "private_pid",
)
MAX_WORDS, MAX_WORD = 64, 128
STOP_MARGIN_S = 15

_busy: set[tuple[str, str]] = set()
_free = threading.Condition()


@contextmanager
def exclusively(namespace: str, name: str) -> Iterator[None]:
    """Keep others from starting or stopping this process meanwhile."""
    key = (namespace, name)
    with _free:
        if not _free.wait_for(lambda: key not in _busy, timeout=units.TIMEOUT_S):
            raise Refused("BUSY", "the process is being started or stopped")
        _busy.add(key)
    try:
        yield
    finally:
        with _free:
            _busy.discard(key)
            _free.notify_all()


def start(unit: dict[str, Any]) -> dict[str, Any]:
    """Start a process that goes on by itself. Refused: START_FAILED, and then nothing is left."""
    namespace, name = unit["namespace"], unit["name"]
    with exclusively(namespace, name):
        prepare(unit)
        try:
            done = subprocess.run(
                [units.SYSTEMD_RUN, *units.compose(unit)],
                env=units.ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=units.START_TIMEOUT_S + STOP_MARGIN_S,
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            discard(unit)
            raise Refused("START_FAILED", f"systemd-run: {e}") from e
        if words := _why_not(unit, done):
            discard(unit)
            raise Refused("START_FAILED", words[:1000])
        _went_live(unit)
        return {"unit": units.unit_name(namespace, name), "pid": _pid(namespace, name, unit)}


def _why_not(unit: dict[str, Any], done: subprocess.CompletedProcess[bytes]) -> str:
    """Wait until the process runs, or has run; answers why it never did, in words."""
    namespace, name = unit["namespace"], unit["name"]
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        return why(namespace, name) or said or "systemd did not start it"
    deadline = time.monotonic() + units.START_TIMEOUT_S
    while time.monotonic() < deadline:
        properties = units.show(units.unit_name(namespace, name)).get((namespace, name))
        if units.runs(properties):
            return ""
        if units.words(properties) or units.has_ended(properties):
            return why(namespace, name)
        time.sleep(POLL_S)
    return f"it did not begin within {units.START_TIMEOUT_S} s"


def stop(namespace: str, name: str) -> None:
    """Stop a process with its children, and forget it; one that is not there is as it should be."""
    with exclusively(namespace, name):
        unit = store.load(namespace, name)
        was_live = store.is_live(namespace, name)
        wait_s = STOP_MARGIN_S + (unit["stop_timeout_ms"] / 1000 if unit else units.TIMEOUT_S)
        stop_unit(namespace, name, wait_s)
        store.forget(namespace, name)
        if unit and was_live and unit["remove_namespace"]:
            retire(namespace)


def send_signal(namespace: str, name: str, word: str) -> None:
    """Send a signal to the process itself. Refused: PROCESS_NOT_RUNNING."""
    properties = units.show(units.unit_name(namespace, name)).get((namespace, name))
    unit = store.load(namespace, name)
    pid = units.main_pid(properties, bool(unit and unit["private_pid"])) if properties else 0
    gone = Refused("PROCESS_NOT_RUNNING", "the process does not run")
    if not pid or properties is None:
        raise gone
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        raise gone from None
    try:
        # The number may have passed on to another process before we held it.
        group = Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition("::")[2]
        if not group.endswith("/" + units.unit_name(namespace, name)):
            raise gone
        signal.pidfd_send_signal(pidfd, signal.Signals[word])
    except (ProcessLookupError, FileNotFoundError):
        raise gone from None
    finally:
        os.close(pidfd)


def status(namespace: str = "", name: str = "") -> list[dict[str, Any]]:
    """What is known of processes: those that systemd has loaded, and those that have ended."""
    found = units.show(units.pattern(namespace, name))
    ended = {
        names
        for names in store.known()
        if units.in_grammar(*names) and namespace in {"", names[0]} and name in {"", names[1]}
    }
    return [_status(*names, found.get(names)) for names in sorted(ended | set(found))]


def prepare(unit: dict[str, Any]) -> Account:
    """Check what the host has to have for it, and save it. Refused: whatever is in the way."""
    namespace, name = unit["namespace"], unit["name"]
    if not handles.exists(namespace):
        raise Refused("NAMESPACE_NOT_FOUND", f"there is no network namespace {namespace}")
    account, _ = resolve(unit)
    properties = units.show(units.unit_name(namespace, name)).get((namespace, name))
    if units.is_active(properties):
        raise Refused("PROCESS_EXISTS", f"{namespace}/{name} runs already")
    if properties:
        stop_unit(namespace, name, units.TIMEOUT_S)
    store.save(unit)
    return account


def _went_live(unit: dict[str, Any]) -> None:
    """Note that it runs; if it has ended since, do what its end would have done."""
    namespace, name = unit["namespace"], unit["name"]
    store.set_live(namespace, name)
    if not units.is_active(units.show(units.unit_name(namespace, name)).get((namespace, name))):
        settle(namespace, name)


def discard(unit: dict[str, Any]) -> None:
    """Leave nothing of it."""
    namespace, name = unit["namespace"], unit["name"]
    stop_unit(namespace, name, STOP_MARGIN_S + unit["stop_timeout_ms"] / 1000)
    store.forget(namespace, name)


def stop_unit(namespace: str, name: str, wait_s: float) -> None:
    """Stop a unit, loaded or not, and have systemd forget that it failed."""
    unit = units.unit_name(namespace, name)
    units.systemctl("stop", "--", unit, timeout_s=wait_s)
    units.systemctl("reset-failed", "--", unit)


def _pid(namespace: str, name: str, unit: dict[str, Any]) -> int:
    properties = units.show(units.unit_name(namespace, name)).get((namespace, name))
    return units.main_pid(properties, unit["private_pid"]) if properties else 0


def _status(namespace: str, name: str, properties: dict[str, str] | None) -> dict[str, Any]:
    unit = store.load(namespace, name)
    shown = properties or {}
    end = store.load_end(namespace, name) or {}
    pid = units.main_pid(shown, bool(unit and unit["private_pid"]))
    return {
        "namespace": namespace,
        "name": name,
        "shape": _shape(unit) if unit else {},
        "unit": units.unit_name(namespace, name),
        "active": shown.get("ActiveState", "inactive"),
        "sub": shown.get("SubState", "dead"),
        "main_pid": pid,
        "net_inode": _net_inode(pid) if pid else 0,
        "end": {k: v for k, v in end.items() if k != "words"},
        "words": units.words(shown) or end.get("words", ""),
        "start_time": _number(
            (shown.get("ExecMainStartTimestamp") or end.get("start_time", "")).lstrip("@")
        ),
        "restarts": _number(shown.get("NRestarts") or end.get("restarts", "")),
        "memory_bytes": _number(shown.get("MemoryCurrent", "")),
        "cpu_ns": _number(shown.get("CPUUsageNSec", "")),
        "tasks": _number(shown.get("TasksCurrent", "")),
    }


def _net_inode(pid: int) -> int:
    """The network namespace that a process is in, as in net:[INODE]; 0 if it has just gone."""
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return 0


def _shape(unit: dict[str, Any]) -> dict[str, Any]:
    """What a unit was started with, short, and without its environment."""
    shown = {key: unit[key] for key in SHAPE}
    return {**shown, "argv": [word[:MAX_WORD] for word in unit["argv"][:MAX_WORDS]]}


def _number(value: str) -> int:
    """A number that systemd showed; 0 where it has none, which it says in two ways."""
    number = int(value) if value.isdigit() else 0
    return 0 if number == 2**64 - 1 else number
