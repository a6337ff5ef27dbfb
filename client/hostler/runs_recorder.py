"""Writing a run down while it goes on: each host durably before it is asked, and after it.

A thread of its own writes what has gathered while it wrote before, in one transaction: a wave of
hundreds of hosts costs a few writes to disk rather than one for each of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from hostler.fleet import Host
from hostler.outcome import Outcome, anchors_of, jobs_of
from hostler.plans import Change
from hostler.recordable import NotRecordable, Recordable
from hostler.results import HostResult
from hostler.rollout import INTERRUPTED, Rollout, Stop, Target
from hostler.runs import LEASE_S, Runs, open_runs
from hostler.runs_model import HostState, Run, RunsError, RunState, now

if TYPE_CHECKING:
    from sqlalchemy import Connection

Work = Callable[["Connection"], None]
_RENEW_S = LEASE_S / 4
_MOST_AT_ONCE = 500
MASK = "…"
# A shorter one is masked only where it stands alone: it may be part of any other word.
_LONG_ENOUGH = 6


class Writer:
    """Carries out work on a store in order, several pieces in a transaction."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._waiting: queue.SimpleQueue[tuple[Work, asyncio.Future[None]] | None]
        self._waiting = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="hostler-runs", daemon=True)
        self._thread.start()

    async def do(self, work: Work) -> None:
        """Return when the work is on disk. Raises RunsError, and whatever the work itself raises.

        Then nothing of it is on disk.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put((work, future))
        await future

    async def close(self) -> None:
        """End after what is waiting."""
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        going_on = True
        while going_on:
            batch = [self._waiting.get()]
            with suppress(queue.Empty):
                while len(batch) < _MOST_AT_ONCE:
                    batch.append(self._waiting.get_nowait())
            going_on = None not in batch
            self._write([entry for entry in batch if entry is not None])

    def _write(self, batch: Sequence[tuple[Work, asyncio.Future[None]]]) -> None:
        if not batch:
            return
        error = self._tried([work for work, _ in batch])
        if error is not None and len(batch) > 1:
            # One piece that cannot be written must not take the others along.
            for entry in batch:
                self._write([entry])
            return
        for _, future in batch:
            # The loop may be gone with its client; then nobody waits any more.
            with suppress(RuntimeError):
                future.get_loop().call_soon_threadsafe(_settle, future, error)

    def _tried(self, works: Sequence[Work]) -> Exception | None:
        try:
            with self._runs.begin() as connection:
                for work in works:
                    work(connection)
        # Whatever it is, somebody waits for it, and others for this thread to go on.
        except Exception as error:  # noqa: BLE001
            return error
        return None


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


class RunRecorder:
    """Writes one run down. See `hostler.rollout.Recorder`.

    It loses the run to another client if its lease was not renewed in time, as after a suspend:
    then nothing more is written, so that no further host is asked.
    """

    def __init__(
        self, runs: Runs, run: Run, change: Change, targets: Sequence[Target], *, fresh: bool = True
    ) -> None:
        self._runs = runs
        self.run = run
        self._change = change
        self._targets = targets
        self._fresh = fresh
        self._writer: Writer | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._noted: set[str] = set()

    async def begin(self, waves: Sequence[Sequence[str]]) -> None:
        """Write the run and all its hosts, or those that are resumed, in one transaction."""
        self._writer = Writer(self._runs)
        wave_of = {name: number for number, wave in enumerate(waves, 1) for name in wave}
        await self._do(lambda connection: self._begin(connection, wave_of))
        self._renewing = asyncio.create_task(self._renew())

    async def sent(self, target: Target) -> None:
        """Write that a host is about to be asked."""
        planned = target.plan.value()
        values = {
            "state": str(HostState.SENT),
            "outcome": "",
            "error": None,
            "plan_hash": planned.hash,
            "request_id": planned.request_id,
            "group": target.terms.group,
            "started": now(),
            "ended": "",
        }
        await self._do(lambda connection: self._host(connection, target.host.name, values, 1))

    async def ended(self, result: HostResult[Any], answer: Any) -> None:
        """Write what came of it, and where the audit logs stand."""
        values = _ended(result) | {"job": ",".join(jobs_of(answer))}
        domain = getattr(getattr(self._change, "rpc", None), "domain", "")
        anchors = [] if answer is None else list(anchors_of(answer, domain))

        def work(connection: Connection) -> None:
            self._host(connection, result.host, values)
            self._anchors(connection, result.host, anchors)

        await self._do(work)
        self._noted.add(result.host)

    async def end(self, stop: Stop | None, results: Sequence[HostResult[Any]]) -> None:
        """Write the end, and give the run up."""
        from sqlalchemy import update

        from hostler.runs_schema import runs

        rest = [result for result in results if result.host not in self._noted]
        values = {
            "state": str(_state(stop, results)),
            "why": "" if stop is None else str(stop),
            "ended": now(),
            "holder": "",
            "lease": 0.0,
        }

        def work(connection: Connection) -> None:
            for result in rest:
                if result.outcome != Outcome.UNKNOWN:
                    self._host(connection, result.host, _ended(result))
            connection.execute(update(runs).where(runs.c.id == self.run.id).values(values))

        try:
            await self._do(work)
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop writing, with the run as it is. Does nothing the second time."""
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await writer.close()
            self._runs.close()

    async def _do(self, work: Work) -> None:
        if self._writer is None:
            raise RunsError("the record of this run is closed")
        await self._writer.do(work)

    async def _renew(self) -> None:
        """Say that the client is there. What cannot be written now may be, the next time."""
        while True:
            await asyncio.sleep(_RENEW_S)
            with suppress(RunsError):
                await self._do(self._hold)

    def _hold(self, connection: Connection) -> None:
        """Renew the lease. Raises RunsError if the run is another client's by now."""
        from sqlalchemy import update

        from hostler.runs_schema import runs

        ours = (runs.c.id == self.run.id) & (runs.c.holder == self.run.holder)
        held = connection.execute(update(runs).where(ours).values(lease=time.time() + LEASE_S))
        if held.rowcount != 1:
            raise RunsError(f"run {self.run.id} was taken over by another client")

    def _host(
        self, connection: Connection, host: str, values: Mapping[str, Any], attempts: int = 0
    ) -> None:
        from sqlalchemy import update

        from hostler.runs_schema import run_hosts

        self._hold(connection)
        is_host = (run_hosts.c.run == self.run.id) & (run_hosts.c.host == host)
        counted = {**values, "attempts": run_hosts.c.attempts + attempts}
        connection.execute(update(run_hosts).where(is_host).values(counted))

    def _anchors(
        self, connection: Connection, host: str, found: Sequence[tuple[str, int, str]]
    ) -> None:
        from sqlalchemy import delete, insert

        from hostler.runs_schema import anchors

        for domain, seq, head in found:
            key = {"run": self.run.id, "host": host, "domain": domain, "seq": seq}
            # A retry is answered as the first time, with the same place in the log.
            same = [anchors.c[name] == value for name, value in key.items()]
            connection.execute(delete(anchors).where(*same))
            connection.execute(insert(anchors).values(**key, head=head, time=now()))

    def _begin(self, connection: Connection, wave_of: Mapping[str, int]) -> None:
        from sqlalchemy import insert, update

        from hostler.runs_schema import records, run_hosts, runs

        waves = {target.host.name: wave_of.get(target.host.name, 0) for target in self._targets}
        if not self._fresh:
            is_run = runs.c.id == self.run.id
            connection.execute(
                update(runs).where(is_run).values(options=json.dumps(self.run.options))
            )
            for name, wave in waves.items():
                self._host(connection, name, {"wave": wave})
            self._plans(connection)
            return
        connection.execute(insert(runs).values(**_row(self.run)))
        self._plans(connection)
        recorded = _Recorded.of(self._change, self._targets)
        for digest, text in recorded.records.items():
            values = {"run": self.run.id, "digest": digest, "record": text}
            connection.execute(insert(records).values(**values))
        connection.execute(
            insert(run_hosts),
            [
                {
                    "run": self.run.id,
                    "host": target.host.name,
                    "place": place,
                    "wave": waves[target.host.name],
                    "state": str(HostState.PLANNED),
                    "plan_hash": target.plan.result.hash if target.plan.result else "",
                    "record": recorded.of_host.get(target.host.name, ""),
                }
                for place, target in enumerate(self._targets, 1)
            ],
        )

    def _plans(self, connection: Connection) -> None:
        from sqlalchemy import insert, select

        from hostler.runs_schema import plans

        known = select(plans.c.hash).where(plans.c.run == self.run.id)
        there = set(connection.execute(known).scalars())
        found = [target.plan.result for target in self._targets]
        for planned in found:
            if planned is None or planned.hash in there:
                continue
            there.add(planned.hash)
            steps = [[step.kind, step.description] for step in planned.steps]
            connection.execute(
                insert(plans).values(
                    run=self.run.id,
                    hash=planned.hash,
                    steps=json.dumps(steps),
                    warnings=json.dumps(planned.warnings),
                )
            )


def recorder_of(
    url: str,
    run: Run,
    change: Change,
    targets: Sequence[Target],
    options: Rollout,
    fresh: bool,
) -> RunRecorder:
    """Open the store and make the recorder of a run. Blocking. Raises RunsError."""
    runs = open_runs(url)
    run = replace(run, options=options.as_dict(), lease=time.time() + LEASE_S)
    if fresh:
        run = describe(run, change, [target.host for target in targets])
        runs.prune_if_many()
    return RunRecorder(runs, run, change, targets, fresh=fresh)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What rebuilds a change: texts by digest, and the digest of each host."""

    records: Mapping[str, str]
    of_host: Mapping[str, str]

    @classmethod
    def of(cls, change: Change, targets: Sequence[Target]) -> _Recorded:
        records: dict[str, str] = {}
        of_host: dict[str, str] = {}
        if isinstance(change, Recordable):
            for target in targets:
                with suppress(NotRecordable):
                    text = json.dumps(change.to_record(target.host), sort_keys=True)
                    digest = hashlib.sha256(text.encode()).hexdigest()
                    records[digest] = text
                    of_host[target.host.name] = digest
        return cls(records, of_host)


def describe(run: Run, change: Change, hosts: Sequence[Host]) -> Run:
    """A run with what its change says of itself, and without the secrets of its command line."""
    kind = getattr(change, "kind", "")
    rpc = getattr(change, "rpc", None)
    methods = (rpc.path,) if rpc is not None else ()
    why = ""
    secrets: set[str] = set()
    if not isinstance(change, Recordable):
        why = "its change cannot be written down"
    else:
        for host in hosts:
            try:
                change.to_record(host)
            except NotRecordable as error:
                why = str(error)
                secrets.update(error.secrets)
    argv = tuple(_masked(word, secrets) for word in run.argv)
    return replace(run, kind=kind, methods=methods, not_recorded=why, argv=argv)


def _masked(word: str, secrets: Collection[str]) -> str:
    """A word of a command line, without a secret that it is, ends in, or that is long enough."""
    for secret in sorted(secrets, key=len, reverse=True):
        if word == secret:
            return MASK
        if secret and word.endswith(f"={secret}"):
            word = word.removesuffix(secret) + MASK
        elif len(secret) >= _LONG_ENOUGH:
            word = word.replace(secret, MASK)
    return word


def _row(run: Run) -> dict[str, Any]:
    values = {each.name: getattr(run, each.name) for each in fields(run)}
    for name in ("argv", "methods", "selectors", "options"):
        values[name] = json.dumps(values[name])
    return values | {"state": str(run.state)}


def _ended(result: HostResult[Any]) -> dict[str, Any]:
    error = None if result.error is None else json.dumps(result.error.as_dict())
    return {
        "state": str(HostState.ENDED),
        "outcome": str(result.outcome),
        "error": error,
        "ended": now(),
    }


def _state(stop: Stop | None, results: Sequence[HostResult[Any]]) -> RunState:
    if stop is not None:
        return RunState.INTERRUPTED if stop.kind == INTERRUPTED else RunState.STOPPED
    return RunState.DONE if all(result.ok for result in results) else RunState.INCOMPLETE
