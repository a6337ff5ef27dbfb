"""Our own nft text: read back, cut into pieces, found back from errors, given counters."""

from __future__ import annotations

from firewall_generated import NAMES_GIVEN, patient, rulesets
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.firewall.kernel.pieces import culprit, cut, without
from hostlerd.firewall.kernel.text import read, render, with_counters
from hostlerd.firewall.model.document import parse
from hostlerd.firewall.model.ruleset import Ruleset
from hostlerd.firewall.model.state import EVERYWHERE, Counter, RuleKey
from hostlerd.firewall.plan.table import compile_table


def compiled(ruleset: Ruleset) -> str:
    return compile_table([ruleset, NAMES_GIVEN], EVERYWHERE)


@patient
@given(rulesets())
def test_what_is_read_is_what_was_written(ruleset: Ruleset) -> None:
    text = compiled(ruleset)
    tables = read(text)
    assert "".join(render(family, [*blocks.values()]) for family, blocks in tables.items()) == text


@patient
@given(rulesets(), st.integers(0, 500))
def test_pieces_hold_every_rule_once_in_its_chain(ruleset: Ruleset, most_bytes: int) -> None:
    text = compiled(ruleset)
    joined: list[tuple[str, str, str]] = []
    declared: set[str] = set()
    for piece in cut(text, most_bytes):
        (found,) = read(piece.text).items()
        family, blocks = found
        for block in blocks.values():
            assert not block.elements
            if block.hook:
                declared.add(block.name)
            if block.kind == "chain":
                joined += [(family, block.name, rule) for rule in block.rules]
    assert joined == rules(text)
    hooked = {b.name for blocks in read(text).values() for b in blocks.values() if b.hook}
    assert declared == hooked


def rules(text: str) -> list[tuple[str, str, str]]:
    return [
        (family, block.name, rule)
        for family, blocks in read(text).items()
        for block in blocks.values()
        if block.kind == "chain"
        for rule in block.rules
    ]


@patient
@given(rulesets(), rulesets())
def test_what_stands_already_is_not_tried_again(one: Ruleset, other: Ruleset) -> None:
    applied, text = compiled(one), compiled(other)
    tried = set(rules(without(text, applied)))
    assert tried == set(rules(text)) - set(rules(applied))
    assert without(text, "") == text


def test_base_chain_is_never_declared_without_its_hook() -> None:
    text = compile_table([parse({"name": "web", "input_policy": "drop"})], EVERYWHERE)
    first = next(iter(cut(text, 0)))
    assert first.lines[2].startswith("\t\ttype filter hook input")


def test_culprit_is_the_rule_of_the_line() -> None:
    lines = ("table inet hostler {", '\t\tcounter drop comment "web/rule-1 why"', "\t}")
    error = "/dev/stdin:2:3-9: Error: no\n"
    assert culprit(error, lines) == ("web/rule-1", 'counter drop comment "web/rule-1 why"')
    assert culprit("/dev/stdin:3:1-1: Error: no", lines) == ("", "}")
    assert culprit("/dev/stdin:9:1-1: Error: no", lines) == ("", "")
    assert culprit("netlink: Error: Message too long", lines) == ("", "")


def test_counters_are_carried_over_by_name() -> None:
    count = {"hook": "input", "action": "count", "log": {}}
    drop = {"hook": "input", "action": "drop", "comment": "counter x comment"}
    forward = {"protocol": "tcp", "port": 80}
    ruleset = parse(
        {
            "name": "web",
            "rules": [drop, count],
            "forwards": [{**forward, "target_address": a} for a in ("10.0.0.2", "fd00::2")],
        }
    )
    blocks = read(compile_table([ruleset], EVERYWHERE))["inet"]
    counters = {
        RuleKey("filter_input", "web/rule-1"): Counter(1, 2),
        RuleKey("filter_input", "web/rule-2"): Counter(7, 8),
        RuleKey("nat_output", "web/forward-tcp-80", 1): Counter(3, 4),
        RuleKey("nat_output", "web/gone"): Counter(5, 6),
    }
    told = [
        line
        for name in ("nat_output", "filter_input")
        for line in with_counters(name, blocks["chain", name].rules, counters)
        if " packets " in line and "counter packets" in line
    ]
    assert [line[line.index("counter packets") :] for line in told] == [
        'counter packets 3 bytes 4 dnat ip6 to [fd00::2]:80 comment "web/forward-tcp-80"',
        'counter packets 1 bytes 2 drop comment "web/rule-1 counter x comment"',
        'counter packets 7 bytes 8 comment "web/rule-2"',
    ]
