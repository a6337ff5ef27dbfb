"""What filters of callers look at. numpy comes with it, and not before somebody traces."""

from __future__ import annotations

from functools import lru_cache

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.tracing.errors import FilterSeesPayloads
from hostlerd.tracing.model.trace import Payload
from hostlerd.tracing.plan import trace as plan


def faults_of(text: str, payload: Payload, field: str) -> tuple[plan.Fault, ...]:
    """What is wrong with a filter of a trace that carries so much; `field` is where it came in."""
    from hostler.core.trace.filter import FilterInvalid

    try:
        needs = _needs(text)
    except FilterInvalid as e:
        return ((field, f"{e}\n{e.caret()}"),)
    return tuple((field, what) for _, what in plan.withheld(needs, payload))


def check(text: str, payload: Payload, field: str) -> None:
    """Raise InvalidRequest if a filter cannot be applied."""
    if faults := faults_of(text, payload, field):
        raise InvalidRequest.of([Violation(*fault) for fault in faults])


def sees_payloads(text: str) -> bool:
    """Whether what passes a filter tells what calls carried, as the filter itself may."""
    return bool(_needs(text))


def check_to_be_told(text: str, name: str) -> None:
    """Raise FilterSeesPayloads if what passes a trace's filter tells what calls carried."""
    if sees_payloads(text):
        raise FilterSeesPayloads("its filter looks at payloads", name=name)


@lru_cache(maxsize=256)
def _needs(text: str) -> frozenset[str]:
    from hostler.core.trace.field import Need
    from hostler.core.trace.filter import compile_filter

    if not text:
        return frozenset()
    compiled = compile_filter(text)
    return frozenset(n.name.lower() for n in Need if n in compiled.needs and n.name)
