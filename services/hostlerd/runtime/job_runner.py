"""Does the job that is waiting longest, in a process of its own: the process `job`.

One job for one process: its unit is started again as long as the queue is not empty, and then runs
the code that is installed by then. The next one in line is not begun before the one that was cut
off has been looked at.
"""

from __future__ import annotations

import asyncio
import contextvars
import signal
import time
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime import access, call
from hostlerd.runtime.audit import AuditLog, records
from hostlerd.runtime.authz import Authorizer
from hostlerd.runtime.bundle import BundleStore
from hostlerd.runtime.call import PROGRESS, Call, Caller
from hostlerd.runtime.domain import Domain, Runtime
from hostlerd.runtime.errors import Code, DomainError, RollbackFailed, StepFailed, Unsettled
from hostlerd.runtime.guard import ADMITTED, Admitted
from hostlerd.runtime.job import NEW_COUNT, End, Job, Progress, Record, State
from hostlerd.runtime.job_accept import Known, Nobody, known_methods
from hostlerd.runtime.job_progress import TICK_S, JobCancelled, JobProgress, JobStopped
from hostlerd.runtime.jobs import JobStore
from hostlerd.runtime.log import get_log
from hostlerd.runtime.record import Recorder
from hostlerd.runtime.unknown import refuse_unknown

log = get_log("runtime.job")

_APPLIED, _UNKNOWN = "OUTCOME_APPLIED", "OUTCOME_UNKNOWN"
# It had not begun, or a boot came between and took what it had done.
_NOTHING_LEFT = "nothing of it is left"
_AGAIN = "make the same call again, with a new request_id"
_LOOK_FIRST = "look at what is there, then make the same call again, with a new request_id"


class JobInterrupted(DomainError):
    """The process died in the middle; the message says whether anything goes on without it."""

    code, reason = Code.ABORTED, "INTERRUPTED"


class JobLost(DomainError):
    """The job's process died in the middle; what it had begun could not be put right."""

    code, reason = Code.DATA_LOSS, "CHANGE_INTERRUPTED"


class MethodGone(DomainError):
    """What the job calls is not served by this version."""

    code, reason = Code.UNIMPLEMENTED, "METHOD_GONE"


def run_jobs(runtime: Runtime, domain: Domain) -> int:
    """Do the job that is waiting longest, if there is one. Answers the exit status."""
    return asyncio.run(_run(runtime, domain))


async def _run(runtime: Runtime, domain: Domain) -> int:
    runner = Runner(runtime, domain)
    try:
        await runner.run()
    finally:
        runner.close()
    return 0


class Runner:
    """One run of the process."""

    def __init__(self, runtime: Runtime, domain: Domain) -> None:
        self._runtime = runtime
        self._store = JobStore(runtime.state_dir, runtime.run_dir)
        self._known = known_methods(domain.services)
        self._methods = access.table([s.descriptor for s in domain.services])
        self._audit = AuditLog.of(runtime.paths, runtime.configuration)
        self._recorder = Recorder(self._audit)
        self._authorizer = Authorizer(runtime.domain, self._methods.values())
        paths = runtime.paths
        BundleStore(
            paths.configuration / "bundle.json",
            paths.state / "bundle.json",
            paths.pki / "ca.pem",
            self._authorizer,
        ).refresh()
        runtime.guard.judge_by(self._authorizer)

    async def run(self) -> None:
        """Do one job, or find out what became of it if a process before this one died over it."""
        self._runtime.recover(self._audit)
        self._store.sweep()
        waiting = self._store.queued()
        if not waiting:
            return
        try:
            with self._store.held(waiting[0]) as begun:
                await self._take(self._store.find(waiting[0]), begun=begun)
        except FileNotFoundError:
            log.info("job ended meanwhile", job=waiting[0])

    def close(self) -> None:
        """Write what is waiting."""
        self._audit.close()

    async def _take(self, job: Job, *, begun: bool) -> None:
        if job.ended is not None:
            self._store.put_away(job.record.id)
        elif begun:
            await self._bury(job)
        elif self._store.is_cancelled(job.record.id):
            cancelled = JobCancelled("the job was cancelled before it was begun")
            await self._failed(self._call(job.record), job.record, Progress(), cancelled)
        else:
            await self._do(job.record)

    async def _do(self, record: Record) -> None:
        log.info("job begins", job=record.name, method=record.method)
        self._store.begin(record.id)
        progress = JobProgress(self._store, record.id)
        progress.tick()
        the_call = self._call(record)
        loop = asyncio.get_running_loop()
        stopped = JobStopped("the job's process was told to end")
        loop.add_signal_handler(signal.SIGTERM, progress.stop, stopped)
        ticking = asyncio.create_task(_tick(progress))
        try:
            response = await self._invoke(record, the_call, progress)
        except (DomainError, OSError) as e:
            await self._failed(the_call, record, progress.now, _as_domain_error(e))
            return
        finally:
            ticking.cancel()
            await asyncio.wait({ticking})
        await self._succeeded(the_call, record, progress.now, response.change)

    def _invoke(self, record: Record, the_call: Call, progress: JobProgress) -> Awaitable[Any]:
        """Call the method as the gate would have, in the name of the caller that it had."""
        known: Known | None = self._known.get(record.method)
        if known is None:
            raise MethodGone(f"{record.method} is not served by this version")
        # The leave of the moment it was taken on may have been taken away since.
        self._authorizer.check_identity(the_call)
        self._authorizer.authorize(the_call)
        request = known.request()
        request.ParseFromString(self._store.request(record.id))
        # The version that took it on may have been a newer one.
        refuse_unknown(request, changes=True)
        context = contextvars.copy_context()
        context.run(call.enter, the_call)
        context.run(PROGRESS.set, progress)
        if record.plan_hash:
            context.run(ADMITTED.set, Admitted(record.plan_hash, record.bindings_hash))
        return asyncio.create_task(known.behaviour(request, Nobody()), context=context)

    def _call(self, record: Record) -> Call:
        method = self._methods.get(record.method)
        if method is None:
            method = access.Method(record.method, "CHANGE")
        caller = Caller(record.identity, record.peer, record.local, record.certificate_serial)
        made = Call(method, caller, record.resources, outside=record.outside, run=record.run)
        made.job, made.intent_seq = record.name, record.intent_seq
        made.request_id = record.request_id
        return made

    async def _bury(self, job: Job) -> None:
        """Say what became of a job whose process died."""
        record = job.record
        with self._runtime.lock.held_here():
            self._runtime.recovery.look()
        fate, applied = self._store.recovered(record.id), self._store.applied(record.id)
        outcome, words = fate or (_APPLIED if applied is not None else "", _NOTHING_LEFT)
        seen = self._store.progress(record.id) or Progress(seq=NEW_COUNT)
        # One more was made up by whoever looked at it while it was dead.
        seen = replace(seen, seq=seen.seq + 1)
        the_call = self._call(record)
        the_call.ended = self._is_recorded(record)
        log.warning("job was cut off", job=record.name, outcome=outcome, words=words)
        if outcome == _APPLIED and (following := self._store.following(record.id)):
            await self._failed(the_call, record, seen, JobInterrupted(following))
        elif outcome == _APPLIED:
            change = change_pb2.Change(outcome=change_pb2.OUTCOME_APPLIED, changed=True)
            if applied is not None:
                change.ParseFromString(applied)
            await self._succeeded(the_call, record, seen, change)
        elif outcome == _UNKNOWN:
            await self._failed(the_call, record, seen, JobLost(words))
        elif self._store.is_cancelled(record.id):
            await self._failed(the_call, record, seen, JobCancelled(words))
        else:
            await self._failed(the_call, record, seen, JobInterrupted(words))

    async def _succeeded(
        self, the_call: Call, record: Record, seen: Progress, change: change_pb2.Change
    ) -> None:
        if not the_call.ended:
            anchor = await self._recorder.changed(the_call, change)
            change.audit.seq, change.audit.head = anchor.seq, anchor.head
        done = seen.total
        end = End(State.SUCCEEDED, seen.seq + 1, time.time(), done, done, unit=seen.unit)
        self._end(the_call, record, end, change)

    async def _failed(
        self, the_call: Call, record: Record, seen: Progress, error: DomainError
    ) -> None:
        if not the_call.ended:
            await self._recorder.failed(the_call, error)
        state, outcome, resume = _FATES.get(error.reason, _FAILED)
        if isinstance(error, Unsettled):
            state, resume = State.INTERRUPTED, _LOOK_FIRST
            known = error.metadata.get("outcome", "")
            outcome = _UNSETTLED.get(known, change_pb2.OUTCOME_UNKNOWN)
        change = change_pb2.Change(outcome=outcome)
        end = End(
            *(state, seen.seq + 1, time.time(), seen.done, seen.total, seen.leaves),
            *(error.code.name, error.reason, error.message[:2000], resume, seen.unit),
        )
        self._end(the_call, record, end, change)

    def _end(self, the_call: Call, record: Record, end: End, change: change_pb2.Change) -> None:
        self._store.end(record.id, end, change.SerializeToString())
        # Only now: whoever recovers the change before this tells the job what became of it.
        self._runtime.journals.answered(the_call.change_id)
        log.info("job ended", job=record.name, state=end.state.name, reason=end.reason)

    def _is_recorded(self, record: Record) -> bool:
        """Tell whether a process that died has recorded the outcome, but not the job's end."""
        ends = (r for r in records(self._audit.path) if r["seq"] > record.intent_seq)
        return any(
            r.get("kind") == "outcome"
            and r.get("job") == record.name
            and r.get("outcome") != "OUTCOME_STARTED"
            for r in ends
        )


_FAILED = (State.FAILED, change_pb2.OUTCOME_UNSPECIFIED, "")
#: What recovery can make of a change of which nobody knew.
_UNSETTLED = {
    _APPLIED: change_pb2.OUTCOME_APPLIED,
    "OUTCOME_INTERRUPTED": change_pb2.OUTCOME_INTERRUPTED,
}
_FATES = {
    JobCancelled.reason: (State.CANCELLED, change_pb2.OUTCOME_ROLLED_BACK, _AGAIN),
    JobStopped.reason: (State.INTERRUPTED, change_pb2.OUTCOME_INTERRUPTED, _AGAIN),
    JobInterrupted.reason: (State.INTERRUPTED, change_pb2.OUTCOME_INTERRUPTED, _AGAIN),
    JobLost.reason: (State.INTERRUPTED, change_pb2.OUTCOME_UNKNOWN, _LOOK_FIRST),
    RollbackFailed.reason: (State.FAILED, change_pb2.OUTCOME_UNKNOWN, ""),
}


async def _tick(progress: JobProgress) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        try:
            progress.tick()
        except OSError as e:
            # Nobody sees how far it is; the job itself goes on.
            log.warning("progress not shown", error=e.strerror)


def _as_domain_error(error: DomainError | OSError) -> DomainError:
    if isinstance(error, DomainError):
        return error
    return StepFailed(error.strerror or str(error), errno=error.errno, path=error.filename or "")
