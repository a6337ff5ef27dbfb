"""Rules that end by themselves: the kernel stops asking them, and then they are taken away."""

from __future__ import annotations

from dataclasses import replace

from hostlerd.firewall.model.ruleset import Ruleset, rule_id


def without_ended(ruleset: Ruleset, now_unix_s: int) -> Ruleset:
    """Answer the ruleset without the rules that have ended; the others keep their ids."""
    if not any(0 < rule.expire_time <= now_unix_s for rule in ruleset.rules):
        return ruleset
    kept = (
        replace(rule, id=rule_id(index, rule))
        for index, rule in enumerate(ruleset.rules)
        if not 0 < rule.expire_time <= now_unix_s
    )
    return replace(ruleset, rules=tuple(kept))
