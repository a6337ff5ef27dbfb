"""Streams that go on after a cut: where they go on, and how long a host is waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hostler.results import HostError
    from hostler.session import Retry

# Is given a request and a response to it, and makes the request ask for what comes after.
Resume = Callable[[Any, Any], None]

# What a daemon sends as soon as it has let a stream in.
OPENED = ("hostler-stream", "open")
_CUT = frozenset({"UNAVAILABLE", "CANCELLED"})


def after_seq(request: Any, response: Any) -> None:
    """Go on after the response's `seq`: right for every stream whose request has `after_seq`."""
    request.after_seq = response.seq


class Outage:
    """The time in which a stream is not open, from its cut, or its first call, until it is.

    Times are those of the loop, in seconds. A host that never let the stream in and cannot be
    reached is given up after `Retry.connect_s`, or `Retry.start_s` if a daemon of it is starting,
    any other after `Retry.resume_s`.
    """

    def __init__(self, retry: Retry, now_s: float, timeout_s: float | None) -> None:
        self._retry = retry
        self._deadline_s = None if timeout_s is None else now_s + timeout_s
        self._since_s: float | None = now_s
        self._attempt = 0
        self._was_open = False

    def over(self) -> None:
        """Note that the stream is open."""
        self._since_s, self._attempt, self._was_open = None, 0, True

    def left_s(self, now_s: float) -> float | None:
        """How long the stream may still take in all; None if for ever."""
        return None if self._deadline_s is None else max(0.001, self._deadline_s - now_s)

    def pause_s(self, failure: HostError, now_s: float, *, starts: bool) -> float | None:
        """How long to wait before the stream is opened again; None if it is given up.

        `starts` tells that the door takes connections, although nobody behind it does yet.
        """
        self._attempt += 1
        if self._since_s is None:
            self._since_s = now_s
        pause_s = self._retry.pause_s(self._attempt)
        unreachable = failure.reason == "UNREACHABLE" and not self._was_open
        unreached_s = self._retry.start_s if starts else self._retry.connect_s
        patience_s = unreached_s if unreachable else self._retry.resume_s
        if failure.code not in _CUT or failure.reason == "TLS_HANDSHAKE_FAILED":
            return None
        if now_s + pause_s - self._since_s > patience_s:
            return None
        if self._deadline_s is not None and now_s + pause_s >= self._deadline_s:
            return None
        return pause_s
