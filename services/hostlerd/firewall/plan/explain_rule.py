"""What a rule asks and does, as nft lists it, and how that is told."""

from __future__ import annotations

from typing import Any

from hostlerd.firewall.model.explain import Met
from hostlerd.firewall.plan import explain_statements as statements
from hostlerd.firewall.plan.explain_expressions import matches
from hostlerd.firewall.plan.explain_flow import Flow, Sets, Unknown
from hostlerd.firewall.plan.explain_tables import OURS, Chain, Rule

# What a rule asks, beside what it does.
ASKING = ("match", "limit", "ct count", "quota")


def said(each: Any) -> tuple[str, Any]:
    """Answer the kind of an expression, and what is given to it."""
    return next(iter(each.items())) if isinstance(each, dict) else (str(each), None)


def holds(kind: str, given: Any, flow: Flow, sets: Sets) -> bool | Unknown:
    """Answer whether the packet is as an expression of ASKING asks."""
    if kind == "match":
        return matches(given, flow, sets)
    if kind == "limit":
        return not given.get("inv")
    return Unknown(f"what {kind} has counted is not known")


def does(each: Any) -> bool:
    """Whether an expression has an effect on the packet or its way."""
    return said(each)[0] not in (*ASKING, *statements.HARMLESS)


def words(rule: Rule) -> str:
    """Answer what a rule does, in nft's words."""
    return ", ".join(next(iter(e)) for e in rule.expressions if isinstance(e, dict) if does(e))


def met(chain: Chain, rule: Rule | None, does: str, unknown: str = "") -> Met:
    """Answer how it is told that a packet has met a rule, or a chain's policy."""
    ours = (chain.family, chain.table) == OURS
    label = rule.comment.partition(" ")[0] if rule and ours else ""
    return Met(
        table=f"{chain.family} {chain.table}",
        chain=chain.name,
        rule=label if "/" in label else "",
        text=rule.text if rule else "",
        does=does,
        unknown=unknown,
    )
