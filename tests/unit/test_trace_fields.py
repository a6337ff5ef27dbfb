"""The fields of the filter language: what each reads, and what is known and not served."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from trace_rows import Call, batch
from trace_world import READ

from hostler.core.trace.field import Kind
from hostler.core.trace.fields import FieldUnknown, all_families, all_fields, find
from hostler.core.trace.values import Numbers, Words

SYSDIG = Path(__file__).parents[1] / "trace_support" / "sysdig_fields.txt"


def sysdig_names() -> list[str]:
    lines = SYSDIG.read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("name", sysdig_names())
def test_each_field_of_sysdig_is_served_or_says_why_not(name: str) -> None:
    try:
        assert find(name).meaning
    except FieldUnknown as e:
        taken = name in all_families() and f"{name} takes an argument" in str(e)
        assert taken or re.search(r"is known to sysdig and not served: \w", str(e))


def test_most_fields_about_calls_are_served() -> None:
    served = [n for n in sysdig_names() if n in all_fields() or n in all_families()]
    assert len(served) >= 118


EVERY = [
    *all_fields().values(),
    *map(find, ("evt.arg.flags", "evt.rawarg.fd", "evt.type.is.read", "evt.abspath.src")),
    *map(find, ("proc.apid[2]", "proc.aname[1]", "evt.around[5]")),
]


@pytest.mark.parametrize("field", EVERY, ids=lambda field: field.name)
@pytest.mark.parametrize("calls", [[], [READ], [Call("exit_group")]], ids=["none", "read", "exit"])
def test_each_field_reads_any_batch_and_is_as_long_as_it(field: Any, calls: list[Call]) -> None:
    events = batch(calls)
    for side in field.sides(events):
        assert len(side) == len(side.present()) == len(events)
        is_text = field.kind in (Kind.TEXT, Kind.BYTES, Kind.ADDRESS)
        assert isinstance(side, Words if is_text else Numbers)
        for i in range(len(events)):
            assert (side.at(i) is not None) == side.present()[i]
