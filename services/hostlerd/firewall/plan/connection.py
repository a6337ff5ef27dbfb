"""What a flush of connections does."""

from __future__ import annotations

from hostlerd.firewall.model.connection import ConnectionFilter, CutConnections
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan


def flush(wanted: ConnectionFilter, everything: bool, matching: int) -> Plan:
    """Cut the connections that match, of which there are so many; the plan's result is that number.

    Nothing to do where there are none.
    """
    check(wanted, everything)
    steps = (CutConnections((wanted,)),) if matching else ()
    return Plan(steps=steps, result=matching)


def check(wanted: ConnectionFilter, everything: bool) -> None:
    """Raise InvalidRequest if it does not say whether all connections are meant, or which."""
    if wanted == ConnectionFilter() and not everything:
        fault = "must have a field that is set, unless all is"
        raise InvalidRequest.of([Violation("filter", fault)])
    if wanted != ConnectionFilter() and everything:
        raise InvalidRequest.of([Violation("all", "must not be given with a filter")])
