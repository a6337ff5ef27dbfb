"""Our own nft text: cut into pieces, found back from errors, given counters."""

from __future__ import annotations

from firewall_generated import patient, rulesets
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.firewall.kernel.pieces import culprit, cut, with_counters
from hostlerd.firewall.model.document import parse
from hostlerd.firewall.model.ruleset import Ruleset
from hostlerd.firewall.model.state import EVERYWHERE, Counter, RuleKey
from hostlerd.firewall.plan.table import compile_table


@patient
@given(rulesets(), st.integers(0, 500))
def test_pieces_hold_every_rule_once_in_its_chain(ruleset: Ruleset, most_bytes: int) -> None:
    text = compile_table([ruleset], EVERYWHERE)
    if not text:
        return
    joined: list[tuple[str, str]] = []
    for piece in cut(text, most_bytes):
        assert piece.text == "\n".join([*piece.lines, ""])
        assert piece.lines[0] == "table inet hostler {"
        assert piece.text.count("{\n") == piece.text.count("\t}\n") + 1
        joined += rules(piece.text)
    assert joined == rules(text)


def rules(text: str) -> list[tuple[str, str]]:
    chain, found = "", []
    for line in text.splitlines():
        if line.startswith("\tchain "):
            chain = line
        elif line.startswith("\t\t"):
            found.append((chain, line))
    return found


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
    forward = {"protocol": "tcp", "port": 80}
    ruleset = parse(
        {
            "name": "web",
            "rules": [{"hook": "input", "action": "drop", "comment": "counter x comment"}],
            "forwards": [{**forward, "target_address": a} for a in ("10.0.0.2", "fd00::2")],
        }
    )
    text = compile_table([ruleset], EVERYWHERE)
    assert with_counters(text, {}) is text
    told = with_counters(
        text,
        {
            RuleKey("filter_input", "web/rule-1"): Counter(1, 2),
            RuleKey("nat_output", "web/forward-tcp-80", 1): Counter(3, 4),
            RuleKey("nat_output", "web/gone"): Counter(5, 6),
        },
    )
    changed = [line.strip() for line in told.splitlines() if " packets " in line]
    assert changed == [
        "fib daddr type local ip6 daddr != { ::1, fe80::/10 } tcp dport 80 counter packets 3 "
        'bytes 4 dnat ip6 to [fd00::2]:80 comment "web/forward-tcp-80"',
        'counter packets 1 bytes 2 drop comment "web/rule-1 counter x comment"',
    ]
    assert told.replace("packets 3 bytes 4 ", "").replace("packets 1 bytes 2 ", "") == text
