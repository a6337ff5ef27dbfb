"""Who is calling what: the facts of one call, as all stages of the chain share them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime

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

    @property
    def duration_s(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self.started
