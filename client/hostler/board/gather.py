"""Asking a host how it is: all its doors at once, and what cannot be asked is left open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hostler.api.common.v1 import confirm_pb2, host_pb2, job_pb2
from hostler.api.firewall.v1 import counter_pb2, ruleset_pb2
from hostler.api.ssl.v1 import certificate_pb2
from hostler.api.storage.v1 import graph_pb2
from hostler.board.status import Dropping, Ending, HostStatus, Waiting, Work
from hostler.channel import Rpc, rpc
from hostler.confirm import GET_PENDING
from hostler.core.ssl.place import place_words
from hostler.doors import doors_of
from hostler.jobs import LIST_JOBS, method_word
from hostler.results import CallFailed, HostError
from hostler.session import Session

GET_HOST = rpc(host_pb2, "HostService", "GetHost")
GET_TABLE = rpc(ruleset_pb2, "RulesetService", "GetTable")
LIST_RULESETS = rpc(ruleset_pb2, "RulesetService", "ListRulesets")
LIST_COUNTERS = rpc(counter_pb2, "RuleCounterService", "ListRuleCounters")
LIST_CERTIFICATES = rpc(certificate_pb2, "CertificateService", "ListCertificates")
GET_HEALTH = rpc(graph_pb2, "GraphService", "GetHealth")

ENDS_WITHIN_S = 30 * 86400
MOST = 20
_ANSWER_S = 10.0
# Certificates are read from all their files, and disks are asked one by one.
_SLOW_ANSWER_S = 60.0
_LOSING = (ruleset_pb2.ACTION_DROP, ruleset_pb2.ACTION_REJECT)

Asked = dict[str, Any]


async def look(session: Session, *, before: HostStatus, slow: bool) -> HostStatus:
    """How the host is now. Without `slow` its certificates and disks are as they were before."""
    host, asked_s = session.host, time.time()
    answers = await _at_doors(session, doors_of(host), GET_HOST, host_pb2.GetHostRequest())
    doors = {d: str(a) if isinstance(a, HostError) else "" for d, a in answers.items()}
    status = HostStatus(host.name, host.address, asked_s, before.answered_unix_s, doors)
    up = [domain for domain, why in doors.items() if not why]
    if not up:
        return replace(status, version=before.version)
    hosts = [answers[domain].host for domain in up]
    parts = await _parts(session, up, slow=slow)
    notes = tuple(
        f"{name}: {answer}" for name, answer in parts.items() if isinstance(answer, HostError)
    )
    return replace(
        status,
        answered_unix_s=asked_s,
        version=", ".join(sorted({each.version for each in hosts})),
        waiting=_waiting(parts.get("pending")),
        jobs=_jobs(parts),
        drift=_drift(parts.get("table")),
        drops=_drops(parts.get("rulesets"), parts.get("counters")),
        problems=tuple(dict.fromkeys(_problems(hosts))),
        notes=notes,
        **_slow(parts, before, slow=slow),
    )


async def _parts(session: Session, up: Sequence[str], *, slow: bool) -> Asked:
    calls: dict[str, Any] = {
        "pending": _ask(session, GET_PENDING.at(up[0]), confirm_pb2.GetPendingRequest())
    }
    for domain in up:
        request = job_pb2.ListJobsRequest(active_only=True, page_size=MOST)
        calls[f"jobs of {domain}"] = _ask(session, LIST_JOBS.at(domain), request)
    if "firewall" in up:
        calls["table"] = _ask(session, GET_TABLE, ruleset_pb2.GetTableRequest())
        calls["rulesets"] = _ask(session, LIST_RULESETS, ruleset_pb2.ListRulesetsRequest())
        calls["counters"] = _ask(session, LIST_COUNTERS, counter_pb2.ListRuleCountersRequest())
    if slow and "ssl" in up:
        wanted = certificate_pb2.ListCertificatesRequest(page_size=MOST)
        wanted.expires_within.FromSeconds(ENDS_WITHIN_S)
        calls["certificates"] = _ask(session, LIST_CERTIFICATES, wanted, _SLOW_ANSWER_S)
    if slow and "storage" in up:
        calls["health"] = _ask(session, GET_HEALTH, graph_pb2.GetHealthRequest(), _SLOW_ANSWER_S)
    return dict(zip(calls, await asyncio.gather(*calls.values()), strict=True))


async def _at_doors(session: Session, doors: Sequence[str], method: Rpc, request: Any) -> Asked:
    calls = (_ask(session, method.at(domain), request) for domain in doors)
    return dict(zip(doors, await asyncio.gather(*calls), strict=True))


async def _ask(session: Session, method: Rpc, request: Any, timeout_s: float = _ANSWER_S) -> Any:
    try:
        return await session.call(method, request, timeout_s=timeout_s)
    except CallFailed as failed:
        return failed.error


def _known(answer: Any) -> bool:
    return answer is not None and not isinstance(answer, HostError)


def _waiting(answer: Any) -> Waiting | None:
    if not _known(answer) or not answer.HasField("pending"):
        return None
    group = answer.pending
    return Waiting(
        group.group,
        group.identity,
        group.remaining.ToTimedelta().total_seconds(),
        tuple(method_word(part.method) for part in group.parts),
        group.reverting,
    )


def _jobs(parts: Mapping[str, Any]) -> tuple[Work, ...] | None:
    answers = [answer for name, answer in parts.items() if name.startswith("jobs of ")]
    if not any(map(_known, answers)):
        return None
    return tuple(
        Work(
            job.name,
            method_word(job.method),
            job.progress.activity,
            job.progress.done,
            job.progress.total,
            job.progress.unit,
        )
        for answer in answers
        if _known(answer)
        for job in answer.jobs
    )


def _drift(answer: Any) -> tuple[str, ...] | None:
    return tuple(answer.drift[:MOST]) if _known(answer) else None


def _drops(rulesets: Any, counters: Any) -> tuple[Dropping, ...] | None:
    """The rules that lose packets, those that have lost the most first."""
    if not (_known(rulesets) and _known(counters)):
        return None
    losing = {
        f"{one.name}/{rule.id}"
        for one in rulesets.rulesets
        for rule in one.rules
        if rule.action in _LOSING
    }
    found = [
        Dropping(each.rule, each.packets)
        for each in counters.counters
        if each.packets and (each.rule in losing or _is_policy(each.rule))
    ]
    return tuple(sorted(found, key=lambda each: -each.packets)[:MOST])


def _is_policy(rule: str) -> bool:
    """What no rule has decided is counted where a policy loses it."""
    return rule.partition("/")[2].startswith("policy-")


def _problems(hosts: Sequence[Any]) -> list[str]:
    found = []
    for each in hosts:
        found += [f"audit log of {each.domain}: {each.audit_problem}"] * bool(each.audit_problem)
        found += [f"bundle: {each.bundle_problem}"] * bool(each.bundle_problem)
        found += [f"{each.domain}: {n.name}: {n.message}" for n in each.neighbours if n.conflict]
    return found


def _slow(parts: Mapping[str, Any], before: HostStatus, *, slow: bool) -> dict[str, Any]:
    if not slow:
        return {
            "health": before.health,
            "health_is_bad": before.health_is_bad,
            "ending": before.ending,
        }
    health: Any = parts.get("health")
    certificates: Any = parts.get("certificates")
    told: dict[str, Any] = {}
    if _known(health):
        bad = graph_pb2.HEALTH_LEVEL_CRITICAL
        told["health"] = tuple(each.message for each in health.reasons[:MOST])
        told["health_is_bad"] = health.level >= bad
    if _known(certificates):
        told["ending"] = tuple(
            Ending(
                each.subject or f"serial {each.serial}",
                ", ".join(place_words(place) for place in each.places[:3]),
                each.not_after.seconds,
            )
            for each in certificates.certificates
        )
    return told
