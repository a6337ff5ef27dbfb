"""Models of the tracing domain as messages."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from hostler.api.common.v1 import change_pb2
from hostler.api.tracing.v1 import diagnosis_pb2 as pb
from hostlerd.tracing.model.evidence import Filesystem, Process
from hostlerd.tracing.model.finding import Finding, Holder, Pressure, Unseen


def duration(seconds: float) -> Duration:
    """A time in seconds."""
    made = Duration()
    made.FromNanoseconds(round(seconds * 1e9))
    return made


def process(of: Process) -> pb.ProcessName:
    """What a process is called."""
    return pb.ProcessName(pid=of.pid, comm=of.comm, exe=of.exe, unit=of.unit)


def warning(of: Unseen) -> change_pb2.Warning:
    """What could not be seen."""
    return change_pb2.Warning(code=of.code, message=of.message, subject=of.subject)


def pressure(of: Pressure) -> pb.Pressure:
    """The pressure of a resource."""
    return pb.Pressure(
        resource=of.resource,
        some_10s_percent=of.some_10s_percent,
        some_60s_percent=of.some_60s_percent,
        full_10s_percent=of.full_10s_percent,
        full_60s_percent=of.full_60s_percent,
    )


def finding(of: Finding) -> pb.Finding:
    """What was found about a thread."""
    task, target = of.task, of.target
    made = pb.Finding(
        process=process(of.process),
        tid=task.tid,
        thread_comm=task.comm,
        state=task.state,
        kind=pb.WaitKind.Name(of.kind),
        syscall=task.call.name if task.call else "",
        target=target.name if target else "",
        wchan=of.wchan,
        stack=of.stack,
        stack_unavailable=of.stack_unavailable,
        not_run_for=duration(of.not_run_for_s),
        holders=[_holder(each) for each in of.holders],
        sentence=of.sentence,
        same_threads=of.same_threads,
    )
    if task.call is not None and task.call.fd is not None:
        made.fd = task.call.fd
    if of.disk is not None:
        made.block_device.CopyFrom(
            pb.BlockDeviceState(
                name=of.disk.name,
                numbers=of.disk.numbers,
                in_flight=of.disk.in_flight,
                completed=of.disk.completed,
            )
        )
    if of.filesystem is not None:
        made.filesystem.CopyFrom(_filesystem(of.filesystem))
    return made


def _holder(of: Holder) -> pb.Holder:
    return pb.Holder(
        process=process(of.process),
        tid=of.tid,
        role=of.role,
        state=of.state,
        trouble=of.trouble,
        syscall=of.call,
    )


def _filesystem(of: Filesystem) -> pb.FilesystemState:
    return pb.FilesystemState(
        mount_point=of.mount_point, type=of.type, used_percent=of.used_percent
    )
