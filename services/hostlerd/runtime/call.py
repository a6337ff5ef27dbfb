"""Who is calling what: the facts of one call, as all stages of the chain share them."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from hostlerd.runtime.access import Method


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller whose identity is proven. `certificate_serial` is hex; empty for local callers."""

    identity: str
    peer: str
    local: bool
    certificate_serial: str = ""
    not_after: datetime | None = None


@dataclass(slots=True)
class Call:
    """One call on its way through the chain."""

    method: Method
    caller: Caller
    resources: tuple[str, ...] = ()
    request_json: str = ""
    started: float = field(default_factory=time.monotonic)
    checked_at: float = 0.0
    intent_seq: int = 0
    ended: bool = False
    # When the connection that it came by was accepted, by time.monotonic().
    connected_at: float = 0.0
    # Whether it came by TCP from another host.
    outside: bool = False
    # The id that the client gave to the run it belongs to; empty if it gave none.
    run: str = ""
    # Whether the policies let it through only if somebody else has approved it.
    approval_needed: bool = False

    @property
    def duration_s(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self.started


_CURRENT: ContextVar[Call] = ContextVar("call")


def enter(call: Call) -> None:
    """Make this the call that is being handled, in this context and those made from it."""
    _CURRENT.set(call)


def current() -> Call:
    """Answer the call that is being handled. Raises LookupError outside of any."""
    return _CURRENT.get()


class Progress(Protocol):
    """Is told how far a change has come."""

    def step(self, done: int, total: int, activity: str) -> None:
        """Note that so many steps are done and which comes next.

        May raise DomainError to stop the change, which is then undone.
        """
        ...


PROGRESS: ContextVar[Progress | None] = ContextVar("progress", default=None)
