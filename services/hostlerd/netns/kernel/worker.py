"""A thread that enters network namespaces for one session, and leaves each after its work."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hostlerd.netns.kernel.syscalls import CLONE_NEWNET, setns, unshare

T = TypeVar("T")


class Worker:
    """One thread for the work inside many namespaces: to start one for each takes longer.

    Between two works it is where its maker was, so that no namespace is kept alive, or looks busy,
    because of it.
    """

    def __init__(self) -> None:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._thread = ThreadPoolExecutor(1, "netns")

    def close(self) -> None:
        """End the thread; work goes on until it is done."""
        self._thread.shutdown()
        os.close(self._home)

    def inside(self, fd: int, work: Callable[[], T]) -> T:
        """Run `work` in the network namespace that `fd` refers to; raise what it raises."""
        return self._thread.submit(self._visit, lambda: setns(fd), work).result()

    def inside_new(self, work: Callable[[], T]) -> T:
        """Run `work` in a network namespace that is new; it ends unless `work` keeps hold of it."""
        return self._thread.submit(self._visit, lambda: unshare(CLONE_NEWNET), work).result()

    def _visit(self, enter: Callable[[], None], work: Callable[[], T]) -> T:
        enter()
        try:
            return work()
        finally:
            # Should that fail, the thread ends with its session, and the next visit is not harmed.
            setns(self._home)
