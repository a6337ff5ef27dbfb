"""From what is wanted and what is there to steps."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace

from hostlerd.firewall.errors import RulesetNotFound, RulesetUnreadable
from hostlerd.firewall.model.document import dump
from hostlerd.firewall.model.ruleset import Action, Hook, Ruleset
from hostlerd.firewall.model.state import BRIDGE_CALLS, FORWARDING, Shadow, State
from hostlerd.firewall.model.steps import (
    AnyStep,
    DeleteTable,
    ForgetRuleset,
    ReplaceTable,
    Saved,
    SaveRuleset,
    StartShadow,
    StopShadow,
)
from hostlerd.firewall.plan import conflicts, sysctls
from hostlerd.firewall.plan.ending import without_ended
from hostlerd.firewall.plan.offload import lacking, with_links
from hostlerd.firewall.plan.shadow import compile_shadow, left_out
from hostlerd.firewall.plan.table import compile_table
from hostlerd.firewall.plan.words import differences
from hostlerd.runtime.steps import Notice, Plan

_REPAIR = "put right what was changed from outside"
_AGAIN = "make the table again, which is gone"
_REFRESH = "bring the table up to date with what is saved"


def apply(want: Ruleset, state: State) -> Plan:
    """Make the host have this ruleset, new or instead of the one of that name.

    Raises what `apply_all` does. The plan's result is the ruleset.
    """
    plan = apply_all({"ruleset": want}, (), state)
    (want,) = plan.result
    have = state.rulesets.get(want.name)
    return replace(plan, etag=etag(have), etag_after=etag(want), result=want)


def delete(name: str, state: State) -> Plan:
    """Take a ruleset away; nothing to do if it is not there.

    Raises RulesetUnreadable, NameInUse.
    """
    have = state.rulesets.get(name)
    if have is None and name not in state.unreadable:
        _refuse_unreadable(state, {name})
        return Plan()
    return replace(apply_all({}, (name,), state), etag=etag(have), etag_after="", notices=())


def apply_all(wanted: Mapping[str, Ruleset], gone: Collection[str], state: State) -> Plan:
    """Make the host have rulesets, which have these paths in the request, and not have others.

    Raises InvalidRequest, PortInUse, PolicyInUse, NameInUse, NameUnknown, TooMany,
    RulesetUnreadable, FamilyUnavailable. The plan's result are the rulesets.
    """
    wanted = {path: _known(want, state) for path, want in wanted.items()}
    named = {want.name for want in wanted.values()}
    _refuse_unreadable(state, {*named, *gone})
    after = {n: r for n, r in state.rulesets.items() if n not in gone}
    after |= {want.name: want for want in wanted.values()}
    if wanted:
        conflicts.check(wanted, after, state)
    left = [r for n, r in state.rulesets.items() if n in gone]
    if left:
        conflicts.check_left(left, after)
    saving = [step for want in wanted.values() for step in _save(want, state)]
    forgetting = [step for name in sorted(gone) for step in _forget(name, state)]
    steps = (*forgetting, *saving, *_converge(after, state))
    return Plan(
        steps=steps,
        etag=etag_of_all(state.rulesets),
        etag_after=etag_of_all(after),
        notices=tuple(notice for want in wanted.values() for notice in _notices(want, state)),
        result=tuple(wanted.values()),
    )


def _known(want: Ruleset, state: State) -> Ruleset:
    """Answer a ruleset without what has ended, as the very object the host has if it is the same.

    What is made of rulesets is remembered by object.
    """
    want = without_ended(want, state.now_unix_s)
    have = state.rulesets.get(want.name)
    return have if have is not None and have == want else want


def expire(state: State) -> Plan:
    """Take away the rules that have ended: from the kernel first, then from what is saved."""
    after = {n: without_ended(r, state.now_unix_s) for n, r in state.rulesets.items()}
    saving = [step for n, r in after.items() for step in _save(r, state)]
    return Plan(steps=(*_converge(after, state), *saving)) if saving else Plan()


def start_shadow(
    wanted: Mapping[str, Ruleset], gone: Collection[str], until_unix_s: int, state: State
) -> Plan:
    """Try what the host would be with and without these; the result is the shadow.

    Raises InvalidRequest, PortInUse, PolicyInUse, NameInUse, NameUnknown, TooMany.
    """
    after = {n: r for n, r in state.rulesets.items() if n not in gone}
    after |= {want.name: want for want in wanted.values()}
    if wanted:
        conflicts.check(wanted, after, state)
    text = compile_shadow(after.values(), state.management, until_unix_s)
    shadow = Shadow(text, until_unix_s)
    return Plan(
        steps=(StartShadow(shadow, state.shadow),),
        notices=left_out(state.rulesets, after),
        result=shadow,
    )


def stop_shadow(state: State) -> Plan:
    """End the shadow; nothing to do if there is none."""
    return Plan(steps=(StopShadow(state.shadow),) if state.shadow else ())


def upkeep(state: State) -> Plan:
    """Take away what has ended: rules, and the shadow."""
    ended = state.shadow is not None and state.shadow.expire_time <= state.now_unix_s
    return Plan(steps=(*expire(state).steps, *(stop_shadow(state).steps if ended else ())))


def _save(want: Ruleset, state: State) -> tuple[AnyStep, ...]:
    have = state.rulesets.get(want.name)
    if have == want:
        return ()
    return (SaveRuleset(want.name, _saved(want), _saved(have) if have else None),)


def _forget(name: str, state: State) -> tuple[AnyStep, ...]:
    have = state.rulesets.get(name)
    if have is None and name not in state.unreadable:
        return ()
    return (ForgetRuleset(name, _saved(have) if have else None),)


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


def etag_of_all(rulesets: Mapping[str, Ruleset]) -> str:
    """Answer what changes with every change of any of them."""
    each = "".join(f"{name} {etag(r)}\n" for name, r in sorted(rulesets.items()))
    return hashlib.sha256(each.encode()).hexdigest()


def drift(state: State) -> tuple[str, ...]:
    """Answer how the kernel differs from what was applied, in words; nothing if it does not."""
    found = [*_table_drift(state), *lacking(state.rulesets.values(), state.links)]
    needed = sysctls.wanted(state.rulesets.values(), state)
    for name, value in needed.items():
        now = state.sysctls.get(name)
        if now != value:
            found.append(f"{name} is {now or 'absent'} and should be {value}")
    return tuple(found)


def _table_drift(state: State) -> list[str]:
    text = tables(state.rulesets, state)
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
        found += state.drift_details
    if applied.text_sha256 != text_sha256(text):
        found.append("what is saved was not applied")
    return found


def tables(rulesets: Mapping[str, Ruleset], state: State) -> str:
    """Answer the tables of rulesets on this host, in nft's words. Raises NameUnknown."""
    return compile_table(with_links(rulesets.values(), state.links), state.management)


def is_shown(name: str, state: State) -> bool:
    """Whether a sysctl is one that this domain sets on this host."""
    return name in FORWARDING.values() or name in BRIDGE_CALLS or name in state.found


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
    text, before = tables(want, state), tables(state.rulesets, state)
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


def _refuse_unreadable(state: State, but: Collection[str]) -> None:
    bad = sorted(set(state.unreadable) - set(but))
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
