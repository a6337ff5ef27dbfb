"""The table that counts and logs what rulesets would drop, and drops nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from hostlerd.firewall.model import packet_log
from hostlerd.firewall.model.ruleset import Action, Hook, Network, Rule, Ruleset
from hostlerd.firewall.plan import judge, match
from hostlerd.firewall.plan.names import collect
from hostlerd.firewall.plan.table import in_order, set_texts
from hostlerd.firewall.plan.words import Entry, entries
from hostlerd.runtime.steps import Notice

# Before our own chains, which may drop.
_PRIORITY = "filter - 5"
_LOGGED = re.compile(r'log prefix "[^"]*" group \d+ snaplen \d+ queue-threshold \d+ ?')
_REFUSED = re.compile(r'counter (?:drop|reject(?: with tcp reset)?) comment "([^" ]+)')
# What changes packets or their ways, what nobody knows the words of, and what refuses for the
# policy, which has a line of its own here.
_LEFT_OUT = re.compile(
    r'meta mark set|flow add|/fragment-[^" ]+"$|counter reject(?: with tcp reset)?$'
)

_REWRITING = ("forward ", "masquerade ", "source-nat ", "redirect ", "helper ", "flowtable ")
_TOLD_MOST = 20


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


def left_out(have: Mapping[str, Ruleset], after: Mapping[str, Ruleset]) -> tuple[Notice, ...]:
    """Answer what a shadow of `after` does not try, on a host that has `have`.

    NAT that stays is that of the host, and counts; NAT that comes or goes cannot be tried on
    packets that are to pass untouched. Of fragments nobody knows the words.
    """
    found: list[Notice] = []
    for name in sorted({*have, *after}):
        old = entries(have[name]) if name in have else {}
        new = entries(after[name]) if name in after else {}
        changed = {k: e for k, e in {**old, **new}.items() if old.get(k) != new.get(k)}
        rewriting = [e.words for k, e in changed.items() if k.startswith(_REWRITING)]
        verbatim = [e.words for k, e in new.items() if k.startswith("fragment ")]
        bridged = [e.words for k, e in new.items() if _is_bridged(k, e)]
        found += _not_tried(name, rewriting, "packets are seen as the NAT of now rewrites them")
        found += _not_tried(name, verbatim, "nobody knows what its words refuse")
        found += _not_tried(name, bridged, "frames between ports of a bridge are not looked at")
    return tuple(found)


def _not_tried(name: str, words: Sequence[str], why: str) -> list[Notice]:
    if not words:
        return []
    more = f"; and {len(words) - _TOLD_MOST} more" if len(words) > _TOLD_MOST else ""
    told = f"not tried, as {why}: {'; '.join(words[:_TOLD_MOST])}{more}"
    return [Notice("SHADOW_LEAVES_OUT", told, f"ruleset {name}")]


def _is_bridged(key: str, entry: Entry) -> bool:
    bridged = isinstance(entry.value, Rule) and entry.value.hook is Hook.BRIDGE_FORWARD
    return bridged or key in ("bridge_policy", "bridge_filtering")


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
