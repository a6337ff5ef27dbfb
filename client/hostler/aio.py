"""The SDK's core, for use inside an asyncio loop.

async with hostler.aio.connect() as client:
    for answer in await client.call(GET_HOST.at("netns"), GetHostRequest(), "role=web"):
        print(answer.host, answer.result if answer.ok else answer.error)
"""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from hostler.channel import Connector, Rpc, rpc
from hostler.config import Context, load_context
from hostler.confirm import Confirmed, confirm_host, pending_on, revert_host
from hostler.fanout import Brake, Halt, fan_out
from hostler.fleet import Fleet, Host, load_fleet
from hostler.jobs import find_job, watch_job
from hostler.limits import DEFAULT_WINDOW, Batches, Tolerance
from hostler.outcome import Outcome
from hostler.plans import Change, Planned, RpcChange, group_plans, plan_all
from hostler.results import CallFailed, HostError, HostResult
from hostler.rollout import Rolled, Rollout, Target, roll_out
from hostler.runs_model import Run, RunsError, now
from hostler.session import DEFAULT_TIMEOUT_S, NO_RETRY, Retry, Session, Terms

__all__ = [
    "NO_RETRY",
    "Batches",
    "CallFailed",
    "Change",
    "Client",
    "Halt",
    "Host",
    "HostError",
    "HostResult",
    "Outcome",
    "Planned",
    "Retry",
    "Rolled",
    "Rollout",
    "Rpc",
    "RpcChange",
    "Run",
    "RunsError",
    "Session",
    "Terms",
    "Tolerance",
    "connect",
    "group_plans",
    "rpc",
]

R = TypeVar("R")


class Client:
    """A fleet and the identity it is reached with. Keeps no connection: sessions do.

    Changes are recorded where the context says, unless `record` is False; see `hostler.runs`.
    """

    def __init__(
        self,
        context: Context | None,
        fleet: Fleet,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        window: int = DEFAULT_WINDOW,
        retry: Retry | None = None,
        record: bool = True,
    ) -> None:
        self.context = context
        self.fleet = fleet
        self.timeout_s = timeout_s
        self.window = window
        self.record = record
        self.retry = retry
        self._connector = Connector(context)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is kept open; here for symmetry with sessions."""

    def select(self, *selectors: str) -> tuple[Host, ...]:
        """Select hosts by names, globs, label=value, @group or "all". Raises SelectionError."""
        return self.fleet.select(selectors)

    def session(self, host: Host, terms: Terms | None = None) -> Session:
        """Open a session with one host, to be closed by the caller."""
        return Session(host, self._connector, self.timeout_s, self.retry, terms)

    async def each(
        self,
        hosts: Sequence[Host],
        work: Callable[[Session], Awaitable[R]],
        *,
        tolerance: Tolerance | None = None,
        heard: Callable[[HostResult[R]], None] | None = None,
    ) -> list[HostResult[R]]:
        """Do work with a session of each host, which is closed after it. Results in host order.

        `heard` is given each result as soon as it is there.
        """

        async def one(host: Host) -> R:
            async with self.session(host) as session:
                return await work(session)

        brake: Brake[R] = Brake(None if tolerance is None else tolerance.allowed(len(hosts)))

        def hear(_: Host, result: HostResult[R]) -> None:
            if heard is not None:
                heard(result)

        return await fan_out(
            hosts, lambda host: host.name, one, window=self.window, brake=brake, heard=hear
        )

    async def call(
        self, rpc: Rpc, request: Any, *selectors: str, hosts: Sequence[Host] | None = None
    ) -> list[HostResult[Any]]:
        """Call a method on hosts, by selectors or as given."""
        chosen = self.select(*selectors) if hosts is None else hosts
        return await self.each(chosen, lambda session: session.call(rpc, request))

    async def list_all(
        self, rpc: Rpc, request: Any, *selectors: str, hosts: Sequence[Host] | None = None
    ) -> list[HostResult[Any]]:
        """Call a List method on hosts, following all pages."""
        chosen = self.select(*selectors) if hosts is None else hosts
        return await self.each(chosen, lambda session: session.list_all(rpc, request))

    async def pending(self, hosts: Sequence[Host]) -> list[HostResult[Any]]:
        """What hosts take back unless it is confirmed: GetPendingResponse, at any door."""
        return await self.each(hosts, pending_on)

    async def confirm(
        self, hosts: Sequence[Host], group: str, deadline_s: float
    ) -> list[HostResult[Confirmed]]:
        """Confirm a group at every door of hosts that wait `deadline_s` from now for it."""
        return await self.each(hosts, lambda s: confirm_host(s, group, (), deadline_s))

    async def revert(self, hosts: Sequence[Host], group: str = "") -> list[HostResult[Any]]:
        """Take a pending group back at once, or whichever there is: EndedGroup, None if none."""
        return await self.each(hosts, lambda session: revert_host(session, group))

    async def watch_job(self, host: Host, name: str) -> AsyncIterator[Any]:
        """Follow a job of a host to its end: WatchJobResponse. Raises CallFailed."""
        async with self.session(host) as session:
            domain, _ = await find_job(session, name)
            async for answer in watch_job(session, domain, name):
                yield answer

    def new_run(self, argv: Sequence[str] = (), selectors: Sequence[str] = ()) -> Run:
        """A run that has not begun: its id, and whose it is. Nothing is written down yet."""
        from importlib.metadata import version

        from hostler.runs_holder import this_process

        return Run(
            id=str(uuid.uuid4()),
            started=now(),
            who=self.who() if self.record else "",
            context="" if self.context is None else self.context.name,
            argv=tuple(argv),
            selectors=tuple(selectors),
            version=version("hostler"),
            holder=this_process(),
        )

    def who(self) -> str:
        """The identity that hosts are asked with, and the user of this machine."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            # A container may run as a number that has no name.
            user = str(os.getuid())
        user = f"{user}@{socket.gethostname()}"
        if self.context is None:
            return user
        from hostler.core.certificates import CertificateUnreadable, read_certificate

        try:
            identity = read_certificate(self.context.certificate.read_bytes()).identity
        except (CertificateUnreadable, OSError):
            # The hosts will say what is wrong with it; the record is not the place.
            return user
        return f"{identity} ({user})"

    async def plan(
        self,
        change: Change,
        hosts: Sequence[Host],
        *,
        options: Rollout | None = None,
        run: Run | None = None,
    ) -> list[HostResult[Planned]]:
        """Ask every host what a change would do there. Changes nothing.

        Give the run and the options that it is to be carried out with, if it is.
        """
        options = options or Rollout()

        def session(host: Host) -> Session:
            return self.session(host, options.terms(run.id, host.name) if run else None)

        return await plan_all(hosts, change, session, window=self.window)

    async def roll_out(
        self,
        change: Change,
        hosts: Sequence[Host],
        plans: Sequence[HostResult[Planned]] | None = None,
        *,
        options: Rollout | None = None,
        run: Run | None = None,
        halt: Halt | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Rolled:
        """Carry out a change as planned, wave by wave; stops where `options` say, or is halted.

        Without `plans` they are asked for first and carried out as they are. Raises RunsError if
        the run cannot be recorded; then no host was asked to change anything.
        """
        options = options or Rollout()
        run = run or self.new_run()
        if plans is None:
            plans = await self.plan(change, hosts, options=options, run=run)
        targets = [
            Target(host, plan, options.terms(run.id, host.name))
            for host, plan in zip(hosts, plans, strict=True)
        ]
        return await self.carry_out(run, targets, change, options, halt=halt, say=say, fresh=True)

    async def carry_out(
        self,
        run: Run,
        targets: Sequence[Target],
        change: Change,
        options: Rollout,
        *,
        halt: Halt | None = None,
        say: Callable[[str], None] | None = None,
        fresh: bool,
    ) -> Rolled:
        """Carry out a run that begins (`fresh`), or one that was claimed to be resumed."""
        recorder = None
        if self.record:
            from hostler.runs_recorder import recorder_of

            recorder = await asyncio.to_thread(
                recorder_of, self.runs_url, run, change, targets, options, fresh
            )
        try:
            rolled = await roll_out(
                run.id, targets, change, self.session, options,
                window=self.window, recorder=recorder, halt=halt, say=say,
            )  # fmt: skip
        finally:
            if recorder is not None:
                await recorder.close()
        if recorder is None:
            return rolled
        return replace(rolled, recorded=True, not_recorded=recorder.run.not_recorded)

    @property
    def runs_url(self) -> str:
        """Where runs are recorded."""
        from hostler.runs import default_url

        return default_url("" if self.context is None else self.context.runs_url)

    async def apply(
        self,
        change: Change,
        hosts: Sequence[Host],
        plans: Sequence[HostResult[Planned]] | None = None,
        *,
        tolerance: Tolerance | None = None,
    ) -> list[HostResult[Any]]:
        """Carry out a change as planned: one host first, then the rest; stops at the first failure.

        Without `plans` they are asked for first and carried out as they are.
        """
        options = Rollout(tolerance=tolerance or Tolerance())
        return (await self.roll_out(change, hosts, plans, options=options)).results


def connect(
    context: str | None = None,
    *,
    config: Path | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    window: int = DEFAULT_WINDOW,
    retry: Retry | None = None,
    record: bool = True,
) -> Client:
    """Make a client from the configuration file. Raises ConfigError."""
    loaded = load_context(context, config)
    fleet = load_fleet(loaded.fleet)
    return Client(loaded, fleet, timeout_s=timeout_s, window=window, retry=retry, record=record)
