"""Waiting for descriptors, whatever their numbers: select(2) ends at 1024."""

from __future__ import annotations

import select
from typing import Protocol


class HasFileno(Protocol):
    """A socket, for example."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...


def readable(timeout_s: float | None, *files: int | HasFileno) -> list[bool]:
    """Wait until one can be read or has been cut off, and say of each whether it has."""
    fds = [f if isinstance(f, int) else f.fileno() for f in files]
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    ready = {fd for fd, _ in poll.poll(None if timeout_s is None else timeout_s * 1000)}
    return [fd in ready for fd in fds]
