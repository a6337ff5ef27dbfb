"""Planners: the second plan is empty, the plan leads to what is wanted, the way back leads back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from firewall_generated import NAMES_GIVEN, patient, rulesets
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.firewall.errors import (
    FamilyUnavailable,
    NameInUse,
    NameUnknown,
    PolicyInUse,
    PortInUse,
    RulesetNotFound,
    RulesetUnreadable,
    TooMany,
)
from hostlerd.firewall.model.document import parse
from hostlerd.firewall.model.ruleset import Ruleset
from hostlerd.firewall.model.state import (
    BRIDGE_CALLS,
    EVERYWHERE,
    IP6_FORWARDING,
    IP_FORWARD,
    Applied,
    BaseChain,
    State,
    Table,
    accept_ra,
)
from hostlerd.firewall.model.steps import (
    DeleteTable,
    ForgetRuleset,
    ReplaceTable,
    SaveRuleset,
    SetSysctl,
)
from hostlerd.firewall.plan import change
from hostlerd.firewall.plan.table import compile_table
from hostlerd.runtime.errors import DomainError, InvalidRequest
from hostlerd.runtime.steps import Step

BRIDGED = dict.fromkeys(BRIDGE_CALLS, "1")
OFF = {
    **BRIDGED,
    IP_FORWARD: "0",
    IP6_FORWARDING: "0",
    accept_ra("eth0"): "1",
    accept_ra("eth1.5"): "1",
}
HOST = State(sysctls=OFF, links=frozenset({"lo", "eth0", "eth1.5"}), ra_links=frozenset({"eth1.5"}))


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def after(state: State, steps: Sequence[Step | None]) -> State:
    """What the steps say they do, done to a state."""
    for step in steps:
        match step:
            case SetSysctl():
                found = dict(state.found)
                if found.setdefault(step.name, state.sysctls[step.name]) == step.value:
                    del found[step.name]
                values = {**state.sysctls, step.name: step.value}
                state = replace(state, sysctls=values, found=found)
            case ReplaceTable():
                made = sha(step.text)
                state = replace(
                    state, table=Table("of " + made), applied=Applied("of " + made, made)
                )
            case DeleteTable():
                state = replace(state, table=None, applied=None)
            case SaveRuleset():
                saved = parse(json.loads(step.saved.document))
                assert saved.persistent == step.saved.persistent
                state = replace(state, rulesets={**state.rulesets, step.name: saved})
            case ForgetRuleset():
                rest = {n: r for n, r in state.rulesets.items() if n != step.name}
                state = replace(state, rulesets=rest)
    return state


def ruleset(**fields: Any) -> Ruleset:
    return parse({"name": "web", **fields})


def state_with(*documents: dict[str, Any]) -> State:
    state = HOST
    for document in documents:
        state = after(state, change.apply(parse(document), state).steps)
    return state


FORWARD = {"protocol": "tcp", "port": 80, "target_address": "10.0.0.2"}
FORWARD6 = {**FORWARD, "target_address": "fd00::2"}
INPUT = {"hook": "input", "action": "accept"}


@patient
@given(st.lists(st.tuples(rulesets(), st.booleans()), max_size=5))
def test_changes_lead_there_and_back(wanted: list[tuple[Ruleset, bool]]) -> None:
    state = HOST
    for want, deleting in wanted:
        before = state
        try:
            plan = change.delete(want.name, state) if deleting else change.apply(want, state)
        except DomainError as e:
            assert isinstance(e, (PortInUse, PolicyInUse, NameInUse, NameUnknown)), e
            continue
        state = after(state, plan.steps)
        text = compile_table(state.rulesets.values(), EVERYWHERE)
        assert state.rulesets.get(want.name) == (None if deleting else want)
        assert (state.table.fingerprint if state.table else "") == (
            f"of {sha(text)}" if text else ""
        )
        needed = {v for r in state.rulesets.values() for v in r.routed_families()}
        assert state.sysctls[IP_FORWARD] == str(int(4 in needed))
        assert state.sysctls[IP6_FORWARDING] == str(int(6 in needed))
        assert state.sysctls[accept_ra("eth1.5")] == ("2" if 6 in needed else "1")
        again = change.delete(want.name, state) if deleting else change.apply(want, state)
        assert again.steps == ()
        assert again.etag == plan.etag_after
        assert change.drift(state) == ()
        back = after(state, [s.inverse() for s in reversed(plan.steps)])
        assert (back.rulesets, back.sysctls, back.found) == (
            before.rulesets,
            before.sysctls,
            before.found,
        )
        assert back.table == before.table
        for step in plan.steps:
            assert step.describe()


@patient
@given(rulesets(), rulesets())
def test_the_order_of_saving_does_not_show(one: Ruleset, other: Ruleset) -> None:
    text = compile_table([one, other, NAMES_GIVEN], EVERYWHERE)
    assert text == compile_table([NAMES_GIVEN, other, one], EVERYWHERE) or one.order == other.order


def test_words_of_a_plan() -> None:
    isolate = {
        "name": "web",
        "forwards": [
            {**FORWARD, "port": 8080, "target_address": "10.213.0.2", "target_port": 8000}
        ],
        "masquerades": [{"source": "10.213.0.0/30", "uplink": "eth0"}],
        "isolated_networks": ["10.213.0.0/30"],
    }
    plan = change.apply(parse(isolate), HOST)
    assert [s.describe() for s in plan.steps] == [
        "save ruleset web until the next boot",
        "web: forward tcp 8080 to 10.213.0.2:8000; web: masquerade 10.213.0.0/30 by eth0; "
        "web: isolate 10.213.0.0/30",
        "set net.ipv4.ip_forward from 0 to 1",
    ]
    undone = change.delete("web", after(HOST, plan.steps))
    assert [s.describe() for s in undone.steps] == [
        "forget ruleset web",
        "set net.ipv4.ip_forward from 1 to 0",
        "web: remove forward tcp 8080 to 10.213.0.2:8000; web: remove masquerade 10.213.0.0/30 by "
        "eth0; web: remove isolate 10.213.0.0/30",
    ]


def words(have: dict[str, Any], want: dict[str, Any]) -> str:
    plan = change.apply(ruleset(**want), state_with({"name": "web", **have}))
    return next(s.describe() for s in plan.steps if isinstance(s, ReplaceTable))


def test_words_of_differences() -> None:
    rule = {**INPUT, "id": "a", "protocol": "tcp", "destination_ports": [{"first": 22}]}
    other = {**INPUT, "id": "b", "in_ifname": "eth0", "sources": ["10.0.0.0/8"], "comment": "it"}
    assert words({"rules": [rule]}, {"rules": [{**rule, "action": "drop"}]}) == (
        "web: rule a: drop input tcp 22 (was: rule a: accept input tcp 22)"
    )
    assert words({"rules": [rule]}, {"rules": [rule, other]}) == (
        'web: rule b: accept input from 10.0.0.0/8 in by eth0 "it"'
    )
    assert words({"rules": [rule, other]}, {"rules": [other, rule]}) == (
        "web: another order of its rules"
    )
    assert words(
        {"input_policy": "drop"}, {"input_policy": "drop", "priority": 3, "rules": [rule]}
    ) == ("web: rule a: accept input tcp 22; web: priority 3 (was: 0)")
    assert words({"rules": [rule]}, {"forward_policy": "drop", "rules": [rule]}) == (
        "web: drop everything else through the host"
    )


def test_many_changes_are_told_in_short() -> None:
    rules = [
        {**INPUT, "destination_ports": [{"first": i + 1}], "protocol": "tcp"} for i in range(99)
    ]
    plan = change.apply(ruleset(rules=rules), HOST)
    table = next(s for s in plan.steps if isinstance(s, ReplaceTable))
    assert table.describe().endswith("; 49 more")
    assert len(table.changes) == 99


def test_filters_stand_before_forwarding_starts_and_after_it_ends() -> None:
    plan = change.apply(ruleset(isolated_networks=["10.0.0.0/24"]), HOST)
    assert [type(s) for s in plan.steps] == [SaveRuleset, ReplaceTable, SetSysctl]
    undone = change.delete("web", after(HOST, plan.steps))
    assert [type(s) for s in undone.steps] == [ForgetRuleset, SetSysctl, DeleteTable]


def test_accept_ra_surrounds_forwarding() -> None:
    want = ruleset(masquerades=[{"source": "fd00::/64", "uplink": "eth0"}])
    plan = change.apply(want, HOST)
    on = [s.describe() for s in plan.steps if isinstance(s, SetSysctl)]
    assert on == [
        "set net.ipv6.conf.eth0.accept_ra from 1 to 2",
        "set net.ipv6.conf.eth1/5.accept_ra from 1 to 2",
        "set net.ipv6.conf.all.forwarding from 0 to 1",
    ]
    state = after(HOST, plan.steps)
    off = [s.describe() for s in change.delete("web", state).steps if isinstance(s, SetSysctl)]
    assert off[0] == "set net.ipv6.conf.all.forwarding from 1 to 0"
    assert len(off) == 3
    # A route that is gone for a moment changes nothing.
    assert change.apply(want, replace(state, ra_links=frozenset())).steps == ()


def test_forwarding_that_was_on_stays_on() -> None:
    host = replace(HOST, sysctls={**OFF, IP_FORWARD: "1"})
    plan = change.apply(ruleset(forwards=[FORWARD]), host)
    assert not any(isinstance(s, SetSysctl) for s in plan.steps)
    undone = change.delete("web", after(host, plan.steps))
    assert not any(isinstance(s, SetSysctl) for s in undone.steps)


def test_family_that_the_kernel_lacks() -> None:
    host = replace(HOST, sysctls={IP_FORWARD: "0"})
    with pytest.raises(FamilyUnavailable, match="without IPv6"):
        change.apply(ruleset(forwards=[FORWARD6]), host)
    assert change.apply(ruleset(forwards=[FORWARD]), host).steps


def test_port_forwarded_by_another_ruleset() -> None:
    state = state_with({"name": "old", "forwards": [FORWARD, FORWARD6]})
    mine = [{**FORWARD, "port": 81}, {**FORWARD, "target_address": "10.9.9.9"}, FORWARD6]
    with pytest.raises(PortInUse) as refused:
        change.apply(ruleset(forwards=mine), state)
    assert refused.value.metadata["ruleset"] == "old"
    assert [v.field for v in refused.value.violations] == [
        "ruleset.forwards[1].port",
        "ruleset.forwards[2].port",
    ]
    assert change.apply(parse({"name": "old", "forwards": [FORWARD]}), state).steps


def test_policy_set_by_another_ruleset() -> None:
    state = state_with({"name": "base", "input_policy": "drop"})
    with pytest.raises(PolicyInUse, match="base") as refused:
        change.apply(ruleset(input_policy="accept", forward_policy="drop"), state)
    assert [v.field for v in refused.value.violations] == ["ruleset.input_policy"]
    assert change.apply(ruleset(forward_policy="drop"), state).steps


def test_unknown_uplinks() -> None:
    masquerades = [{"source": "10.0.0.0/8", "uplink": u} for u in ("eth0", "eth9", "eth1.5", "x")]
    with pytest.raises(InvalidRequest) as refused:
        change.apply(ruleset(masquerades=masquerades), HOST)
    assert [v.field for v in refused.value.violations] == [
        "ruleset.masquerades[1].uplink",
        "ruleset.masquerades[3].uplink",
    ]
    # What is saved stands, whatever links there are.
    kept = state_with({"name": "kept", "masquerades": masquerades[:1]})
    assert change.apply(ruleset(rules=[INPUT]), replace(kept, links=frozenset())).steps


def test_bounds_of_the_host() -> None:
    full = {f"r{i}": parse({"name": f"r{i}"}) for i in range(1000)}
    state = replace(HOST, rulesets=full)
    with pytest.raises(TooMany):
        change.apply(ruleset(), state)
    assert change.apply(parse({"name": "r7", "rules": [INPUT]}), state).steps
    rules = tuple(parse({"name": "x", "rules": [INPUT] * 10_000}).rules)
    five = {f"r{i}": Ruleset(f"r{i}", rules=rules) for i in range(5)}
    with pytest.raises(TooMany, match="50001 entries"):
        change.apply(ruleset(rules=[INPUT]), replace(HOST, rulesets=five))


def test_unreadable_ruleset_bars_all_but_itself() -> None:
    state = replace(HOST, unreadable={"torn": "why"})
    for plan in (lambda: change.apply(ruleset(), state), lambda: change.delete("web", state)):
        with pytest.raises(RulesetUnreadable, match="torn"):
            plan()
    assert change.apply(parse({"name": "torn"}), state).steps
    forget = change.delete("torn", state).steps
    assert forget == (ForgetRuleset("torn", None),)
    assert forget[0].inverse() is None


def test_drift_is_told_in_words() -> None:
    state = state_with({"name": "web", "forwards": [FORWARD]})
    assert state.table is not None
    assert state.applied is not None
    off = replace(state, sysctls=OFF)
    assert change.drift(off) == ("net.ipv4.ip_forward is 0 and should be 1",)
    for changed, said in (
        (replace(state, table=None), "gone"),
        (replace(state, table=Table("other")), "changed from outside"),
        (replace(state, applied=None), "not known to be ours"),
        (replace(state, applied=replace(state.applied, text_sha256="")), "was not applied"),
        (replace(HOST, table=Table("other")), "should not be"),
    ):
        assert len(change.drift(changed)) == 1
        assert said in change.drift(changed)[0]
        plan = change.restore(changed.rulesets, changed)
        fixed = after(changed, plan.steps)
        assert change.drift(fixed) == ()
        notices = change.apply(ruleset(rules=[INPUT]), changed).notices
        assert [n.code for n in notices] == ["DRIFT"]
        assert [n.context for n in notices] == [("ruleset web",)]


def test_notices_about_others() -> None:
    docker = BaseChain("ip", "filter", "FORWARD", "forward", "drop")
    open_ = BaseChain("ip", "filter", "INPUT", "input", "accept")
    bridged = ruleset(isolated_networks=["10.0.0.0/24"]).isolated_networks
    host = replace(HOST, foreign=(docker, open_), filtered_bridge_networks=bridged)
    codes = {n.code: n.subject for n in change.apply(ruleset(forwards=[FORWARD]), host).notices}
    assert codes == {"FOREIGN_DROP": "ip filter FORWARD", "BRIDGED_HAIRPIN": "web/forward-tcp-80"}
    assert change.apply(ruleset(rules=[INPUT]), host).notices == ()


def test_get_and_etag() -> None:
    with pytest.raises(RulesetNotFound):
        change.get("web", {})
    assert change.get("web", {"web": ruleset()}) == ruleset()
    assert change.etag(None) == ""
    assert change.etag(ruleset()) != change.etag(ruleset(persistent=True))


def test_an_equal_ruleset_is_the_very_one_the_host_has() -> None:
    # By which it is known what was made of it before.
    have = ruleset(rules=[INPUT])
    host = replace(HOST, rulesets={"web": have})
    want = ruleset(rules=[INPUT])
    assert want is not have
    assert change.apply(want, host).result is have
    assert change.apply(ruleset(rules=[]), host).result is not have


def test_hostler_s_ports_stay_open_to_the_management_networks_alone() -> None:
    networks = ruleset(isolated_networks=["192.0.2.0/24"]).isolated_networks
    text = compile_table([ruleset(input_policy="drop")], networks)
    lines = [line.strip() for line in text.splitlines() if "7441" in line]
    assert lines == ["ip saddr 192.0.2.0/24 tcp dport 7441-7445 accept"]
    everywhere = compile_table([ruleset(input_policy="drop")], EVERYWHERE)
    assert everywhere.count("tcp dport 7441-7445 accept") == 2
