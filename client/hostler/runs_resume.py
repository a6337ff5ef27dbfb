"""Going on with a recorded run: which hosts miss its change, and what they are asked."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hostler.fleet import Host
from hostler.outcome import MISSING, Outcome
from hostler.plans import Change, Planned, PlannedStep, RpcChange
from hostler.recordable import from_record
from hostler.results import HostResult
from hostler.rollout import Earlier, Rollout, Target
from hostler.runs import Runs
from hostler.runs_model import HostState, Run, RunHost, RunPlan, RunsError
from hostler.session import Session, Terms

_NOBODY_KNOWS = frozenset({Outcome.UNKNOWN, Outcome.PENDING_CONFIRM})


def missing(hosts: Iterable[RunHost]) -> list[RunHost]:
    """The hosts that do not have the change for certain."""
    return [h for h in hosts if h.state is not HostState.ENDED or h.outcome in MISSING]


def may_have_it(host: RunHost) -> bool:
    """Whether a host was asked to do it, and what came of it is not known."""
    return host.state is HostState.SENT or host.outcome in _NOBODY_KNOWS


class Rebuilt:
    """The change of a run, as it was recorded for each of its hosts."""

    def __init__(self, changes: Mapping[str, Change]) -> None:
        self._changes = changes
        self.rpc = next((c.rpc for c in changes.values() if isinstance(c, RpcChange)), None)

    @classmethod
    def of(cls, runs: Runs, run: Run, hosts: Sequence[RunHost]) -> Rebuilt:
        """Rebuild it. Raises RunsError that says how to repeat the run if it was not recorded."""
        records = runs.records(run.id)
        if any(host.record not in records for host in hosts):
            raise RunsError(_how_to_repeat(run, hosts))
        made = {digest: from_record(run.kind, record) for digest, record in records.items()}
        return cls({host.host: made[host.record] for host in hosts})

    async def plan(self, session: Session) -> Planned:
        """Ask a host what its change would do now."""
        return await self._changes[session.host.name].plan(session)

    async def apply(self, session: Session, planned: Planned) -> Any:
        """Do it."""
        return await self._changes[session.host.name].apply(session, planned)

    def can_ask_again(self, host: str) -> bool:
        """Whether the very request of before can be made again, from its hash and its id."""
        return isinstance(self._changes[host], RpcChange)


def targets(
    run: Run,
    options: Rollout,
    rows: Mapping[str, RunHost],
    known: Mapping[str, RunPlan],
    hosts: Sequence[Host],
    plans: Sequence[HostResult[Planned]],
    change: Rebuilt,
) -> list[Target]:
    """The hosts with what they plan now.

    One that may have done it already is asked first with the request of before, which its daemon
    answers as it did then; only if that was not carried out is the new plan.
    """
    before = Rollout.from_dict(run.options)
    found: list[Target] = []
    for host, plan in zip(hosts, plans, strict=True):
        row = rows[host.name]
        earlier = None
        if may_have_it(row):
            terms = Terms(run.id, before.confirm_within_s, row.group, before.as_job)
            planned = _planned(row, known) if change.can_ask_again(host.name) else None
            earlier = Earlier(planned, terms)
        terms = options.terms(run.id, host.name, row.attempts + 1)
        found.append(Target(host, plan, terms, earlier))
    return found


def _planned(row: RunHost, known: Mapping[str, RunPlan]) -> Planned | None:
    if not row.request_id:
        return None
    plan = known.get(row.plan_hash)
    steps = tuple(PlannedStep(*step) for step in plan.steps) if plan else ()
    return Planned(row.plan_hash, steps, request_id=row.request_id)


def _how_to_repeat(run: Run, hosts: Sequence[RunHost]) -> str:
    text = f"run {run.id} cannot be resumed from its record"
    if run.not_recorded:
        text += f": {run.not_recorded}"
    names = " ".join(f"-H {host.host}" for host in hosts)
    if not run.argv:
        return f"{text}; carry the change out again on: {names}"
    return f"{text}; repeat it on the hosts that miss it: hostler {names} {_without_hosts(run)}"


def _without_hosts(run: Run) -> str:
    """The command line of a run without its selectors."""
    words = list(run.argv)
    for selector in run.selectors:
        for index, word in enumerate(words):
            if word in ("-H", "--host") and words[index + 1 : index + 2] == [selector]:
                del words[index : index + 2]
                break
            if word in (f"-H{selector}", f"--host={selector}"):
                del words[index]
                break
    return shlex.join(words)
