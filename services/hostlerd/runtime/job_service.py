"""Serves hostler.api.common.v1.JobService."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from hostler.api.common.v1 import change_pb2, job_pb2, job_pb2_grpc
from hostlerd.runtime.access import Method
from hostlerd.runtime.authz import Authorizer, PermissionDenied
from hostlerd.runtime.call import Call, Caller, current
from hostlerd.runtime.changes import Blocking
from hostlerd.runtime.errors import InvalidRequest, PlanChanged, Violation
from hostlerd.runtime.job import NEW_COUNT, Job, State
from hostlerd.runtime.job_progress import TICK_S
from hostlerd.runtime.jobs import JobStore
from hostlerd.runtime.steps import fingerprint

_PAGE_MOST = 1000
# So long a dead job is waited for, to learn what became of it; its unit starts again in a second.
_FATE_S = 30.0
# A job that does not move is told of again so often, so that its watcher knows that it is watched.
_QUIET_S = 20.0


class JobService(job_pb2_grpc.JobServiceServicer):  # type: ignore[misc]
    """Shows jobs and stops them. The jobs themselves are done by another process."""

    def __init__(
        self,
        store: JobStore,
        authorizer: Authorizer,
        methods: Mapping[str, Method],
        blocking: Blocking,
    ) -> None:
        self._store = store
        self._authorizer = authorizer
        self._methods = methods
        self._blocking = blocking

    async def ListJobs(self, request: job_pb2.ListJobsRequest, context: Any) -> Any:
        """List jobs, newest first, without what they changed; a token is the last one's name."""
        if request.page_size < 0:
            raise InvalidRequest.of([Violation("page_size", "must not be negative")])
        size = min(request.page_size or 100, _PAGE_MOST)
        jobs: list[Job] = await self._blocking(self._store.all)
        if request.active_only:
            jobs = [job for job in jobs if job.ended is None]
        if request.page_token:
            names = [job.record.name for job in jobs]
            if request.page_token not in names:
                raise InvalidRequest.of([Violation("page_token", "not one of this service's")])
            jobs = jobs[names.index(request.page_token) + 1 :]
        more = len(jobs) > size
        return job_pb2.ListJobsResponse(
            jobs=[to_proto(job) for job in jobs[:size]],
            next_page_token=jobs[size - 1].record.name if more else "",
        )

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Any) -> Any:
        """Get a job."""
        job, change = await self._blocking(self._find, request.name)
        return job_pb2.GetJobResponse(job=to_proto(job, change))

    async def WatchJob(
        self, request: job_pb2.WatchJobRequest, context: Any
    ) -> AsyncIterator[job_pb2.WatchJobResponse]:
        """Stream a job's states until one is final."""
        told, told_at, dead_since = request.after_seq, 0.0, 0.0
        while True:
            job, change = await self._blocking(self._find, request.name)
            now = time.monotonic()
            final = job.ended is not None
            if job.progress.seq > told or final or now - told_at > _QUIET_S:
                yield job_pb2.WatchJobResponse(
                    seq=job.progress.seq,
                    job=to_proto(job, change),
                    dropped=_dropped(told, job.progress.seq),
                )
                told, told_at = max(told, job.progress.seq), now
            if final:
                return
            dead_since = (dead_since or now) if job.state is State.INTERRUPTED else 0.0
            if dead_since and now - dead_since > _FATE_S:
                return
            await asyncio.sleep(TICK_S)

    async def CancelJob(self, request: job_pb2.CancelJobRequest, context: Any) -> Any:
        """Ask a job to stop."""
        options = request.change
        if options.HasField("confirm") or options.job:
            raise InvalidRequest.of([Violation("change", "cancelling takes no confirm and no job")])
        job, _ = await self._blocking(self._find, request.name)
        self._authorize(job, current().caller)
        news = await self._blocking(self._cancel, job, options)
        outcome = (
            change_pb2.OUTCOME_PLANNED if options.validate_only else change_pb2.OUTCOME_APPLIED
        )
        job, change = await self._blocking(self._find, request.name)
        return job_pb2.CancelJobResponse(
            job=to_proto(job, change),
            change=change_pb2.Change(outcome=outcome, changed=news, plan=_plan(job, news=news)),
        )

    def _authorize(self, job: Job, caller: Caller) -> None:
        """Whoever stops a job needs the leave to call what it does, on what it does it to."""
        method = self._methods.get(job.record.method)
        if method is None:
            raise PermissionDenied("what this job calls is not served here any more")
        self._authorizer.authorize(Call(method, caller, resources=job.record.resources))

    def _cancel(self, job: Job, options: change_pb2.ChangeOptions) -> bool:
        news = job.ended is None and not self._store.is_cancelled(job.record.id)
        plan = _plan(job, news=news)
        if options.plan_hash and options.plan_hash != plan.hash:
            raise PlanChanged("the job has ended or was cancelled since", plan_hash=plan.hash)
        if options.validate_only or not news:
            return news
        try:
            return self._store.ask_cancel(job.record.id, current().caller.identity)
        except FileNotFoundError:
            # It has ended meanwhile.
            return False

    def _find(self, name: str) -> tuple[Job, bytes]:
        job = self._store.find(name.removeprefix("jobs/"))
        return job, self._store.change(job.record.id) if job.ended else b""


def to_proto(job: Job, change: bytes = b"") -> job_pb2.Job:
    """Answer a job as the API shows it; `change` is what became of it, as protobuf."""
    record, progress, end = job.record, job.progress, job.ended
    shown = job_pb2.Job(
        name=record.name,
        method=record.method,
        identity=record.identity,
        resources=record.resources,
        state=f"JOB_STATE_{job.state.name}",
        progress=job_pb2.JobProgress(
            done=progress.done,
            total=progress.total,
            unit=progress.unit,
            rate_per_second=progress.rate,
            activity=progress.activity,
        ),
        cancel_leaves=progress.leaves,
    )
    shown.create_time.FromDatetime(datetime.fromtimestamp(record.created, UTC))
    if end is None:
        if progress.remaining_s is not None:
            shown.progress.remaining.FromMilliseconds(int(progress.remaining_s * 1000))
        if job.state is State.INTERRUPTED:
            shown.resume = "its process died; what it had begun is about to be taken back"
        return shown
    shown.end_time.FromDatetime(datetime.fromtimestamp(end.ended, UTC))
    shown.resume = end.resume
    if end.code:
        shown.error.code, shown.error.reason = end.code, end.reason
        shown.error.message = end.message
    if change:
        shown.change.ParseFromString(change)
    return shown


def _dropped(told: int, seq: int) -> int:
    """Answer how many states lie between; across a boot nobody can tell."""
    if not told or told // NEW_COUNT != seq // NEW_COUNT:
        return 0
    return max(0, seq - told - 1)


def _plan(job: Job, *, news: bool) -> change_pb2.Plan:
    if not news:
        return change_pb2.Plan(hash=fingerprint([]))
    words = f"cancel {job.record.name}"
    return change_pb2.Plan(
        hash=fingerprint([["CancelJob", job.record.name]]),
        steps=[change_pb2.PlanStep(kind="CancelJob", description=words)],
    )
