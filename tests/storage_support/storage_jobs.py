"""Jobs of the storage daemon: taken on by it, done by a process of their own, as its unit would."""

from __future__ import annotations

import subprocess
from typing import Any

from storage_daemon import World
from storage_programs import job_process

from hostler.api.common.v1 import change_pb2, job_pb2, job_pb2_grpc


def begin(
    host: World, noun: str, method: str, **fields: Any
) -> tuple[str, subprocess.Popen[bytes]]:
    """Make a change as a job, with its token if it destroys; answer its name and its process."""
    planned = host.call(noun, method, change={"validate_only": True}, **fields).change
    options = {
        "job": True,
        "plan_hash": planned.plan.hash,
        "destroy_token": planned.destroy_token,
    }
    change = host.call(noun, method, change=options, **fields).change
    assert change.outcome == change_pb2.OUTCOME_STARTED, change
    return change.job, job_process(host)


def told(host: World, name: str, process: subprocess.Popen[bytes]) -> list[job_pb2.Job]:
    """Watch a job to its end; answer all that was told of it."""
    with host.daemon.channel("vera") as channel:
        request = job_pb2.WatchJobRequest(name=name)
        stream = job_pb2_grpc.JobServiceStub(channel).WatchJob(request, timeout=90)
        found = [answer.job for answer in stream]
    assert process.wait(60) == 0
    return found


def get(host: World, name: str) -> job_pb2.Job:
    """A job as it is now."""
    with host.daemon.channel("vera") as channel:
        stub = job_pb2_grpc.JobServiceStub(channel)
        return stub.GetJob(job_pb2.GetJobRequest(name=name), timeout=30).job


def done(host: World, noun: str, method: str, **fields: Any) -> list[job_pb2.Job]:
    """Make a change as a job and watch it to its end, which must be a good one."""
    found = told(host, *begin(host, noun, method, **fields))
    assert found[-1].state == job_pb2.JOB_STATE_SUCCEEDED, found[-1]
    return found


def cancel(host: World, name: str) -> None:
    """Cancel a job."""
    with host.daemon.channel("alice") as channel:
        request = job_pb2.CancelJobRequest(name=name)
        job_pb2_grpc.JobServiceStub(channel).CancelJob(request, timeout=60)
