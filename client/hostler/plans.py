"""Changes in two phases: every host's plan first, then exactly those plans."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hostler.channel import Rpc
from hostler.fanout import fan_out
from hostler.fleet import Host
from hostler.limits import DEFAULT_WINDOW, shortened
from hostler.outcome import settled
from hostler.results import HostResult, plain
from hostler.session import Session


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of a plan: its kind and its words."""

    kind: str
    description: str


@dataclass(frozen=True, slots=True)
class Planned:
    """What a change would do on one host.

    `request_id` is drawn here, once per intended change, and kept over all retries. `response` is
    the host's whole answer, or what the change needs to be carried out. `destroy_token` is what the
    host answered to the plan of something that destroys; good once, and never recorded. What is
    `last` is carried out when all the other hosts of a rollout are through with theirs.
    """

    hash: str
    steps: tuple[PlannedStep, ...]
    warnings: tuple[str, ...] = ()
    response: Any = None
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    destroy_token: str = field(default="", repr=False)
    last: bool = False

    @classmethod
    def of(cls, change: Any, response: Any = None) -> Planned:
        """Read the Change of a validate_only answer."""
        return cls(
            hash=change.plan.hash,
            steps=tuple(PlannedStep(s.kind, s.description) for s in change.plan.steps),
            warnings=tuple(_words(warning) for warning in change.warnings),
            response=response,
            destroy_token=change.destroy_token,
        )

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it: the answer of the host, which carries the plan."""
        if hasattr(self.response, "DESCRIPTOR"):
            return dict(plain(self.response))
        return {
            "plan": {
                "hash": self.hash,
                "steps": [{"kind": s.kind, "description": s.description} for s in self.steps],
            },
            "warnings": list(self.warnings),
        }


class Change(Protocol):
    """A change of one host, in two phases."""

    async def plan(self, session: Session) -> Planned:
        """Ask what it would do. Changes nothing."""
        ...

    async def apply(self, session: Session, planned: Planned) -> Any:
        """Do what was planned and nothing else; answers what the host said."""
        ...


def to_plan(session: Session, request: Any) -> Any:
    """Make a request ask for its plan alone, on the session's terms; answers it."""
    request.change.validate_only = True
    # A job would be started for the question itself.
    request.change.job = False
    _confirm(session, request.change)
    return request


def to_apply(session: Session, request: Any, planned: Planned) -> Any:
    """Make a request ask for what was planned and nothing else, on the session's terms."""
    options = request.change
    options.validate_only = False
    options.plan_hash = planned.hash
    options.request_id = planned.request_id
    options.destroy_token = planned.destroy_token
    options.job = options.job or session.terms.as_job
    _confirm(session, options)
    return request


def _confirm(session: Session, options: Any) -> None:
    terms = session.terms
    if terms.confirm_within_s is not None:
        options.confirm.within.FromMicroseconds(round(terms.confirm_within_s * 1_000_000))
        options.confirm.group = terms.group


class RpcChange:
    """A change that is one call of a method whose request has a `change` field.

    `request` is the message for all hosts, or a function that makes each host's.
    """

    kind = "rpc"

    def __init__(self, rpc: Rpc, request: Any | Callable[[Host], Any]) -> None:
        self.rpc = rpc
        self._request = request

    async def plan(self, session: Session) -> Planned:
        """Ask the host what it would do."""
        response = await session.call(self.rpc, to_plan(session, self.message(session.host)))
        return Planned.of(response.change, response)

    async def apply(self, session: Session, planned: Planned) -> Any:
        """Do it, if the plan is still the same; ABORTED otherwise. Raises CallFailed.

        Also if the host answers that the change is not in force, see `hostler.outcome.settled`.
        """
        request = to_apply(session, self.message(session.host), planned)
        return settled(await session.call(self.rpc, request))

    def message(self, host: Host) -> Any:
        """A new copy of the request for a host."""
        request = self.rpc.request_type()
        request.CopyFrom(self._request(host) if callable(self._request) else self._request)
        return request

    def to_record(self, host: Host) -> dict[str, Any]:
        """What `from_record` takes. Raises NotRecordable if the request holds secrets."""
        from hostler.recordable import message_record

        return {
            "domain": self.rpc.domain,
            "path": self.rpc.path,
            "request": message_record(self.message(host)),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RpcChange:
        """The change that was recorded. Raises ConfigError if the record is of another version."""
        from hostler.recordable import message_from_record, rpc_from_record

        rpc = rpc_from_record(record["path"], record["domain"])
        return cls(rpc, message_from_record(rpc.request_type, record["request"]))


@dataclass(frozen=True, slots=True)
class PlanGroup:
    """Hosts with one and the same plan, in host order."""

    planned: Planned
    hosts: tuple[str, ...]

    def __str__(self) -> str:
        count = len(self.hosts)
        return f"{count} host{'s' if count != 1 else ''}: {shortened(self.hosts)}"


def group_plans(results: Sequence[HostResult[Planned]]) -> list[PlanGroup]:
    """Group hosts by identical plan: hash, steps and warnings."""
    groups: dict[Any, tuple[Planned, list[str]]] = {}
    for result in results:
        if result.result is None:
            continue
        planned = result.result
        key = (planned.hash, planned.steps, planned.warnings)
        groups.setdefault(key, (planned, []))[1].append(result.host)
    return [PlanGroup(planned, tuple(hosts)) for planned, hosts in groups.values()]


async def plan_all(
    hosts: Sequence[Host],
    change: Change,
    session: Callable[[Host], Session],
    *,
    window: int = DEFAULT_WINDOW,
) -> list[HostResult[Planned]]:
    """Ask every host for its plan. Changes nothing."""

    async def one(host: Host) -> Planned:
        async with session(host) as doors:
            return await change.plan(doors)

    return await fan_out(hosts, lambda host: host.name, one, window=window)


def _words(warning: Any) -> str:
    subject = f" ({warning.subject})" if warning.subject else ""
    context = "".join(f"; {entry}" for entry in warning.context)
    return f"{warning.code}: {warning.message}{subject}{context}"
