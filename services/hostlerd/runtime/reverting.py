"""The process `revert`: what the watcher starts when this domain's turn has come."""

from __future__ import annotations

from hostlerd.runtime.audit import AuditLog
from hostlerd.runtime.domain import Domain, Runtime


def revert(runtime: Runtime, domain: Domain) -> int:
    """Take back, or release, this domain's part of the pending group. Answers the exit status.

    A change that goes on is waited for.
    """
    audit = AuditLog.of(runtime.paths, runtime.configuration)
    try:
        runtime.recovery.record_in(audit)
        with runtime.lock.held_here():
            runtime.recovery.look()
            return 0 if runtime.taking_back.in_turn(audit) else 1
    finally:
        audit.close()
