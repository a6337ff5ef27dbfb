"""Work that goes on on hosts without us: found, followed and cancelled.

Each daemon has the jobs of its own domain. Whoever has but a job's name asks every door for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from hostler.api.common.v1 import job_pb2
from hostler.channel import rpc
from hostler.doors import door_of
from hostler.outcome import settled
from hostler.plans import Planned, PlannedStep, RpcChange
from hostler.results import CallFailed, HostError
from hostler.resume import after_seq
from hostler.session import Session
from hostler.skew import word

LIST_JOBS = rpc(job_pb2, "JobService", "ListJobs")
GET_JOB = rpc(job_pb2, "JobService", "GetJob")
WATCH_JOB = rpc(job_pb2, "JobService", "WatchJob")
CANCEL_JOB = rpc(job_pb2, "JobService", "CancelJob")

ENDED = frozenset(
    {
        job_pb2.JOB_STATE_SUCCEEDED,
        job_pb2.JOB_STATE_FAILED,
        job_pb2.JOB_STATE_CANCELLED,
        job_pb2.JOB_STATE_INTERRUPTED,
    }
)


def full_name(name: str) -> str:
    """The name of a job, of which people may leave out the "jobs/"."""
    return name if name.startswith("jobs/") else f"jobs/{name}"


def state_word(job: Any) -> str:
    """The state of a job in one word, such as "running"."""
    return word(job_pb2.JobState, job.state)


def error_of(job: Any) -> HostError | None:
    """Why a job that has ended did not do what was asked for; None if it did, or goes on."""
    if job.state not in ENDED or job.state == job_pb2.JOB_STATE_SUCCEEDED:
        return None
    word = state_word(job)
    code = job.error.code or "ABORTED"
    reason = job.error.reason or word.upper()
    message = ": ".join(filter(None, (word, job.error.message, job.resume)))
    return HostError(code, reason, message, {"job": job.name})


async def find_job(session: Session, name: str) -> tuple[str, Any]:
    """Find a job at the host's doors; answers its domain and the job. Raises CallFailed."""
    request = job_pb2.GetJobRequest(name=full_name(name))
    domain, answer = await door_of(session, GET_JOB, request)
    return domain, answer.job


async def watch_job(session: Session, domain: str, name: str) -> AsyncIterator[Any]:
    """Follow a job to its end: yields WatchJobResponse, the last one with the job's last state.

    A stream that is cut is opened again, and goes on where it was; the job does not depend on it.
    Raises CallFailed if the host refuses, or is away for longer than `Retry` allows.
    """
    request = job_pb2.WatchJobRequest(name=full_name(name))
    ended = False
    async for answer in session.stream(WATCH_JOB.at(domain), request, resume=after_seq):
        ended = answer.job.state in ENDED
        yield answer
    if not ended:
        message = f"the host stopped telling of {name} before it had ended"
        raise CallFailed(HostError("UNKNOWN", "STREAM_ENDED", message))


class CancelJob:
    """Asks a job to stop. See `hostler.plans.Change`."""

    def __init__(self, name: str) -> None:
        self._name = full_name(name)

    async def plan(self, session: Session) -> Planned:
        """Find the job; its plan says what would stop, and what that leaves behind."""
        domain, job = await find_job(session, self._name)
        change = self._change(domain)
        planned = await change.plan(session)
        steps = planned.steps
        if not steps and job.state not in ENDED:
            steps = (PlannedStep("CancelJob", f"cancel {job.name}: {method_word(job.method)}"),)
        leaves = (f"LEAVES: {job.cancel_leaves}",) if job.cancel_leaves else ()
        return Planned(planned.hash, steps, (*planned.warnings, *leaves), (domain, planned))

    async def apply(self, session: Session, planned: Planned) -> Any:
        """Ask it to stop."""
        domain, asked = planned.response
        return settled(await self._change(domain).apply(session, asked))

    def _change(self, domain: str) -> RpcChange:
        return RpcChange(CANCEL_JOB.at(domain), job_pb2.CancelJobRequest(name=self._name))


def method_word(method: str) -> str:
    """A method as people read it: "netns CreateNamespace" of its path."""
    service, _, name = method.strip("/").rpartition("/")
    parts = service.split(".")
    return f"{parts[2]} {name}" if len(parts) > 3 else method
