"""Who is calling what: the facts of one call, as all stages of the chain share them."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime import log
from hostlerd.runtime.access import Method


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller whose identity is proven. `certificate_serial` is hex; empty for local callers.

    `chain` is the PEM of the certificates that were shown; empty for local callers, and for those
    who are remembered and on no connection.
    """

    identity: str
    peer: str
    local: bool
    certificate_serial: str = ""
    not_after: datetime | None = None
    chain: bytes = field(default=b"", repr=False)

    @property
    def address(self) -> str:
        """The address that a remote caller calls from; empty for local ones."""
        if self.local:
            return ""
        host, _, _ = self.peer.rpartition(":")
        return host.strip("[]").partition("%")[0]


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
    # Whether it only asks for the plan.
    validate_only: bool = False
    # Whether the policies let it through only if somebody else has approved it.
    approval_needed: bool = False
    # The id that its caller drew for the change, and the approval that let it through.
    request_id: str = ""
    approval: str = ""
    # The SHA-256 of the request, in hex, and the id under which its change is journalled.
    body_sha256: str = ""
    change_id: str = ""
    # The job that it was taken on as, or that carries it out; empty if none.
    job: str = ""

    @property
    def duration_s(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self.started


_CURRENT: ContextVar[Call] = ContextVar("call")


def enter(call: Call) -> None:
    """Make this the call that is being handled, in this context and those made from it."""
    _CURRENT.set(call)
    log.bind(
        method=call.method.name,
        identity=call.caller.identity,
        peer=call.caller.peer,
        run=call.run,
    )


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

    def stays(self, words: str) -> None:
        """A step was done that is not taken back, whatever comes."""
        ...

    def applied(self, change: change_pb2.Change) -> None:
        """All steps are done; this is what the caller will be answered. Raises OSError."""
        ...

    def follow(self, unit: str, words: str, leaves: str) -> None:
        """What the steps have begun goes on by itself; `step` tells how many units are done of it.

        `words` say what goes on if the process dies, `leaves` what stays if it is cancelled, empty
        if whoever follows takes it back then. Raises OSError.
        """
        ...


PROGRESS: ContextVar[Progress | None] = ContextVar("progress", default=None)
