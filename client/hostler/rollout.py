"""Rollouts: a planned change goes out in waves, and stops where it must, saying where."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from hostler.fanout import Brake, Halt, fan_out
from hostler.fleet import Host
from hostler.health_gate import Gate
from hostler.limits import DEFAULT_WINDOW, Batches, Tolerance, shortened
from hostler.outcome import Outcome, of_answer, of_error
from hostler.plans import Change, Planned
from hostler.results import CallFailed, HostError, HostResult
from hostler.rollout_confirm import Confirming
from hostler.runs_model import RunsError
from hostler.session import Session, Terms

GATE, FAILURES, INTERRUPTED, RECORD = "gate", "failures", "interrupted", "record"
OpenSession = Callable[[Host, Terms], Session]


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a change goes out.

    `batches` are of the hosts that have anything to do, in their order, so that the canary is one
    of them; the others come with the last wave. `tolerance` is of all hosts. `pause_s` is waited
    between waves. The gate is asked after each wave. With `confirm_within_s` the hosts take the
    change back by themselves after that time, unless they can be reached again and are told not
    to: a wave is applied in at most half of that time, the gate ends before three quarters of it,
    and a wave that the gate refuses is taken back at once.
    """

    batches: Batches = field(default_factory=Batches)
    tolerance: Tolerance = field(default_factory=Tolerance)
    pause_s: float = 0.0
    gate: Gate | None = None
    confirm_within_s: float | None = None
    as_job: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; `from_dict` makes it again."""
        return {
            "batch": str(self.batches),
            "max_failures": str(self.tolerance),
            "pause_s": self.pause_s,
            "gate": list(self.gate.argv) if self.gate else None,
            "gate_timeout_s": self.gate.timeout_s if self.gate else None,
            "confirm_within_s": self.confirm_within_s,
            "background": self.as_job,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Rollout:
        """Make it again. Raises KeyError, TypeError, ValueError."""
        gate = values["gate"]
        return cls(
            Batches.parse(values["batch"]),
            Tolerance.parse(values["max_failures"]),
            float(values["pause_s"]),
            Gate(tuple(gate), float(values["gate_timeout_s"])) if gate else None,
            values["confirm_within_s"],
            bool(values["background"]),
        )

    def terms(self, run: str, host: str, attempt: int = 1) -> Terms:
        """The terms of a host; its pending group is the same whenever a run's attempt asks."""
        group = ""
        if self.confirm_within_s is not None:
            group = str(uuid.uuid5(uuid.UUID(run), f"{host}/{attempt}"))
        return Terms(run, self.confirm_within_s, group, self.as_job)


@dataclass(frozen=True, slots=True)
class Earlier:
    """What a host was asked for before, which it may have done, and on which terms.

    `planned` is None if the very same request cannot be made again.
    """

    planned: Planned | None
    terms: Terms


@dataclass(frozen=True, slots=True)
class Target:
    """A host, its plan or why it has none, and what it may have been asked for before."""

    host: Host
    plan: HostResult[Planned]
    terms: Terms = field(default_factory=Terms)
    earlier: Earlier | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Why and where a rollout stopped. `wave` is the last one that was begun, 0 if none was."""

    kind: str
    why: str
    wave: int
    waves: int

    def __str__(self) -> str:
        where = f"in wave {self.wave} of {self.waves}" if self.wave else "before the first wave"
        return f"stopped {where}: {self.why}"


@dataclass(frozen=True, slots=True)
class Rolled:
    """What came of a rollout: results in host order, the waves, and the stop if there was one.

    `not_recorded` says why a recorded run cannot be resumed from its record, if it cannot.
    """

    run: str
    results: list[HostResult[Any]]
    waves: tuple[tuple[str, ...], ...]
    stop: Stop | None = None
    recorded: bool = False
    not_recorded: str = ""

    def where(self) -> str:
        """In words: where it stopped, which hosts failed there, which were not started."""
        if self.stop is None:
            return ""
        spared = [r.host for r in self.results if r.outcome == Outcome.NOT_STARTED]
        failed = [r.host for r in self.results if not r.ok and r.host not in set(spared)]
        text = str(self.stop)
        if failed:
            text += f"; failed: {shortened(failed)}"
        return text + (f"; not started: {shortened(spared)}" if spared else "")


class Recorder(Protocol):
    """Writes down what a rollout does. What returns is on disk. Raises RunsError."""

    async def begin(self, waves: Sequence[Sequence[str]]) -> None:
        """Note the hosts of each wave, before any of them is asked."""
        ...

    async def sent(self, target: Target) -> None:
        """Note that a host is about to be asked for its plan to be done."""
        ...

    async def ended(self, result: HostResult[Any], answer: Any) -> None:
        """Note what came of it, and what the host said if it said anything."""
        ...

    async def end(self, stop: Stop | None, results: Sequence[HostResult[Any]]) -> None:
        """Note the end, and all that was not noted before."""
        ...


async def roll_out(
    run: str,
    targets: Sequence[Target],
    change: Change,
    session: OpenSession,
    options: Rollout,
    *,
    window: int = DEFAULT_WINDOW,
    recorder: Recorder | None = None,
    halt: Halt | None = None,
    say: Callable[[str], None] | None = None,
) -> Rolled:
    """Carry out plans wave by wave. Results are in the order of the targets.

    A host that could not plan counts as failed. Pulling the halt ends it after what is in flight.
    `say` is told about each wave. Raises RunsError if the record cannot be begun: then no host was
    asked.
    """
    return await _Rolling(run, targets, change, session, options, window, recorder, halt, say).run()


class _Rolling:
    def __init__(
        self,
        run: str,
        targets: Sequence[Target],
        change: Change,
        session: OpenSession,
        options: Rollout,
        window: int,
        recorder: Recorder | None,
        halt: Halt | None,
        say: Callable[[str], None] | None,
    ) -> None:
        self._run = run
        self._targets = {target.host.name: target for target in targets}
        self._change = change
        self._session = session
        self._options = options
        self._window = window
        self._recorder = recorder
        self._halt = halt or Halt()
        self._say = say or (lambda _: None)
        allowed = options.tolerance.allowed(len(targets))
        self._brake: Brake[Any] = Brake(allowed, halt=self._halt)
        self._done: dict[str, HostResult[Any]] = {}
        self._terms: dict[str, Terms] = {}

    async def run(self) -> Rolled:
        for target in self._targets.values():
            if target.plan.error is not None:
                self._done[target.host.name] = self._brake.note(_unasked(target, target.plan.error))
        waves = self._waves()
        if self._recorder is not None:
            await self._recorder.begin(waves)
        stop = await self._roll(waves)
        for name, target in self._targets.items():
            if name not in self._done:
                spared = self._brake.not_started(name)
                self._done[name] = _unasked(target, spared.error, Outcome.NOT_STARTED)
        results = [self._done[name] for name in self._targets]
        stop = await self._recorded(stop, results)
        return Rolled(self._run, results, tuple(map(tuple, waves)), stop)

    async def _recorded(self, stop: Stop | None, results: Sequence[HostResult[Any]]) -> Stop | None:
        if self._recorder is None:
            return stop
        try:
            await self._recorder.end(stop, results)
        except RunsError as error:
            return stop or Stop(RECORD, f"{error}", 0, 0)
        return stop

    def _waves(self) -> list[list[str]]:
        """The hosts of each wave. Those with nothing to do prove nothing, so they come last.

        What has to wait for all others comes after them still, in a wave of its own.
        """
        plans = {
            name: target.plan.result
            for name, target in self._targets.items()
            if target.plan.result is not None
        }
        wanted = [name for name, planned in plans.items() if planned.steps or self._asks(name)]
        idle = [name for name in plans if name not in set(wanted)]
        busy, last = ([n for n in wanted if plans[n].last is late] for late in (False, True))
        waves: list[list[str]] = []
        start = 0
        for size in self._options.batches.split(len(busy)):
            waves.append(busy[start : start + size])
            start += size
        if idle:
            waves = [*waves[:-1], [*(waves[-1] if waves else ()), *idle]]
        return [*waves, last] if last else waves

    def _asks(self, name: str) -> bool:
        return self._targets[name].earlier is not None

    async def _roll(self, waves: Sequence[Sequence[str]]) -> Stop | None:
        begun = 0
        for number, wave in enumerate(waves, 1):
            if number > 1 and self._options.pause_s and not self._brake.pulled:
                await self._halt.wait(self._options.pause_s)
            if self._brake.pulled:
                break
            begun = number
            if len(waves) > 1:
                count = f"{len(wave)} host{'s' if len(wave) != 1 else ''}"
                self._say(f"wave {number} of {len(waves)}, {count}: {shortened(wave)}")
            await self._wave(number, wave)
        return self._stop(begun, len(waves))

    def _stop(self, wave: int, waves: int) -> Stop | None:
        left = any(name not in self._done for name in self._targets)
        if self._brake.overrun and left:
            allowed = self._brake.allowed or 0
            why = f"{self._brake.failed} failed, {allowed or 'none'} may"
            return Stop(FAILURES, why, wave, waves)
        if self._halt.pulled and (left or self._halt.kind == GATE):
            return Stop(self._halt.kind, self._halt.why, wave, waves)
        return None

    async def _wave(self, number: int, wave: Sequence[str]) -> None:
        """Under confirm, hosts are confirmed in time only if all of them are asked at once."""
        size = len(wave) if self._options.confirm_within_s is None else self._window
        for start in range(0, len(wave), size):
            if self._brake.pulled:
                return
            await self._part(number, wave[start : start + size])

    async def _part(self, number: int, part: Sequence[str]) -> None:
        within_s = self._options.confirm_within_s
        confirming = None
        if within_s is not None:
            confirming = Confirming(within_s, asyncio.get_running_loop().time())
        await fan_out(part, str, self._one, window=self._window, brake=self._brake)
        healthy = await self._is_healthy(number, self._that_did(part), confirming)
        if confirming is not None:
            await self._confirm(part, confirming, healthy=healthy)

    def _that_did(self, part: Iterable[str]) -> list[str]:
        return [name for name in part if name in self._done and self._done[name].ok]

    async def _is_healthy(
        self, number: int, hosts: Sequence[str], confirming: Confirming | None
    ) -> bool:
        gate = self._options.gate
        if gate is None or not hosts:
            return True
        longest_s = None if confirming is None else confirming.gate_s()
        why = await gate.check(self._run, number, hosts, longest_s)
        if why:
            self._halt.pull(GATE, f"the health gate refused the wave: {why}")
        return not why

    async def _confirm(self, part: Sequence[str], confirming: Confirming, *, healthy: bool) -> None:
        """Confirm the hosts that wait for it; ask those that may have taken theirs back."""
        waiting = [
            name
            for name in part
            if name in self._done
            and self._done[name].outcome in (Outcome.PENDING_CONFIRM, Outcome.UNKNOWN)
        ]

        async def one(name: str) -> None:
            before, target = self._done[name], self._targets[name]
            after = await confirming.settle(
                before,
                target.plan.value(),
                self._terms[name],
                lambda: self._session(target.host, self._terms[name]),
                healthy=healthy,
            )
            self._brake.failed += before.ok - after.ok
            await self._note(after, None)

        await fan_out(waiting, str, one, window=self._window)

    async def _one(self, name: str) -> Any:
        try:
            answer = await self._carry_out(self._targets[name])
        except CallFailed as failed:
            outcome = of_error(failed.error)
            await self._note(HostResult(name, error=failed.error, outcome=outcome), failed.answer)
            raise
        await self._note(HostResult(name, answer, outcome=of_answer(answer)), answer)
        return answer

    async def _carry_out(self, target: Target) -> Any:
        earlier = target.earlier
        if earlier and earlier.planned and not await self._is_back(target, earlier):
            try:
                return await self._apply(target, earlier.planned, earlier.terms)
            except CallFailed as failed:
                if failed.error.uncertain:
                    raise
            # The host has said that what it was asked for before is not done.
        if self._recorder is not None:
            try:
                await self._recorder.sent(target)
            except RunsError as error:
                self._halt.pull(RECORD, str(error))
                message = f"not started: {error}"
                raise CallFailed(HostError("ABORTED", "NOT_STARTED", message)) from error
        return await self._apply(target, target.plan.value(), target.terms)

    async def _is_back(self, target: Target, earlier: Earlier) -> bool:
        """Whether the host says that it has taken back what it was asked for before."""
        from hostler import confirm

        if not earlier.terms.group:
            return False
        async with self._session(target.host, earlier.terms) as session:
            return await confirm.fate(session, earlier.terms.group) is Outcome.ROLLED_BACK

    async def _apply(self, target: Target, planned: Planned, terms: Terms) -> Any:
        self._terms[target.host.name] = terms
        async with self._session(target.host, terms) as session:
            if terms.confirm_within_s is not None:
                # A lost answer must not use up the time there is to confirm in.
                longest_s = terms.confirm_within_s / 2
                session.timeout_s = min(session.timeout_s, longest_s)
            return await self._change.apply(session, planned)

    async def _note(self, result: HostResult[Any], answer: Any) -> None:
        self._done[result.host] = result
        if self._recorder is None:
            return
        try:
            await self._recorder.ended(result, answer)
        except RunsError as error:
            self._halt.pull(RECORD, str(error))


def _unasked(
    target: Target, error: HostError | None, outcome: Outcome = Outcome.FAILED
) -> HostResult[Any]:
    """The result of a host that was not asked now; it may have done what it was asked before."""
    if target.earlier is not None:
        outcome = Outcome.UNKNOWN
        error = None if error is None else replace(error, uncertain=True)
    return HostResult(target.host.name, error=error, outcome=outcome)
