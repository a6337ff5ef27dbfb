"""Pushing the signed bundle to every door of a host: each daemon verifies and keeps its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hostler.api.common.v1 import bundle_pb2
from hostler.channel import rpc
from hostler.doors import doors_of
from hostler.fleet import Host
from hostler.group import joined, refuse_jobs, take_back
from hostler.outcome import settled
from hostler.plans import Planned, RpcChange, to_apply
from hostler.results import CallFailed, HostError, plain
from hostler.session import Session

PUSH_BUNDLE = rpc(bundle_pb2, "BundleService", "PushBundle")


@dataclass(frozen=True, slots=True)
class Pushed:
    """What the doors of a host answered, by domain."""

    answers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether any door had another bundle before."""
        return any(answer.change.changed for answer in self.answers.values())

    @property
    def version(self) -> int:
        """The lowest version in force at the doors after the push."""
        return min(int(answer.bundle.version) for answer in self.answers.values())

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        answers = {domain: plain(answer) for domain, answer in self.answers.items()}
        return {"changed": self.changed, "version": self.version, "doors": answers}


@dataclass(frozen=True, slots=True)
class _Doors:
    """The plan of each door, and why there is none."""

    plans: Mapping[str, Planned]
    problems: Mapping[str, HostError]


class PushBundle:
    """Puts a bundle in force at several doors of a host, or at all that it has.

    See `hostler.plans.Change`. A door that refuses or does not answer holds up no other: a
    revocation is to reach as many as it can. The host has failed nevertheless, with the errors of
    all its doors. Under `Terms.confirm_within_s` all doors have the new bundle or none: what was
    pushed is taken back as soon as one door fails, since the host would do so at the deadline.
    """

    kind = "push-bundle"

    def __init__(self, signed_bundle: bytes, domains: Sequence[str] = ()) -> None:
        self._domains = tuple(domains)
        self._request = bundle_pb2.PushBundleRequest(signed_bundle=signed_bundle)

    async def plan(self, session: Session) -> Planned:
        """Ask each door whether it takes the bundle. Raises CallFailed if none does."""
        refuse_jobs(session)
        plans: dict[str, Planned] = {}
        problems: dict[str, HostError] = {}
        for domain in doors_of(session.host, self._domains):
            try:
                plans[domain] = await self._change(domain).plan(session)
            except CallFailed as failed:
                problems[domain] = failed.error
        if not plans:
            raise CallFailed(_all(problems))
        steps = [
            replace(step, description=f"{domain}: {step.description}")
            for domain, planned in plans.items()
            for step in planned.steps
        ]
        told = [f"{domain}: {word}" for domain, each in plans.items() for word in each.warnings]
        told += [f"NOT_PLANNED: {domain}: {error}" for domain, error in problems.items()]
        digest = hashlib.sha256("".join(plans[d].hash for d in plans).encode()).hexdigest()
        return Planned(digest, tuple(steps), tuple(told), _Doors(plans, problems))

    async def apply(self, session: Session, planned: Planned) -> Pushed:
        """Push to each door that planned; raises one CallFailed that has all errors."""
        doors: _Doors = planned.response
        problems = dict(doors.problems)
        answers: dict[str, Any] = {}
        for domain, plan in doors.plans.items():
            try:
                answers[domain] = await self._push(session, domain, plan, answers)
            except CallFailed as failed:
                problems[domain] = failed.error
        if problems:
            raise CallFailed(await self._problem(session, problems, answers))
        return Pushed(answers)

    async def _push(
        self, session: Session, domain: str, plan: Planned, answers: Mapping[str, Any]
    ) -> Any:
        request = bundle_pb2.PushBundleRequest()
        request.CopyFrom(self._request)
        to_apply(session, request, plan)
        joined(request.change, answers.values())
        return settled(await session.call(PUSH_BUNDLE.at(domain), request))

    async def _problem(
        self, session: Session, problems: Mapping[str, HostError], answers: Mapping[str, Any]
    ) -> HostError:
        error = _all(problems)
        if session.terms.confirm_within_s is None or not (answers or error.uncertain):
            return error
        problem = await take_back(session)
        words = problem or "the doors have the bundle that they had before"
        return replace(error, message=f"{error.message}; {words}", uncertain=bool(problem))

    def _change(self, domain: str) -> RpcChange:
        return RpcChange(PUSH_BUNDLE.at(domain), self._request)

    def to_record(self, host: Host) -> dict[str, Any]:
        """What `from_record` takes."""
        signed = base64.b64encode(self._request.signed_bundle).decode()
        return {"signed_bundle": signed, "domains": list(self._domains)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> PushBundle:
        """The change that was recorded."""
        return cls(base64.b64decode(record["signed_bundle"], validate=True), record["domains"])


def _all(problems: Mapping[str, HostError]) -> HostError:
    """One error of several doors: the first one's code and reason, everyone's words."""
    first = next(iter(problems.values()))
    message = "; ".join(f"{domain}: {error.message}" for domain, error in problems.items())
    metadata = {**first.metadata, "doors": ",".join(problems)}
    uncertain = any(error.uncertain for error in problems.values())
    return replace(first, message=message, metadata=metadata, uncertain=uncertain)
