"""From what is wanted and what is there to steps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from hostlerd.firewall.errors import RulesetNotFound, RulesetUnreadable
from hostlerd.firewall.model.document import dump
from hostlerd.firewall.model.ruleset import Action, Hook, Ruleset
from hostlerd.firewall.model.state import FORWARDING, State
from hostlerd.firewall.model.steps import (
    AnyStep,
    DeleteTable,
    ForgetRuleset,
    ReplaceTable,
    Saved,
    SaveRuleset,
)
from hostlerd.firewall.plan import conflicts, sysctls
from hostlerd.firewall.plan.table import compile_table
from hostlerd.firewall.plan.words import differences
from hostlerd.runtime.steps import Notice, Plan

_REPAIR = "put right what was changed from outside"
_AGAIN = "make the table again, which is gone"
_REFRESH = "bring the table up to date with what is saved"


def apply(want: Ruleset, state: State) -> Plan:
    """Make the host have this ruleset, new or instead of the one of that name.

    Raises InvalidRequest, PortInUse, PolicyInUse, TooMany, RulesetUnreadable, FamilyUnavailable.
    The plan's result is the ruleset.
    """
    _refuse_unreadable(state, want.name)
    conflicts.check(want, state)
    have = state.rulesets.get(want.name)
    saving: tuple[AnyStep, ...] = ()
    if have != want:
        saving = (SaveRuleset(want.name, _saved(want), _saved(have) if have else None),)
    steps = saving + _converge({**state.rulesets, want.name: want}, state)
    return Plan(
        steps=steps,
        etag=etag(have),
        etag_after=etag(want),
        notices=_notices(want, state),
        result=want,
    )


def delete(name: str, state: State) -> Plan:
    """Take a ruleset away; nothing to do if it is not there. Raises RulesetUnreadable."""
    _refuse_unreadable(state, name)
    have = state.rulesets.get(name)
    if have is None and name not in state.unreadable:
        return Plan()
    rest = {n: r for n, r in state.rulesets.items() if n != name}
    forget = ForgetRuleset(name, _saved(have) if have else None)
    return Plan(steps=(forget, *_converge(rest, state)), etag=etag(have))


def restore(rulesets: Mapping[str, Ruleset], state: State) -> Plan:
    """Bring the kernel to what these rulesets say, at boot; what is saved stays as it is."""
    return Plan(steps=_converge(rulesets, state))


def get(name: str, rulesets: Mapping[str, Ruleset]) -> Ruleset:
    """Answer the ruleset of that name. Raises RulesetNotFound."""
    if name not in rulesets:
        raise RulesetNotFound(f"there is no ruleset {name}", name=name)
    return rulesets[name]


def etag(ruleset: Ruleset | None) -> str:
    """Answer what changes with every change of the ruleset; empty if there is none."""
    return hashlib.sha256(dump(ruleset).encode()).hexdigest() if ruleset else ""


def drift(state: State) -> tuple[str, ...]:
    """Answer how the kernel differs from what was applied, in words; nothing if it does not."""
    found = list(_table_drift(state))
    needed = sysctls.wanted(state.rulesets.values(), state)
    for name, value in needed.items():
        now = state.sysctls.get(name)
        if now != value:
            found.append(f"{name} is {now or 'absent'} and should be {value}")
    return tuple(found)


def _table_drift(state: State) -> list[str]:
    text = compile_table(state.rulesets.values(), state.management)
    applied, table = state.applied, state.table
    if table is None:
        return ["table inet hostler is gone"] if text else []
    if not text:
        return ["table inet hostler is there and should not be"]
    if applied is None:
        return ["table inet hostler is there, and not known to be ours"]
    found = []
    if table.fingerprint != applied.fingerprint:
        found.append("table inet hostler was changed from outside")
    if applied.text_sha256 != text_sha256(text):
        found.append("what is saved was not applied")
    return found


def is_shown(name: str, state: State) -> bool:
    """Whether a sysctl is one that this domain sets on this host."""
    return name in FORWARDING.values() or name in state.found


def with_notice(plan: Plan, notice: Notice) -> Plan:
    """Answer the same plan with one more thing worth knowing."""
    return replace(plan, notices=(*plan.notices, notice))


def text_sha256(text: str) -> str:
    """Answer the hash by which an applied text is known again."""
    return hashlib.sha256(text.encode()).hexdigest()


def _converge(want: Mapping[str, Ruleset], state: State) -> tuple[AnyStep, ...]:
    """Answer the steps of the kernel: filters stand before forwarding starts, and after it ends."""
    values = sysctls.wanted(want.values(), state)
    return (
        *sysctls.putting_back(values, state),
        *_table(want, state),
        *sysctls.switching_on(values, state),
    )


def _table(want: Mapping[str, Ruleset], state: State) -> tuple[AnyStep, ...]:
    text = compile_table(want.values(), state.management)
    before = compile_table(state.rulesets.values(), state.management)
    changes = differences(state.rulesets, want)
    if not text:
        if state.table is None:
            return ()
        return (DeleteTable(before, changes or ("delete a table that nothing saved asks for",)),)
    if state.table is None:
        return (ReplaceTable(text, None, (*changes, _AGAIN) if before else changes),)
    if state.applied is None or state.table.fingerprint != state.applied.fingerprint:
        changes = (*changes, _REPAIR)
    elif state.applied.text_sha256 == text_sha256(text):
        return ()
    return (ReplaceTable(text, before or None, changes or (_REFRESH,)),)


def _saved(ruleset: Ruleset) -> Saved:
    return Saved(dump(ruleset), ruleset.persistent)


def _refuse_unreadable(state: State, but: str) -> None:
    bad = sorted(set(state.unreadable) - {but})
    if bad:
        raise RulesetUnreadable(
            f"ruleset {bad[0]} cannot be read: {state.unreadable[bad[0]]}; apply it anew or "
            "delete it first",
            rulesets=",".join(bad),
        )


def _notices(want: Ruleset, state: State) -> tuple[Notice, ...]:
    found = [Notice("DRIFT", words, "inet hostler") for words in drift(state)]
    found += [*_foreign_drops(want, state), *_bridged_hairpins(want, state)]
    return tuple(notice.with_context(f"ruleset {want.name}") for notice in found)


def _foreign_drops(want: Ruleset, state: State) -> list[Notice]:
    """Tell of chains that decide after ours, and whose drop no accept of ours can undo."""
    hooks = set()
    if want.forwards or want.masquerades or _accepts(want, Hook.FORWARD):
        hooks.add("forward")
    if _accepts(want, Hook.INPUT):
        hooks.add("input")
    dropping = [c for c in state.foreign if c.policy == "drop" and c.hook in hooks]
    return [
        Notice(
            "FOREIGN_DROP",
            f"chain {where} drops what it does not know; what is accepted here must be accepted "
            "there too",
            where,
        )
        for where in (f"{c.family} {c.table} {c.name}" for c in dropping)
    ]


def _bridged_hairpins(want: Ruleset, state: State) -> list[Notice]:
    """Tell of targets that a bridge would have to send frames back to by the port they came by.

    Where the bridge hands its frames to nft, it forwards them itself once their destination is
    rewritten to somebody on it.
    """
    return [
        Notice(
            "BRIDGED_HAIRPIN",
            f"{f.target_address} is on a bridge with bridge-nf-call-iptables on: it reaches its "
            "own forward only if its bridge port has hairpin mode",
            f"{want.name}/{f.name}",
        )
        for f in want.forwards
        if any(f.target_address in n for n in state.filtered_bridge_networks)
    ]


def _accepts(ruleset: Ruleset, hook: Hook) -> bool:
    return any(r.hook is hook and r.action is Action.ACCEPT for r in ruleset.rules)
