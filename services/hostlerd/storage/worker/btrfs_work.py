"""What btrfs does for long, each in a thread of its own: the kernel does it in the call that asks.

It goes on when whoever asked for it has gone; what it came to is kept as long as the worker lives.
"""

from __future__ import annotations

import os
import threading
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from hostlerd.storage.model.btrfs import Work
from hostlerd.storage.worker import btrfs_mount
from hostlerd.storage.worker.refused import Refused

_BEGIN_S = 5.0
_LOOK_S = 0.02
_CEASE_S = 60.0


class Long(Protocol):
    """One thing that lasts. Each method is given a descriptor of the filesystem."""

    kind: str

    def run(self, fd: int) -> None:
        """Do it to its end. Raises OSError, also where it was cancelled."""

    def progress(self, fd: int) -> Work | None:
        """How far it is; None if the kernel knows of none. Raises OSError."""

    def cancel(self, fd: int) -> None:
        """Have it cease. Raises OSError."""


@dataclass
class _Running:
    long: Long
    fd: int
    thread: threading.Thread | None = None
    seen: Work | None = None
    error: OSError | None = None
    is_cancelled: bool = False
    ended: threading.Event = field(default_factory=threading.Event)


_LOCK = threading.Lock()
_KNOWN: dict[tuple[str, str], _Running] = {}


def is_running() -> bool:
    """Whether anything is, so that the worker must not end."""
    with _LOCK:
        return any(not one.ended.is_set() for one in _KNOWN.values())


def start(uuid: str, long: Long, *, writable: bool) -> None:
    """Begin something, unless it goes on already; come back when it has begun or has ended.

    Raises Refused, OSError: what the kernel says at once.
    """
    key = (uuid, long.kind)
    with _LOCK:
        known = _KNOWN.get(key)
        if known is not None and not known.ended.is_set():
            return
        one = _Running(long, btrfs_mount.descriptor(uuid, writable=writable))
        _KNOWN[key] = one
        one.thread = threading.Thread(target=_run, args=(one,), name=long.kind)
        one.thread.start()
    with btrfs_mount.opened(uuid) as fd:
        waited = 0.0
        while waited < _BEGIN_S and not one.ended.wait(_LOOK_S) and _look(one, fd) is None:
            waited += _LOOK_S
    if one.error is not None:
        with _LOCK:
            del _KNOWN[key]
        raise one.error


def _run(one: _Running) -> None:
    try:
        one.long.run(one.fd)
    except OSError as e:
        one.error = e
    finally:
        one.ended.set()
        os.close(one.fd)


def look(uuid: str, kind: str) -> dict[str, Any]:
    """How far something is, or what it came to."""
    with _LOCK:
        one = _KNOWN.get((uuid, kind))
    if one is None:
        return asdict(Work(kind, "none"))
    with btrfs_mount.opened(uuid) as fd:
        return asdict(_state(one, fd))


def _state(one: _Running, fd: int) -> Work:
    has_ended = one.ended.is_set()
    last = _look(one, fd) or one.seen or Work(one.long.kind, "running")
    if not has_ended:
        return replace(last, state="running")
    failed = one.error is not None and not one.is_cancelled
    return replace(
        last,
        state="failed" if failed else "done",
        error=str(one.error.strerror) if failed and one.error is not None else "",
        is_cancelled=one.is_cancelled,
    )


def _look(one: _Running, fd: int) -> Work | None:
    try:
        seen = one.long.progress(fd)
    except OSError:
        return None
    if seen is not None:
        one.seen = seen
    return seen


def cancel(uuid: str, kind: str) -> None:
    """Have something cease, and wait until it has. Raises Refused, OSError."""
    with _LOCK:
        one = _KNOWN.get((uuid, kind))
    if one is None or one.ended.is_set():
        return
    one.is_cancelled = True
    with btrfs_mount.opened(uuid) as fd:
        one.long.cancel(fd)
    if not one.ended.wait(_CEASE_S):
        raise Refused("BTRFS_BUSY", f"{kind} does not cease", filesystem=uuid)
