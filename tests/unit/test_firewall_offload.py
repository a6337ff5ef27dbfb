"""Flowtables of links that are gone, or not there yet: the rest of the rules stands as ever."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from hostlerd.firewall.kernel.text import has_flowtables
from hostlerd.firewall.model.document import parse
from hostlerd.firewall.model.state import EVERYWHERE, Applied, State, Table
from hostlerd.firewall.model.steps import ReplaceTable
from hostlerd.firewall.plan import change
from hostlerd.firewall.plan.table import compile_table

FAST = parse(
    {
        "name": "fast",
        "forward_policy": "drop",
        "flowtables": [
            {"name": "both", "ifnames": ["eth0", "wg0"]},
            {"name": "one", "ifnames": ["wg0"]},
        ],
    }
)
OTHER = parse({"name": "other", "rules": [{"hook": "input", "action": "accept"}]})
THERE, GONE = frozenset({"lo", "eth0", "wg0"}), frozenset({"lo", "eth0"})


def applied(links: frozenset[str]) -> State:
    """The host with the ruleset in force, as it was applied while it had these links."""
    state = State(rulesets={"fast": FAST}, links=links)
    text = change.tables(state.rulesets, state)
    made = Applied("of it", hashlib.sha256(text.encode()).hexdigest())
    return replace(state, table=Table("of it"), applied=made)


def table(state: State) -> str:
    (step,) = change.apply(OTHER, state).steps[1:]
    assert isinstance(step, ReplaceTable)
    return step.text


def test_with_all_links_it_is_what_it_says() -> None:
    state = applied(THERE)
    assert table(state) == compile_table([FAST, OTHER], EVERYWHERE)
    assert change.drift(state) == ()
    assert change.restore(state.rulesets, state).steps == ()


def test_what_a_gone_link_leaves() -> None:
    text = table(applied(GONE))
    assert 'devices = { "eth0" }' in text
    assert "wg0" not in text
    # A flowtable without a link is none, and no rule may name it.
    assert "flow add @both" in text
    assert "@one" not in text and "flowtable one" not in text
    assert "policy drop" in text
    assert has_flowtables(text)
    assert not has_flowtables(table(applied(frozenset({"lo"}))))


def test_what_is_lacking_is_told() -> None:
    assert change.drift(applied(GONE)) == (
        "flowtable both goes without wg0, which is not there",
        "flowtable one goes without wg0, which is not there",
    )
    notices = change.apply(OTHER, applied(GONE)).notices
    assert [n.code for n in notices] == ["DRIFT", "DRIFT"]


def test_a_link_that_is_back_is_taken_in_by_the_next_change() -> None:
    state = replace(applied(GONE), links=THERE)
    assert change.drift(state) == ("what is saved was not applied",)
    (step,) = change.restore(state.rulesets, state).steps
    assert isinstance(step, ReplaceTable)
    assert 'devices = { "eth0", "wg0" }' in step.text
