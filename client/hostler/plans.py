"""Changes in two phases: every host's plan first, then exactly those plans, canary first."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hostler.channel import Rpc
from hostler.fanout import Brake, fan_out
from hostler.fleet import Host
from hostler.limits import DEFAULT_WINDOW, Tolerance
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
    the host's whole answer, or what the change needs to be carried out.
    """

    hash: str
    steps: tuple[PlannedStep, ...]
    warnings: tuple[str, ...] = ()
    response: Any = None
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @classmethod
    def of(cls, change: Any, response: Any = None) -> Planned:
        """Read the Change of a validate_only answer."""
        return cls(
            hash=change.plan.hash,
            steps=tuple(PlannedStep(s.kind, s.description) for s in change.plan.steps),
            warnings=tuple(_words(warning) for warning in change.warnings),
            response=response,
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


class RpcChange:
    """A change that is one call of a method whose request has a `change` field.

    `request` is the message for all hosts, or a function that makes each host's.
    """

    def __init__(self, rpc: Rpc, request: Any | Callable[[Host], Any]) -> None:
        self._rpc = rpc
        self._request = request

    async def plan(self, session: Session) -> Planned:
        """Ask the host what it would do."""
        request = self._message(session.host)
        request.change.validate_only = True
        response = await session.call(self._rpc, request)
        return Planned.of(response.change, response)

    async def apply(self, session: Session, planned: Planned) -> Any:
        """Do it, if the plan is still the same; ABORTED otherwise."""
        request = self._message(session.host)
        request.change.validate_only = False
        request.change.plan_hash = planned.hash
        request.change.request_id = planned.request_id
        return await session.call(self._rpc, request)

    def _message(self, host: Host) -> Any:
        request = self._rpc.request_type()
        request.CopyFrom(self._request(host) if callable(self._request) else self._request)
        return request


@dataclass(frozen=True, slots=True)
class PlanGroup:
    """Hosts with one and the same plan, in host order."""

    planned: Planned
    hosts: tuple[str, ...]


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


async def apply_all(
    hosts: Sequence[Host],
    plans: Sequence[HostResult[Planned]],
    change: Change,
    session: Callable[[Host], Session],
    *,
    window: int = DEFAULT_WINDOW,
    tolerance: Tolerance | None = None,
) -> list[HostResult[Any]]:
    """Carry out every host's plan: one host first, then the rest, stopping after failures.

    The first is the first with anything to do, since an empty plan proves nothing. A host that
    could not plan counts as failed.
    """
    brake: Brake[Any] = Brake((tolerance or Tolerance()).allowed(len(hosts)))
    done: dict[str, HostResult[Any]] = {}
    work: dict[str, tuple[Host, Planned]] = {}
    for host, planned in zip(hosts, plans, strict=True):
        if planned.result is None:
            done[host.name] = brake.note(planned)
        else:
            work[host.name] = (host, planned.result)

    async def one(name: str) -> Any:
        host, planned = work[name]
        async with session(host) as doors:
            return await change.apply(doors, planned)

    first = [name for name, (_, planned) in work.items() if planned.steps][:1]
    rest = [name for name in work if name not in first]
    for wave in (first, rest):
        results = await fan_out(wave, str, one, window=window, brake=brake)
        done |= {result.host: result for result in results}
    return [done[host.name] for host in hosts]


def _words(warning: Any) -> str:
    subject = f" ({warning.subject})" if warning.subject else ""
    context = "".join(f"; {entry}" for entry in warning.context)
    return f"{warning.code}: {warning.message}{subject}{context}"
