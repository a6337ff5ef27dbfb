"""The whole table, compiled from all rulesets of the host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hostlerd.firewall.model.remembered import Remembered
from hostlerd.firewall.model.ruleset import Action, Flowtable, Hook, Network, Ruleset
from hostlerd.firewall.plan import judge, nat
from hostlerd.firewall.plan.match import set_name
from hostlerd.firewall.plan.names import Names, collect

# None of the chains' names is a word of nft's; "output" hooks know no priority by name.
_HOOKS = {
    "nat_prerouting": "type nat hook prerouting priority dstnat",
    "nat_output": "type nat hook output priority -100",
    "nat_postrouting": "type nat hook postrouting priority srcnat",
    "helper_prerouting": "type filter hook prerouting priority filter",
    "helper_output": "type filter hook output priority -1",
    "redirect_output": "type filter hook output priority -1",
    "filter_input": "type filter hook input priority filter",
    "filter_forward": "type filter hook forward priority filter",
    "filter_output": "type filter hook output priority filter",
    "bridge_forward": "type filter hook forward priority filter",
}
_JUDGES = {
    "filter_input": Hook.INPUT,
    "filter_forward": Hook.FORWARD,
    "filter_output": Hook.OUTPUT,
    "bridge_forward": Hook.BRIDGE_FORWARD,
}
_COMPILED = Remembered(4)
_SET_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}


def in_order(rulesets: Iterable[Ruleset]) -> tuple[Ruleset, ...]:
    """Answer the rulesets in the order they take effect."""
    return tuple(sorted(rulesets, key=lambda r: r.order))


def compile_table(rulesets: Iterable[Ruleset], management: Sequence[Network]) -> str:
    """Answer the tables `inet hostler` and `bridge hostler` in nft's words; empty for none.

    One rule a line, those with counters named by a comment "RULESET/ID ...". Sets come first, an
    address set as one of each family. Equal rulesets make equal texts. Raises NameUnknown.
    """
    ordered = in_order(rulesets)
    return _COMPILED.get([*ordered, None, *management], lambda: _compile(ordered, management))


def _compile(ordered: Sequence[Ruleset], management: Sequence[Network]) -> str:
    names = collect(ordered)
    return _inet(ordered, management, names) + _bridge(ordered, names)


def _inet(ordered: Sequence[Ruleset], management: Sequence[Network], names: Names) -> str:
    helping = nat.helper_rules(ordered)
    chains = {
        # Chains are declared before what jumps to them.
        "isolation": judge.isolation_rules(ordered),
        "nat_prerouting": nat.prerouting_rules(ordered),
        "nat_output": nat.destination_rules(ordered, own=True),
        "nat_postrouting": nat.source_rules(ordered),
        "helper_prerouting": helping,
        "helper_output": helping,
        "redirect_output": nat.redirect_rules(ordered),
        "filter_input": judge.input_rules(ordered, management, names),
        "filter_forward": judge.forward_rules(ordered, names),
        "filter_output": judge.output_rules(ordered, names),
    }
    declared = [*set_texts(names, names.sets), *_helpers(ordered), *_flowtables(ordered)]
    return _table("inet", declared, chains, ordered)


def _bridge(ordered: Sequence[Ruleset], names: Names) -> str:
    """Sets belong to a table, so those that its rules use stand in this one as well."""
    rules = [r for each in ordered for r in each.rules if r.hook is Hook.BRIDGE_FORWARD]
    used = {name for rule in rules for name in (*rule.source_sets, *rule.destination_sets)}
    chains = {"bridge_forward": judge.bridge_rules(ordered, names)}
    return _table("bridge", set_texts(names, used), chains, ordered)


def _table(
    family: str,
    declared: Sequence[str],
    chains: Mapping[str, Sequence[str]],
    ordered: Sequence[Ruleset],
) -> str:
    policies = {name: judge.policy(ordered, hook) for name, hook in _JUDGES.items()}
    texts = [
        *declared,
        *(
            _chain(name, rules, policies.get(name))
            for name, rules in chains.items()
            if rules or policies.get(name)
        ),
    ]
    return f"table {family} hostler {{\n" + "".join(texts) + "}\n" if texts else ""


def set_texts(names: Names, used: Iterable[str]) -> list[str]:
    """Answer the declarations of address sets."""
    texts = []
    for name in sorted(used):
        one = names.sets[name]
        for version, kind in _SET_TYPES.items():
            listed = [e for e in one.elements if (":" in e) == (version == 6)]
            flags = "interval,timeout" if one.dynamic else "interval"
            comment = "dynamic" if one.dynamic else "static"
            lines = [f"type {kind}", f"flags {flags}", f'comment "{comment}"']
            if listed:
                lines.append("elements = { " + ", ".join(listed) + " }")
            texts.append(_block(f"set {set_name(name, version)}", lines))
    return texts


def _helpers(ordered: Sequence[Ruleset]) -> list[str]:
    each = {nat.helper_name(h): h for r in ordered for h in r.helpers}
    return [
        _block(
            f"ct helper {name}",
            (f'type "{h.helper}" protocol {h.protocol.value}', "l3proto inet"),
        )
        for name, h in sorted(each.items())
    ]


def _flowtables(ordered: Sequence[Ruleset]) -> list[str]:
    each: list[Flowtable] = [f for r in ordered for f in r.flowtables]
    return [
        _block(
            f"flowtable {f.name}",
            (
                "hook ingress priority filter",
                "devices = { " + ", ".join(f'"{name}"' for name in f.ifnames) + " }",
            ),
        )
        for f in each
    ]


def _block(head: str, lines: Iterable[str]) -> str:
    return "".join([f"\t{head} {{\n", *(f"\t\t{line}\n" for line in lines), "\t}\n"])


def _chain(name: str, rules: Sequence[str], policy: Action | None) -> str:
    lines = [f"\tchain {name} {{"]
    if name in _HOOKS:
        # A base chain cannot reject; what it would reject was decided by its last rule.
        kept = "drop" if policy in (Action.DROP, Action.REJECT) else "accept"
        lines.append(f"\t\t{_HOOKS[name]}; policy {kept};")
    lines += [f"\t\t{rule}" for rule in rules]
    return "\n".join([*lines, "\t}", ""])
