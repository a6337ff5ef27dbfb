"""iptables-save and ip6tables-save as a ruleset; what cannot be said is told line by line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hostler.api.firewall.v1 import ruleset_pb2 as pb
from hostler.firewall_import import Imported, Unsayable
from hostler.firewall_iptables_chains import Chains, Reached
from hostler.firewall_iptables_match import Match, clean, zone_of
from hostler.firewall_iptables_nat import NatRules
from hostler.firewall_iptables_text import Option, Saved, parse

_HOOKS = {"INPUT": "input", "FORWARD": "forward", "OUTPUT": "output"}
_STAYS_OPEN = {
    "input": "an input policy of DROP is for IPv4 and IPv6, and lets established connections, lo, "
    "ICMP, DHCP and Hostler's own ports pass; --exact has a last rule instead",
    "forward": "a forward policy of DROP is for IPv4 and IPv6, and lets established connections, "
    "what forwards lead in and what masqueraded networks send out pass; --exact has a last rule "
    "instead",
    "output": "an output policy of DROP is for IPv4 and IPv6, and lets established connections, "
    "lo, ICMP and DHCP pass; --exact has a last rule instead",
}
# Forwards of PREROUTING are there when OUTPUT asks for the same.
_NAT = ("PREROUTING", "OUTPUT", "POSTROUTING", "INPUT")
_ACTIONS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "LOG": "count"}
_DECIDED = frozenset({"established", "related"})
_PLAIN_REJECTS = frozenset(
    {"icmp-port-unreachable", "icmp6-port-unreachable", "tcp-reset", "port-unreach"}
)
# They change how a log line looks, and we have lines of our own.
_LOG_OPTIONS = frozenset({"--log-level", "--nflog-group", "--nflog-threshold", "--nflog-size"})
_LOG_PREFIXES = ("--log-prefix", "--nflog-prefix")


def import_iptables(
    text: str,
    name: str,
    *,
    ipv6: bool | None = None,
    both_families: bool = False,
    exact: bool = False,
) -> Imported:
    """Make a ruleset of iptables-save. Raises ImportFailed if the text is none.

    Rules without addresses hold for the family of the text alone, unless `both_families`. With
    `exact` a last rule drops what a policy of DROP dropped, where a policy of ours would let pass
    what it always does.
    """
    made = Imported.named(name)
    saved = parse(text, made, ipv6=ipv6)
    _Filter(saved, made, both_families=both_families, exact=exact).add()
    chains = Chains(saved, made, "nat")
    NatRules(saved.ipv6, made).add((base, each) for base in _NAT for each in chains.reached(base))
    _tell_other_tables(saved, made)
    made.check_size()
    return made


def _tell_other_tables(saved: Saved, made: Imported) -> None:
    for (table, _), lines in saved.chains.items():
        if table not in ("filter", "nat"):
            for line in lines:
                made.cannot_say(line.number, line.text, f"there is no table {table} of ours")
    for (table, chain), (policy, line) in saved.policies.items():
        if table != "filter" and policy != "ACCEPT":
            made.cannot_say(line.number, line.text, f"{table} {chain} has no policy of ours")


class _Filter:
    def __init__(self, saved: Saved, made: Imported, *, both_families: bool, exact: bool) -> None:
        self._saved = saved
        self._made = made
        self._exact = exact
        self._any = () if both_families else (("::/0" if saved.ipv6 else "0.0.0.0/0"),)

    def add(self) -> None:
        chains = Chains(self._saved, self._made, "filter")
        for base, hook in _HOOKS.items():
            self._add_policy(base, hook)
            for each in chains.reached(base):
                try:
                    self._add(hook, each)
                except Unsayable as error:
                    self._made.cannot_say(each.line.number, each.line.text, str(error))
            self._add_last(base, hook)
        self._tell_unreached()

    def _add_policy(self, base: str, hook: str) -> None:
        policy, line = self._saved.policies.get(("filter", base), ("ACCEPT", None))
        if policy == "DROP":
            if not self._exact:
                setattr(self._made.ruleset, f"{hook}_policy", pb.ACTION_DROP)
                self._made.note(_STAYS_OPEN[hook])
        elif policy != "ACCEPT" and line is not None:
            self._made.cannot_say(line.number, line.text, f"there is no policy {policy}")

    def _add_last(self, base: str, hook: str) -> None:
        if self._exact and self._saved.policies.get(("filter", base), ("",))[0] == "DROP":
            rule = pb.Rule(id=f"last-{hook}", hook=f"HOOK_{hook.upper()}", sources=self._any)
            rule.action = pb.ACTION_DROP
            self._made.ruleset.rules.append(rule)
            self._made.note(
                f"rule last-{hook} comes before those of rulesets with a higher priority, and "
                "before what forwards lead in and masqueraded networks send out"
            )

    def _add(self, hook: str, reached: Reached) -> None:
        match, target = reached.match, reached.line.target
        if target == "ACCEPT" and match.states and _DECIDED.issuperset(match.states):
            words = f"line {reached.line.number}: what is established passes before all rules"
            self._made.remark(words)
            return
        if match.to_local and hook != "input":
            raise Unsayable("only packets for the host itself have its addresses in rules")
        rule = pb.Rule(id=reached.id, hook=f"HOOK_{hook.upper()}")
        prefix = self._set_target(rule, target, reached.options)
        if rule.action != pb.ACTION_COUNT and match.states:
            self._check_states(target, match)
        fill_rule(rule, match, self._made.ruleset)
        rule.comment = match.comment or prefix
        if not (rule.sources or rule.destinations):
            rule.sources.extend(self._any)
        self._made.ruleset.rules.append(rule)

    def _check_states(self, target: str, match: Match) -> None:
        if _DECIDED.issuperset(match.states):
            raise Unsayable(f"what is established has passed before, it cannot meet {target}")

    def _set_target(self, rule: Any, target: str, options: Sequence[Option]) -> str:
        """Set what a rule does; answer the prefix that its log lines had."""
        logs = target in ("LOG", "NFLOG")
        if not target or logs:
            rule.action = pb.ACTION_COUNT
        elif target in _ACTIONS:
            rule.action = pb.Action.Value(f"ACTION_{target}")
        else:
            raise Unsayable(f"there is no target {target} in rules")
        if logs:
            rule.log.SetInParent()
        prefix = ""
        for option in options:
            if logs and option.name in _LOG_PREFIXES:
                prefix = clean(option.word)
            elif logs and option.name in _LOG_OPTIONS:
                continue
            elif target == "REJECT" and option.name == "--reject-with":
                self._note_reject(option.word)
            else:
                raise Unsayable(f"{option} has no match of ours")
        return prefix

    def _note_reject(self, word: str) -> None:
        usual = word in _PLAIN_REJECTS
        self._made.note(
            "rejected TCP is reset, all else is answered that the port is unreachable"
            + ("" if usual else f", also where it was {word}")
        )

    def _tell_unreached(self) -> None:
        """A chain that nothing leads to has no effect; it is told all the same."""
        for table in ("filter", "nat"):
            jumps = {
                line.target
                for (where, _), lines in self._saved.chains.items()
                if where == table
                for line in lines
            }
            for (where, chain), lines in self._saved.chains.items():
                built_in = (where, chain) in self._saved.policies
                if where == table and lines and not built_in and chain not in jumps:
                    first, last = lines[0].number, lines[-1].number
                    self._made.note(f"nothing leads to chain {chain}, lines {first} to {last}")


def fill_rule(rule: Any, match: Match, ruleset: Any) -> None:
    """Put what a match asks for into a rule."""
    if match.protocol:
        rule.protocol = pb.Protocol.Value(f"PROTOCOL_{match.protocol.upper()}")
    rule.sources.extend(map(str, match.sources))
    rule.destinations.extend(map(str, match.destinations))
    rule.source_ports.extend(pb.PortRange(first=a, last=b) for a, b in match.source_ports)
    rule.destination_ports.extend(pb.PortRange(first=a, last=b) for a, b in match.destination_ports)
    for side in ("in", "out"):
        ifname = getattr(match, f"{side}_ifname")
        if ifname.endswith("+"):
            setattr(rule, f"{side}_zone", zone_of(ifname, ruleset))
        elif ifname:
            setattr(rule, f"{side}_ifname", ifname)
    rule.icmp_types.extend(match.icmp_types)
    states = (f"CONNECTION_STATE_{each.upper()}" for each in match.states)
    rule.connection_states.extend(pb.ConnectionState.Value(each) for each in states)
    if match.limit:
        packets, unit, burst = match.limit
        rule.limit.packets = packets
        rule.limit.unit = pb.RateUnit.Value(f"RATE_UNIT_{unit.upper()}")
        rule.limit.burst_packets = burst
