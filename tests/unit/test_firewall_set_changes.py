"""A static set that changes: what is added to it, and when it is filled anew."""

from __future__ import annotations

import re

from firewall_generated import patient
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.firewall.kernel.transaction import Listed, step
from hostlerd.firewall.model.document import parse
from hostlerd.firewall.model.state import EVERYWHERE, State
from hostlerd.firewall.model.steps import ReplaceTable
from hostlerd.firewall.plan import change
from hostlerd.firewall.plan.table import compile_table

_COMMAND = re.compile(r"(flush set|add element) inet hostler bad_4(?: \{ (.*) \})?")
_SOME = st.sets(st.integers(0, 40).map(lambda n: f"10.0.{n}.1"), max_size=12)


def table(elements: set[str]) -> str:
    sets = [{"name": "bad", "elements": sorted(elements)}]
    return compile_table([parse({"name": "web", "address_sets": sets})], EVERYWHERE)


@patient
@given(_SOME, _SOME, st.booleans())
def test_commands_lead_there_and_add_no_more_than_what_is_new(
    have: set[str], want: set[str], grows: bool
) -> None:
    want = have | want if grows else want
    held, written = set(have), 0
    for line in step(table(have), table(want), Listed()).splitlines():
        command = _COMMAND.fullmatch(line)
        assert command, line
        if command[1] == "flush set":
            assert not have <= want
            held.clear()
        else:
            named = command[2].split(", ")
            written += len(named)
            assert not held & set(named)
            held |= set(named)
    assert held == want
    if have <= want:
        assert written == len(want - have)


def test_a_plan_tells_how_many_come_and_go() -> None:
    def document(*elements: str) -> dict[str, object]:
        return {"name": "web", "address_sets": [{"name": "bad", "elements": [*elements]}]}

    before = document("192.0.2.1", "192.0.2.3", "fd00::1")
    after = document("192.0.2.3", *(f"10.0.{n}.1" for n in range(9)), "fd00::1")
    plan = change.apply(parse(after), State(rulesets={"web": parse(before)}))
    (made,) = (s for s in plan.steps if isinstance(s, ReplaceTable))
    assert made.changes[0] == (
        "web: set bad: 10.0.0.1,10.0.1.1,10.0.2.1,10.0.3.1 and 7 more "
        "(add 9: 10.0.0.1,10.0.1.1,10.0.2.1,10.0.3.1 and 5 more; remove 1: 192.0.2.1)"
    )
