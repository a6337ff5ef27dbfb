"""The composite: a process with a private network and published ports, on one host.

Put together by the client from three changes at two doors; no daemon calls another. Under
`Terms.confirm_within_s` all of them are in one pending group, which stays or goes as a whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Any

from hostler.api.firewall.v1 import ruleset_pb2
from hostler.api.netns.v1 import namespace_pb2, process_pb2
from hostler.channel import Rpc, rpc
from hostler.config import HostlerError
from hostler.fleet import Host
from hostler.group import joined, refuse_jobs, take_back
from hostler.isolation import Isolated, Isolation, Part, combine, composed
from hostler.outcome import settled
from hostler.plans import Planned, RpcChange, to_apply
from hostler.results import CallFailed, HostError
from hostler.session import Session

__all__ = ["Isolate", "Isolation", "Remove"]

CREATE_NAMESPACE = rpc(namespace_pb2, "NamespaceService", "CreateNamespace")
GET_NAMESPACE = rpc(namespace_pb2, "NamespaceService", "GetNamespace")
DELETE_NAMESPACE = rpc(namespace_pb2, "NamespaceService", "DeleteNamespace")
APPLY_RULESET = rpc(ruleset_pb2, "RulesetService", "ApplyRuleset")
GET_RULESET = rpc(ruleset_pb2, "RulesetService", "GetRuleset")
DELETE_RULESET = rpc(ruleset_pb2, "RulesetService", "DeleteRuleset")
START_PROCESS = rpc(process_pb2, "ProcessService", "StartProcess")
STOP_PROCESS = rpc(process_pb2, "ProcessService", "StopProcess")
LIST_PROCESSES = rpc(process_pb2, "ProcessService", "ListProcesses")


class Isolate:
    """Makes an isolation: namespace, then ruleset, then process. See `hostler.plans.Change`."""

    kind = "isolate"

    def __init__(self, isolation: Isolation) -> None:
        self._isolation = isolation

    async def plan(self, session: Session) -> Planned:
        """Ask both doors; the ruleset is planned for the addresses of the planned namespace."""
        refuse_jobs(session)
        wanted = self._isolation
        create = namespace_pb2.CreateNamespaceRequest(namespace=wanted.namespace())
        namespace = await RpcChange(CREATE_NAMESPACE, create).plan(session)
        try:
            ruleset = wanted.ruleset(namespace.response.namespace)
        except HostlerError as error:
            raise CallFailed(HostError("INVALID_ARGUMENT", "NO_ADDRESS", str(error))) from error
        get_ruleset = ruleset_pb2.GetRulesetRequest(name=wanted.name)
        before = await _found(session, GET_RULESET, get_ruleset)
        apply = ruleset_pb2.ApplyRulesetRequest(ruleset=ruleset)
        firewall = await RpcChange(APPLY_RULESET, apply).plan(session)
        start = process_pb2.StartProcessRequest(process=wanted.process())
        get_namespace = namespace_pb2.GetNamespaceRequest(name=wanted.name)
        there = await _found(session, GET_NAMESPACE, get_namespace)
        # One whose handle was taken away is made again, and cannot be joined before that, either.
        fresh = there is None or not there.namespace.inode
        process, from_host = await _plan_process(session, start, fresh=fresh)
        return combine(
            (
                Part("namespace", namespace, create, there and there.namespace),
                Part("ruleset", firewall, apply, before and before.ruleset),
                Part("process", process, start, hash_is_the_hosts=from_host),
            )
        )

    async def apply(self, session: Session, planned: Planned) -> Isolated:
        """Carry out the three parts. If one fails, those that this call made are removed again."""
        done = Isolated(planned)
        made: list[Part] = []
        rpcs = (CREATE_NAMESPACE, APPLY_RULESET, START_PROCESS)
        for part, method in zip(planned.response, rpcs, strict=True):
            try:
                answer = await _carry_out(session, method, part, done)
            except CallFailed as failed:
                if failed.error.uncertain:
                    made.append(part)
                raise await _undone(session, self._isolation.name, part, made, failed) from failed
            except asyncio.CancelledError:
                await _undo(session, self._isolation.name, [*made, part])
                raise
            done.answers[part.name] = answer
            if answer.change.changed:
                made.append(part)
        return done

    def to_record(self, host: Host) -> dict[str, Any]:
        """What `from_record` takes. Raises NotRecordable if the process is given an environment."""
        from hostler.recordable import check_secrets

        check_secrets(self._isolation.process())
        return self._isolation.to_record()

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Isolate:
        """The change that was recorded."""
        return cls(Isolation.from_record(record))


async def _plan_process(session: Session, start: Any, *, fresh: bool) -> tuple[Planned, bool]:
    """Plan the process; also answer whether the host did, rather than the client.

    A namespace that is only planned cannot be joined, so the host answers NOT_FOUND. It is asked
    all the same, since what is wrong with the request itself, or not allowed, is to come up before
    anything is made.
    """
    try:
        return await RpcChange(START_PROCESS, start).plan(session), True
    except CallFailed as failed:
        if not fresh or failed.error.code != "NOT_FOUND":
            raise
    return composed(start.process), False


async def _carry_out(session: Session, method: Rpc, part: Part, done: Isolated) -> Any:
    request = method.request_type()
    request.CopyFrom(part.request)
    to_apply(session, request, part.planned)
    if not part.hash_is_the_hosts:
        request.change.plan_hash = ""
    joined(request.change, done.answers.values())
    return settled(await session.call(method, request))


async def _found(session: Session, method: Rpc, request: Any) -> Any:
    """The answer of a Get method, or None if there is no such thing."""
    try:
        return await session.call(method, request)
    except CallFailed as failed:
        if failed.error.code == "NOT_FOUND":
            return None
        raise


async def _undone(
    session: Session, name: str, part: Part, made: list[Part], failed: CallFailed
) -> CallFailed:
    """Remove what was made; answer the error that says what failed and what came of the rest."""
    undone, problems = await _undo(session, name, made)
    error = failed.error
    message = f"{part.name}: {error.message}"
    if undone:
        message += f"; removed again: {', '.join(undone)}"
    metadata = {**error.metadata, "part": part.name, "removed_again": ",".join(undone)}
    if problems:
        message += f"; still there, perhaps: {'; '.join(problems)}"
        metadata["not_removed"] = "; ".join(problems)
    return CallFailed(replace(error, message=message, metadata=metadata, uncertain=bool(problems)))


async def _undo(session: Session, name: str, made: list[Part]) -> tuple[list[str], list[str]]:
    """Take parts back, newest first; answer which, and what could not be.

    What is pending goes as a whole, by the host's own way back: it takes no other change now.
    """
    undone: list[str] = []
    problems: list[str] = []
    parts = [part for part in reversed(made) if part.planned.steps]
    if parts and session.terms.confirm_within_s is not None:
        problem = await take_back(session)
        return ([], [problem]) if problem else ([part.name for part in parts], [])
    for part in parts:
        if part.name == "namespace" and part.before is not None:
            continue
        try:
            await _take_back(session, name, part)
            undone.append(part.name)
        except CallFailed as failed:
            problems.append(f"{part.name}: {failed}")
    return undone, problems


async def _take_back(session: Session, name: str, part: Part) -> None:
    if part.name == "namespace":
        request = namespace_pb2.DeleteNamespaceRequest(name=name, stop_processes=True)
        await session.call(DELETE_NAMESPACE, request)
    elif part.name == "process":
        stop = process_pb2.StopProcessRequest(namespace=name, name=part.request.process.name)
        await session.call(STOP_PROCESS, stop)
    elif part.before is not None:
        put_back = ruleset_pb2.ApplyRulesetRequest(ruleset=part.before)
        await session.call(APPLY_RULESET, put_back)
    else:
        await session.call(DELETE_RULESET, ruleset_pb2.DeleteRulesetRequest(name=name))


class Remove:
    """Removes an isolation in whatever state it is: processes, ruleset, namespace.

    Each part is tried whatever became of the others, and all errors are told. What is not there is
    no error.
    """

    kind = "isolate-remove"

    def __init__(self, name: str) -> None:
        self._name = name

    async def plan(self, session: Session) -> Planned:
        """Ask both doors what there is to remove."""
        refuse_jobs(session)
        problems: list[HostError] = []
        parts: list[Part] = []
        for stop in await _tried("processes", self._processes(session), problems) or ():
            parts += await self._part(session, "process", STOP_PROCESS, stop, problems)
        delete = ruleset_pb2.DeleteRulesetRequest(name=self._name)
        parts += await self._part(session, "ruleset", DELETE_RULESET, delete, problems)
        remove = namespace_pb2.DeleteNamespaceRequest(name=self._name, stop_processes=True)
        parts += await self._part(session, "namespace", DELETE_NAMESPACE, remove, problems)
        planned = combine(parts)
        if not problems:
            return planned
        if not planned.steps:
            raise CallFailed(_all(problems))
        # What can be planned is still removed; what cannot is shown before, and told after.
        warnings = (*planned.warnings, *(f"NOT_PLANNED: {problem}" for problem in problems))
        parts += [Part("unplanned", Planned("", ()), problem) for problem in problems]
        return Planned(planned.hash, planned.steps, warnings, response=tuple(parts))

    async def apply(self, session: Session, planned: Planned) -> Isolated:
        """Remove every part; raises one CallFailed that has all errors."""
        done = Isolated(planned)
        problems: list[HostError] = []
        methods = {
            "process": STOP_PROCESS,
            "ruleset": DELETE_RULESET,
            "namespace": DELETE_NAMESPACE,
        }
        for part in planned.response:
            if part.name == "unplanned":
                problems.append(part.request)
                continue
            answer = await _tried(
                part.name, _carry_out(session, methods[part.name], part, done), problems
            )
            if answer is not None:
                done.answers[_key(part)] = answer
        if problems:
            raise CallFailed(await self._problem(session, problems, done))
        return done

    async def _problem(
        self, session: Session, problems: list[HostError], done: Isolated
    ) -> HostError:
        """The error of a removal that is not whole; what is pending is not left half removed."""
        if session.terms.confirm_within_s is None:
            return _all(problems, removed=",".join(done.answers))
        problem = await take_back(session)
        error = _all(problems)
        words = problem or "what had been removed is there again"
        return replace(error, message=f"{error.message}; {words}", uncertain=bool(problem))

    def to_record(self, host: Host) -> dict[str, Any]:
        """What `from_record` takes."""
        return {"name": self._name}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Remove:
        """The change that was recorded."""
        return cls(record["name"])

    async def _processes(self, session: Session) -> list[Any]:
        request = process_pb2.ListProcessesRequest(namespace=self._name)
        found = await session.list_all(LIST_PROCESSES, request)
        return [
            process_pb2.StopProcessRequest(namespace=self._name, name=each.process.name)
            for each in found.processes
        ]

    async def _part(
        self, session: Session, name: str, method: Rpc, request: Any, problems: list[HostError]
    ) -> list[Part]:
        planned = await _tried(name, RpcChange(method, request).plan(session), problems)
        if planned is None:
            return []
        # The namespace's plan is another one once the processes are gone, so its hash, seen while
        # they ran, could not be asked for.
        return [Part(name, planned, request, hash_is_the_hosts=name != "namespace")]


def _key(part: Part) -> str:
    return f"process {part.request.name}" if part.name == "process" else part.name


async def _tried(part: str, work: Awaitable[Any], problems: list[HostError]) -> Any:
    try:
        return await work
    except CallFailed as failed:
        error = failed.error
        message = f"{part}: {error.message}"
        problems.append(replace(error, message=message))
        return None


def _all(problems: list[HostError], removed: str = "") -> HostError:
    """One error of several: the code and reason of the first, the words of all."""
    first = problems[0]
    words = "; ".join(str(problem) for problem in problems)
    metadata = {**first.metadata, "problems": words, "removed": removed}
    violations = tuple(each for problem in problems for each in problem.violations)
    message = "; ".join(problem.message for problem in problems)
    uncertain = any(problem.uncertain for problem in problems)
    return HostError(first.code, first.reason, message, metadata, violations, uncertain)
