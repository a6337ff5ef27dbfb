"""A domain and the runtime it stands on: what each gives the other."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime import config
from hostlerd.runtime.answers import Answers
from hostlerd.runtime.changes import Backing, Changes
from hostlerd.runtime.edge import Edge, Recoverable
from hostlerd.runtime.guard import Guard
from hostlerd.runtime.host import Neighbourhood, Probe
from hostlerd.runtime.jobs import recovered
from hostlerd.runtime.journal import Journals
from hostlerd.runtime.locks import ChangeInProgress, ChangeLock
from hostlerd.runtime.pending import Pending
from hostlerd.runtime.recovery import Log, Recovered, Recovery
from hostlerd.runtime.taking_back import TakingBack

DOMAIN, BUNDLE = "domain", "bundle"
"""The edges that journals name: what the domain owns, and the policies in force."""


@dataclass(frozen=True, slots=True)
class Service:
    """A gRPC service: its descriptor, the generated function that adds it, its servicer."""

    descriptor: ServiceDescriptor
    add: Callable[[Any, Any], None]
    servicer: Any


def _never() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Domain:
    """What a domain brings: services, probes of the host, and what a boot has to bring back.

    `neighbours` looks, each time anew, for what else on the host manages what the domain manages.
    `tidy` runs when a daemon starts, while no change is carried out and none is left half done.
    `due` answers in how many seconds `upkeep` has something to do, None for never; `upkeep` does
    it, under the domain's lock, and answers what it did in words.
    """

    services: Sequence[Service]
    probes: Sequence[Probe] = ()
    neighbours: Neighbourhood = tuple
    restore: Callable[[], None] | None = None
    tidy: Callable[[], None] | None = None
    due: Callable[[], float | None] = _never
    upkeep: Callable[[], Sequence[str]] = tuple


class Runtime:
    """What the runtime gives a domain, and what all processes of the domain have in common.

    Daemon, job, revert and restore each have one. `lock` keeps their changes apart; `journals`,
    `recovery` and `answers` are on disk, where the next process finds them.
    """

    def __init__(self, domain: str, paths: config.Paths, configuration: config.Configuration):
        self.domain = domain
        self.paths = paths
        self.configuration = configuration
        self._pool = ThreadPoolExecutor(
            configuration.bounds.worker_threads, thread_name_prefix=domain
        )
        state, run = paths.state, paths.run
        self.lock = ChangeLock(state / "lock")
        self.journals = Journals(state / "journal", run / "journal")
        self.answers = Answers(state, run)
        self.recovery = Recovery(self.lock, self.journals, self.answers)
        self.recovery.tell(self._tell_job)
        self.recovery.tell(self._tell_group)
        self.guard = Guard(state)
        self.pending = Pending(domain, self.journals)
        self.taking_back = TakingBack(self.pending, self.journals, self.recovery)
        self.backing = Backing(
            self.lock, self.journals, self.recovery, self.guard, pending=self.pending
        )

    def _tell_job(self, done: Recovered) -> None:
        if done.header.job:
            outcome = change_pb2.Outcome.Name(done.outcome)
            recovered(self.paths.state, done.header.job, outcome, done.words)

    def _tell_group(self, done: Recovered) -> None:
        if done.header.group and done.finished:
            self.pending.applied(done.header.change_id)
        elif done.header.group and done.outcome != change_pb2.OUTCOME_UNKNOWN:
            self.pending.withdraw(done.header.change_id)

    @property
    def config(self) -> Mapping[str, Any]:
        """The domain's own table of hostler.toml."""
        return self.configuration.domain

    @property
    def state_dir(self) -> Path:
        """What must survive a boot."""
        return self.paths.state

    @property
    def run_dir(self) -> Path:
        """What must survive the daemon, but not a boot."""
        return self.paths.run

    def blocking(self, work: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
        """Run blocking work in the bounded pool, in the caller's context."""
        context = contextvars.copy_context()
        return asyncio.get_running_loop().run_in_executor(
            self._pool, partial(context.run, work, *args)
        )

    def changes(self, kernel: Recoverable, edge: str = DOMAIN) -> Changes:
        """Answer the one place that carries out the changes of a kernel.

        What is cut off there is recovered by every process that has made this edge.
        """
        made = Edge.of(kernel)
        self.recovery.add(edge, made)
        return Changes(kernel, self.blocking, self.backing, (edge, made))

    def recover(self, audit: Log, then: Callable[[], None] | None = None) -> tuple[Recovered, ...]:
        """Undo or finish what a kill has cut off, write that down, and do `then`, under the lock.

        To be called before anything is served or changed, with all edges made. Blocks.
        """
        self.recovery.record_in(audit)

        def settle() -> None:
            self.taking_back.after_boot(audit)
            self.pending.reconcile()
            if then is not None:
                then()

        return self.recovery.at_start(settle)

    def reconcile(self) -> None:
        """Recover what a kill has cut off, unless a change goes on; note what became of it."""
        try:
            with self.lock.held_here(wait_s=0):
                self.recovery.look()
                self.pending.reconcile()
        except ChangeInProgress:
            return


Build = Callable[[Runtime], Domain]
