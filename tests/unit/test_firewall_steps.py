"""What steps say of themselves, and which connections new rules are against."""

from __future__ import annotations

from typing import Any

from hostlerd.firewall.model.connection import CutConnections
from hostlerd.firewall.model.document import parse
from hostlerd.firewall.model.ruleset import Ruleset
from hostlerd.firewall.model.state import Shadow, State
from hostlerd.firewall.model.steps import (
    DeleteTable,
    ForgetRuleset,
    ReplaceTable,
    Saved,
    SaveRuleset,
    StartShadow,
    StopShadow,
)
from hostlerd.firewall.plan import change, cutting
from hostlerd.runtime.steps import Plan

FIRST, SECOND = Shadow("table one", 1_900_000_000), Shadow("table two", 1_900_000_060)


def test_a_shadow_goes_as_it_came() -> None:
    started = StartShadow(FIRST, None)
    assert started.describe() == "count and log what would be dropped until 2030-03-17T17:46:40Z"
    assert started.inverse() == StopShadow(FIRST)
    assert StopShadow(FIRST).inverse() == StartShadow(FIRST, None)
    assert StartShadow(SECOND, FIRST).inverse() == StartShadow(FIRST, SECOND)
    assert StopShadow(FIRST).describe() == "end the shadow"


def test_a_later_end_is_the_same_plan() -> None:
    texts = (f"meta time >= {end} accept" for end in (1_900_000_000, 1_900_000_001))
    one, other = (Plan((StartShadow(Shadow(text, int(text.split()[3])), None),)) for text in texts)
    assert one.hash == other.hash
    assert Plan((StartShadow(FIRST, None),)).hash != Plan((StartShadow(SECOND, None),)).hash


def test_the_way_back_of_tables_and_rulesets() -> None:
    made = ReplaceTable("new", None, ("web: rule a",))
    assert made.inverse() == DeleteTable("new", ("take back: web: rule a",))
    assert DeleteTable("", ("gone",)).inverse() is None
    assert isinstance(DeleteTable("old", ("gone",)).inverse(), ReplaceTable)
    saved = Saved("{}", persistent=True)
    assert SaveRuleset("web", saved, None).inverse() == ForgetRuleset("web", saved)
    assert SaveRuleset("web", saved, None).survives_boot
    assert ForgetRuleset("web", None).inverse() is None
    assert ForgetRuleset("web", None).survives_boot
    many = ReplaceTable("new", "old", tuple(f"change {n}" for n in range(60)))
    assert many.describe().endswith("change 49; 10 more")


def test_a_shadow_says_what_it_leaves_out() -> None:
    forward = {"protocol": "tcp", "port": 80, "target_address": "10.0.0.2", "target_port": 8080}
    other = {**forward, "port": 81}
    have = parse({"name": "web", "forwards": [forward], "redirects": [
        {"protocol": "tcp", "port": 25, "to_port": 2525}]})  # fmt: skip
    want = parse(
        {
            "name": "web",
            "forwards": [forward, other],
            "fragments": [{"id": "f", "place": "input_before", "nft_rules": "ip ttl 3 drop"}],
            "rules": [DROP, {"id": "b", "hook": "bridge_forward", "action": "drop"}],
        }
    )
    state = State(rulesets={"web": have}, sysctls={"net.ipv4.ip_forward": "1"})
    plan = change.start_shadow({"ruleset": want}, (), 1_900_000_000, state)
    assert {n.code for n in plan.notices} == {"SHADOW_LEAVES_OUT"}
    assert [n.message for n in plan.notices] == [
        "not tried, as packets are seen as the NAT of now rewrites them: "
        "redirect tcp 25 to 2525; forward tcp 81 to 10.0.0.2:8080",
        "not tried, as nobody knows what its words refuse: "
        "fragment f at input_before: ip ttl 3 drop",
        "not tried, as frames between ports of a bridge are not looked at: rule b: drop bridge "
        "forward",
    ]
    plain = parse({"name": "web", "forwards": [forward], "rules": [DROP]})
    same = State(rulesets={"web": plain}, sysctls={"net.ipv4.ip_forward": "1"})
    assert change.start_shadow({"ruleset": plain}, (), 1_900_000_000, same).notices == ()


def test_what_has_ended_goes_and_what_has_not_stays() -> None:
    rules = [
        {"hook": "input", "action": "drop", "expire_time": 100},
        {"hook": "input", "action": "drop", "protocol": "tcp"},
    ]
    one = parse({"name": "web", "rules": rules})
    state = State(rulesets={"web": one}, shadow=Shadow("t", 150), now_unix_s=99)
    assert change.upkeep(state).steps == ()
    later = State(rulesets={"web": one}, shadow=Shadow("t", 150), now_unix_s=150)
    kinds = [type(step).__name__ for step in change.upkeep(later).steps]
    assert kinds == ["ReplaceTable", "SaveRuleset", "StopShadow"]
    # Applied again as it was written, it is what is left of it.
    left = parse({"name": "web", "rules": [{**rules[1], "id": "rule-2"}]})
    (result,) = change.apply_all({"ruleset": one}, (), later).result
    assert result == left


def ruleset(*rules: dict[str, Any], **more: Any) -> Ruleset:
    return parse({"name": "web", "rules": list(rules), **more})


def cut(one: Ruleset, before: Ruleset | None = None) -> list[str]:
    had = {"web": before} if before else {}
    return [f.words() for f in cutting.filters({"ruleset": one}, had, [one])]


DROP: dict[str, Any] = {"hook": "input", "action": "drop"}


def test_new_rules_that_refuse_are_against_connections() -> None:
    tcp = {**DROP, "protocol": "tcp", "destination_ports": [{"first": 22}]}
    assert cut(ruleset(tcp)) == ["tcp port 22"]
    assert cut(ruleset(tcp), ruleset(tcp)) == []
    assert cut(ruleset({**tcp, "action": "accept"})) == []
    assert cut(ruleset(DROP)) == []
    assert cut(ruleset({**DROP, "hook": "bridge_forward", "protocol": "tcp"})) == []
    assert cut(ruleset({**DROP, "action": "reject", "sources": ["10.0.0.0/8"]})) == [
        "from 10.0.0.0/8"
    ]


def test_sets_and_services_are_looked_into() -> None:
    sets = [{"name": "bad", "elements": ["10.0.0.0/8", "fd00::1"]}, {"name": "d", "dynamic": True}]
    by_set = {**DROP, "source_sets": ["bad"], "services": ["dns"]}
    assert sorted(cut(ruleset(by_set, address_sets=sets))) == [
        "tcp from 10.0.0.0/8 port 53",
        "tcp from fd00::1/128 port 53",
        "udp from 10.0.0.0/8 port 53",
        "udp from fd00::1/128 port 53",
    ]
    # What a dynamic set holds is not known here.
    from_dynamic = {**DROP, "source_sets": ["d"], "services": ["dns"]}
    assert cut(ruleset(from_dynamic, address_sets=sets)) == []
    assert CutConnections(()).inverse() is None
