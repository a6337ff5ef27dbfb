"""Requests whose callers have gone: not begun any more, and waited for once they were.

A daemon that is killed leaves behind what it has asked for: in the socket, waiting for a lock, in
the middle of a tool. The next daemon takes that back or carries it on, and none of it may come
after: what was not begun is let fall, and what was is through before another request is begun.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hostlerd.privileged.refused import Refused

WAIT_S = 45.0
"""Less than systemd gives a daemon to start, which waits here for what was left behind."""
_LOOK_S = 0.02


class Turns:
    """The requests of one program that change something, each with its caller's connection."""

    def __init__(self, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._going: list[socket.socket] = []

    @contextmanager
    def taken(self, peer: socket.socket) -> Iterator[None]:
        """Carry a request out, if its caller is there still, after those whose callers are not.

        Raises Refused: CALLER_GONE, or ORPHAN_GOES_ON if one of those takes too long.
        """
        end = time.monotonic() + self._wait_s
        while not self._begun(peer):
            if time.monotonic() > end:
                words = "what a caller that has gone had asked for goes on still"
                raise Refused("ORPHAN_GOES_ON", words)
            time.sleep(_LOOK_S)
        try:
            yield
        finally:
            with self._lock:
                self._going.remove(peer)

    def _begun(self, peer: socket.socket) -> bool:
        # In one piece: whoever is let in here was there after all whom the others wait for.
        with self._lock:
            if is_gone(peer):
                raise Refused("CALLER_GONE", "nobody waits for the answer: nothing was done")
            if any(is_gone(one) for one in self._going):
                return False
            self._going.append(peer)
            return True


def is_gone(peer: socket.socket) -> bool:
    """Whether the other end of a connection was closed, as a kill does; unread bytes or not."""
    poll = select.poll()
    # POLLHUP is told in any case; a caller that only has nothing more to say is still there.
    poll.register(peer, 0)
    return bool(poll.poll(0))
