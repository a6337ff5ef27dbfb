"""A host of the test's own: mount and network namespace, with an empty /run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hostlerd.netns.kernel.syscalls import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    MS_PRIVATE,
    MS_REC,
    mount,
    setns,
    unshare,
)


@contextmanager
def own_host() -> Iterator[None]:
    """Move the thread of the tests there, with what it starts; the kernel cleans up afterwards."""
    here = [os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY) for kind in ("mnt", "net")]
    folder = os.open(".", os.O_RDONLY)
    unshare(CLONE_NEWNS | CLONE_NEWNET)
    try:
        mount("none", "/", MS_REC | MS_PRIVATE)
        mount("none", "/run", 0, "tmpfs")
        yield
    finally:
        for fd, kind in zip(here, (CLONE_NEWNS, CLONE_NEWNET), strict=True):
            _go_back(fd, kind)
        os.fchdir(folder)
        os.close(folder)


def _go_back(fd: int, kind: int) -> None:
    """Enter a namespace; a joined thread may still be ending, and then the kernel refuses."""
    deadline = time.monotonic() + 5
    while True:
        try:
            setns(fd, kind)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    os.close(fd)
