"""Applying rulesets of files: all those of a host in one call, its faults told by file and line.

What a host refuses names places in the request; the operator has files. Everything that comes back
is led from the one to the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hostler.api.firewall.v1 import ruleset_pb2
from hostler.channel import rpc
from hostler.firewall_files import RulesetFile
from hostler.fleet import Host
from hostler.plans import Planned, RpcChange
from hostler.results import CallFailed, HostError, HostResult
from hostler.session import Session

APPLY_RULESETS = rpc(ruleset_pb2, "RulesetService", "ApplyRulesets")
LIST_RULESETS = rpc(ruleset_pb2, "RulesetService", "ListRulesets")

# After these the host was not reached, so it cannot have refused anything.
_NOT_REACHED = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
_PLACE = re.compile(r"rulesets\[(\d+)\](?:\.(.*))?", re.DOTALL)

Files = Mapping[str, Sequence[RulesetFile]]


class FilesChange(RpcChange):
    """A change of one call whose request has the rulesets of each host's files.

    `files` are by host name; the request's `rulesets` are those of the host's files, in their
    order. Errors of the host name file and line.
    """

    def __init__(self, method: Any, request: Any, files: Files) -> None:
        super().__init__(method, self._made)
        self._base = request
        self._files = files

    def _made(self, host: Host) -> Any:
        request = self.rpc.request_type()
        request.CopyFrom(self._base)
        request.rulesets.extend(each.ruleset for each in self._files[host.name])
        return request

    async def plan(self, session: Session) -> Planned:
        """Ask the host what it would do."""
        try:
            return await super().plan(session)
        except CallFailed as failed:
            raise self._placed(session, failed) from failed

    async def apply(self, session: Session, planned: Planned) -> Any:
        """Do it, if the plan is still the same."""
        try:
            return await super().apply(session, planned)
        except CallFailed as failed:
            raise self._placed(session, failed) from failed

    def _placed(self, session: Session, failed: CallFailed) -> CallFailed:
        return CallFailed(placed(failed.error, self._files[session.host.name]), failed.answer)


class ApplyFiles(FilesChange):
    """Makes hosts have the rulesets of their files, and none of those that are `absent`.

    With `prune` they have no others after it.
    """

    def __init__(
        self, files: Files, *, force: bool = False, cut_established: bool = False,
        prune: bool = False, absent: Sequence[str] = (),
    ) -> None:  # fmt: skip
        request = ruleset_pb2.ApplyRulesetsRequest(
            force=force, cut_established=cut_established, delete_names=absent
        )
        super().__init__(APPLY_RULESETS, request, files)
        self._prune = prune
        self._deleted: dict[str, tuple[str, ...]] = {}

    def _made(self, host: Host) -> Any:
        request = super()._made(host)
        request.delete_names.extend(self._deleted.get(host.name, ()))
        return request

    async def plan(self, session: Session) -> Planned:
        """Ask the host what it would do, and first, to prune, what else it has."""
        if self._prune:
            request = ruleset_pb2.ListRulesetsRequest()
            there = await session.list_all(LIST_RULESETS, request)
            named = {each.ruleset.name for each in self._files[session.host.name]}
            names = (each.name for each in there.rulesets)
            named.update(self._base.delete_names)
            self._deleted[session.host.name] = tuple(n for n in names if n not in named)
        return await super().plan(session)


def ending(files: Sequence[RulesetFile], after_s: float) -> tuple[RulesetFile, ...]:
    """The same files with rules that end so long from now, where they have no end of their own."""
    end = datetime.now(UTC) + timedelta(seconds=after_s)
    ended = []
    for each in files:
        ruleset = ruleset_pb2.Ruleset()
        ruleset.CopyFrom(each.ruleset)
        for rule in ruleset.rules:
            if not rule.HasField("expire_time"):
                rule.expire_time.FromDatetime(end.replace(tzinfo=None))
        ended.append(replace(each, ruleset=ruleset))
    return tuple(ended)


def placed(error: HostError, files: Sequence[RulesetFile]) -> HostError:
    """The error with `place` in its violations, and words that name files in place of fields.

    `files` are those of the request, in its order.
    """
    message = error.message
    violations: list[Mapping[str, str]] = []
    for each in error.violations:
        # A broken request names fields, a state that stands against it names subjects.
        at = each.get("field") or each.get("subject") or ""
        where = where_of(at, files) or where_of_rule(at, files)
        violations.append({**each, "place": where} if where else each)
        if where:
            told = each.get("description", "")
            message = message.replace(f"{at}: {told}", f"{where}: {told}")
    metadata = dict(error.metadata)
    if where := where_of_rule(metadata.get("rule", ""), files):
        metadata["place"] = where
        if not any("place" in each for each in violations):
            message = f"{where}: {message}"
    return replace(error, message=message, violations=tuple(violations), metadata=metadata)


def where_of(field: str, files: Sequence[RulesetFile]) -> str:
    """A field of the request, such as rulesets[1].rules[37].sources[0], by file and line."""
    found = _PLACE.fullmatch(field)
    if found is None or int(found[1]) >= len(files):
        return ""
    return files[int(found[1])].where(found[2] or "")


def where_of_rule(rule: str, files: Sequence[RulesetFile]) -> str:
    """A rule by RULESET/ID, by file and line; empty if it is in none of the files."""
    name, slash, entry = rule.partition("/")
    for each in files:
        if slash and each.ruleset.name == name:
            return each.where_rule(entry)
    return ""


@dataclass(frozen=True, slots=True)
class Found:
    """A finding of several hosts in the same words."""

    words: str
    refused: bool
    hosts: tuple[str, ...]


def findings(plans: Sequence[HostResult[Planned]], files: Files) -> list[Found]:
    """What hosts have found in their rulesets, each text once, in the order of the first host."""
    grouped: dict[tuple[str, bool], list[str]] = {}
    for plan in plans:
        if plan.result is None:
            continue
        mine = files.get(plan.host, ())
        for each in getattr(plan.result.response, "findings", ()):
            where = where_of(each.field, mine) or where_of_rule(each.rule, mine) or each.rule
            words = ": ".join(filter(None, (where, each.code, each.message)))
            hosts = grouped.setdefault((words, each.refused), [])
            if plan.host not in hosts:
                hosts.append(plan.host)
    return [Found(words, refused, tuple(h)) for (words, refused), h in grouped.items()]


def refusals(plans: Sequence[HostResult[Planned]]) -> list[HostResult[Planned]]:
    """The plans that hosts have refused to make. One that could not be reached has not."""
    return [p for p in plans if p.error is not None and p.error.code not in _NOT_REACHED]


def touching(plans: Sequence[HostResult[Planned]]) -> tuple[str, ...]:
    """The hosts where a change may concern packets between them and the caller."""
    return tuple(
        plan.host
        for plan in plans
        if plan.result is not None
        and plan.result.steps
        and getattr(plan.result.response, "touches_caller", False)
    )
