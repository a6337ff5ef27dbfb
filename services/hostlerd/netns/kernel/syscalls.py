"""System calls on namespaces and mounts, and threads that may enter namespaces.

The kernel keeps namespaces per thread: whatever enters one runs in a thread of its own, which ends
with it or (see `worker`) goes back, so that no thread of the daemon is ever left in a place it does
not know of. Sources: unshare(2), setns(2), mount(2), umount2(2).
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 0x1000, 0x4000, 1 << 18, 1 << 20
MNT_DETACH = 2

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, about: str) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), about)


def unshare(flags: int) -> None:
    """Move the calling thread to new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int = CLONE_NEWNET) -> None:
    """Move the calling thread to the namespace that `fd` refers to."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, flags: int, fstype: str = "none") -> None:
    """Make a mount, or change the propagation of one."""
    what = (source.encode(), os.fsencode(target), fstype.encode())
    _check(_libc.mount(*what, ctypes.c_ulong(flags), None), target)


def umount(target: str) -> None:
    """Detach a mount, even if it is in use. Source: umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), target)


def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a throw-away thread; answer what it answers, raise what it raises.

    Wherever it went, it ends in its maker's network namespace: the kernel may take a while to let
    go of a thread that has been joined, and what it was in looked busy until then.
    """
    answers: list[T] = []
    errors: list[BaseException] = []
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def run() -> None:
        try:
            answers.append(work())
        except BaseException as e:  # noqa: BLE001 - it is raised again, in the caller's thread
            errors.append(e)
        # Without the leave to go back it has had none to go elsewhere, either.
        with suppress(OSError):
            setns(home)

    thread = threading.Thread(target=run, name="netns")
    try:
        thread.start()
        thread.join()
    finally:
        os.close(home)
    if errors:
        raise errors[0]
    return answers[0]


def in_namespace(fd: int, work: Callable[[], T]) -> T:
    """Run `work` in the network namespace that `fd` refers to."""

    def enter() -> T:
        setns(fd)
        return work()

    return in_thread(enter)
