"""The whole table, compiled from all rulesets of the host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hostlerd.firewall.model.ruleset import Action, Hook, Network, Ruleset
from hostlerd.firewall.plan import judge, nat

# None of the chains' names is a word of nft's; "output" hooks know no priority by name.
_HOOKS = {
    "nat_prerouting": "type nat hook prerouting priority dstnat",
    "nat_output": "type nat hook output priority -100",
    "nat_postrouting": "type nat hook postrouting priority srcnat",
    "filter_input": "type filter hook input priority filter",
    "filter_forward": "type filter hook forward priority filter",
}


def in_order(rulesets: Iterable[Ruleset]) -> tuple[Ruleset, ...]:
    """Answer the rulesets in the order they take effect."""
    return tuple(sorted(rulesets, key=lambda r: r.order))


def compile_table(rulesets: Iterable[Ruleset], management: Sequence[Network]) -> str:
    """Answer the table `inet hostler` in nft's words; empty if there is nothing to put in it.

    One rule a line, those with counters named by a comment "RULESET/ID ...". Equal rulesets make
    equal texts.
    """
    ordered = in_order(rulesets)
    destinations = nat.destination_rules(ordered)
    chains = {
        # Chains are declared before what jumps to them.
        "isolation": judge.isolation_rules(ordered),
        "nat_prerouting": destinations,
        "nat_output": destinations,
        "nat_postrouting": nat.source_rules(ordered),
        "filter_input": judge.input_rules(ordered, management),
        "filter_forward": judge.forward_rules(ordered),
    }
    policies = {
        "filter_input": judge.policy(ordered, Hook.INPUT),
        "filter_forward": judge.policy(ordered, Hook.FORWARD),
    }
    texts = [
        _chain(name, rules, policies.get(name))
        for name, rules in chains.items()
        if rules or policies.get(name)
    ]
    return "table inet hostler {\n" + "".join(texts) + "}\n" if texts else ""


def _chain(name: str, rules: Sequence[str], policy: Action | None) -> str:
    lines = [f"\tchain {name} {{"]
    if name in _HOOKS:
        # A base chain cannot reject; what it would reject was decided by its last rule.
        kept = "drop" if policy in (Action.DROP, Action.REJECT) else "accept"
        lines.append(f"\t\t{_HOOKS[name]}; policy {kept};")
    lines += [f"\t\t{rule}" for rule in rules]
    return "\n".join([*lines, "\t}", ""])
