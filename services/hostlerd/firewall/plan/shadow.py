"""The table that counts and logs what rulesets would drop, and drops nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hostlerd.firewall.model import packet_log
from hostlerd.firewall.model.ruleset import Action, Hook, Network, Ruleset
from hostlerd.firewall.plan import judge, match
from hostlerd.firewall.plan.names import collect
from hostlerd.firewall.plan.table import in_order, set_texts

# Before our own chains, which may drop.
_PRIORITY = "filter - 5"
_LOGGED = re.compile(r'log prefix "[^"]*" group \d+ snaplen \d+ queue-threshold \d+ ?')
_REFUSED = re.compile(r'counter (?:drop|reject(?: with tcp reset)?) comment "([^" ]+)')
# What changes packets or their ways, what nobody knows the words of, and what refuses for the
# policy, which has a line of its own here.
_LEFT_OUT = re.compile(
    r'meta mark set|flow add|/fragment-[^" ]+"$|counter reject(?: with tcp reset)?$'
)


def compile_shadow(
    rulesets: Iterable[Ruleset], management: Sequence[Network], until_unix_s: int
) -> str:
    """Answer the table `inet hostler_shadow` in nft's words. Raises NameUnknown.

    Its chains are those of input, forward and output, each of whose refusals has become a line that
    counts, logs, and lets the packet go on. After `until_unix_s` none of them looks at packets.
    """
    ordered = in_order(rulesets)
    names = collect(ordered)
    chains = (
        ("isolation", None, judge.isolation_rules(ordered)),
        ("shadow_input", Hook.INPUT, judge.input_rules(ordered, management, names)),
        ("shadow_forward", Hook.FORWARD, judge.forward_rules(ordered, names)),
        ("shadow_output", Hook.OUTPUT, judge.output_rules(ordered, names)),
    )
    texts = [
        _chain(name, hook, rules, ordered, until_unix_s) for name, hook, rules in chains if rules
    ]
    declared = set_texts(names, names.sets)
    return "table inet hostler_shadow {\n" + "".join([*declared, *texts]) + "}\n"


def _chain(
    name: str, hook: Hook | None, rules: Sequence[str], ordered: Sequence[Ruleset], until: int
) -> str:
    lines = [f"\tchain {name} {{"]
    if hook is not None:
        lines.append(f"\t\ttype filter hook {hook.value} priority {_PRIORITY}; policy accept;")
        lines.append(f"\t\tmeta time >= {until} accept")
    lines += [f"\t\t{line}" for rule in rules if (line := _harmless(rule))]
    if hook is not None and (last := _policy(ordered, hook)):
        lines.append(f"\t\t{last}")
    return "\n".join([*lines, "\t}", ""])


def _harmless(rule: str) -> str:
    """Answer what stands for a rule; empty if nothing does."""
    if _LEFT_OUT.search(rule):
        return ""
    plain = _LOGGED.sub("", rule)
    found = _REFUSED.search(plain)
    if found is None:
        # A line that does nothing but log says less than its rule, which is there as well.
        return plain if plain == rule or "counter" in plain else ""
    told = packet_log.statement(found.group(1), packet_log.WOULD_DROP)
    return plain[: found.start()] + f'{told} counter accept comment "' + plain[found.start(1) :]


def _policy(ordered: Sequence[Ruleset], hook: Hook) -> str:
    said = judge.policy(ordered, hook)
    if said not in (Action.DROP, Action.REJECT):
        return ""
    holder = next(r.name for r in ordered if judge.policy([r], hook) is said)
    label = f"{holder}/policy-{hook.value}"
    return match.counted(packet_log.statement(label, packet_log.WOULD_DROP), "", label)
