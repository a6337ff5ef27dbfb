"""Protobuf to model and back, for processes, tasks and log lines."""

from __future__ import annotations

import signal
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from hostler.api.netns.v1 import process_pb2 as pb
from hostlerd.netns.kernel.logs import Batch
from hostlerd.netns.model.process import (
    DeviceLimit,
    Limits,
    Process,
    ProcessState,
    Restart,
    RestartPolicy,
    Status,
)
from hostlerd.netns.model.task import Task

_POLICIES = {
    pb.Restart.POLICY_UNSPECIFIED: RestartPolicy.NEVER,
    pb.Restart.POLICY_NEVER: RestartPolicy.NEVER,
    pb.Restart.POLICY_ON_FAILURE: RestartPolicy.ON_FAILURE,
    pb.Restart.POLICY_ALWAYS: RestartPolicy.ALWAYS,
}
_SHOWN_POLICIES = {
    RestartPolicy.NEVER: pb.Restart.POLICY_NEVER,
    RestartPolicy.ON_FAILURE: pb.Restart.POLICY_ON_FAILURE,
    RestartPolicy.ALWAYS: pb.Restart.POLICY_ALWAYS,
}
_STATES = {
    ProcessState.STARTING: pb.PROCESS_STATE_STARTING,
    ProcessState.RUNNING: pb.PROCESS_STATE_RUNNING,
    ProcessState.STOPPING: pb.PROCESS_STATE_STOPPING,
    ProcessState.EXITED: pb.PROCESS_STATE_EXITED,
    ProcessState.FAILED: pb.PROCESS_STATE_FAILED,
}
_LIMITS = ("memory_max_bytes", "cpu_max_millicpus", "tasks_max", "io_weight")
_RATES = ("read_bytes_per_second", "write_bytes_per_second")
_PLAIN = (
    *("name", "namespace", "user", "group", "working_directory", "private_tmp", "private_uts"),
    *("private_ipc", "private_pid", "persistent"),
)


def process_from_proto(message: pb.Process) -> Process:
    """Take what a caller asks for; nothing is checked yet but the range of enums."""
    plain: dict[str, Any] = {key: getattr(message, key) for key in _PLAIN}
    if message.HasField("stop_timeout"):
        plain["stop_timeout_ms"] = _milliseconds(message.stop_timeout)
    return Process(
        **plain,
        argv=tuple(message.argv),
        supplementary_groups=tuple(message.supplementary_groups),
        environment=tuple(sorted(message.environment.items())),
        limits=_limits(message.limits),
        restart=_restart(message.restart),
    )


def process_to_proto(process: Process) -> pb.Process:
    """Answer what was asked for; its environment is left out."""
    limits = process.limits
    return pb.Process(
        **{key: getattr(process, key) for key in _PLAIN},
        argv=process.argv,
        supplementary_groups=process.supplementary_groups,
        limits=pb.Limits(
            **{key: getattr(limits, key) for key in _LIMITS},
            devices=[
                pb.DeviceLimit(
                    device=d.device,
                    read_bytes_per_second=d.read_bytes_per_second,
                    write_bytes_per_second=d.write_bytes_per_second,
                )
                for d in limits.devices
            ],
        ),
        restart=pb.Restart(
            policy=_SHOWN_POLICIES[process.restart.policy],
            delay=_duration(process.restart.delay_ms * 1_000_000),
        ),
        stop_timeout=_duration(process.stop_timeout_ms * 1_000_000),
    )


def status_to_proto(status: Status) -> pb.ProcessStatus:
    """Answer a process as it is."""
    message = pb.ProcessStatus(
        process=process_to_proto(status.process),
        unit=status.process.unit,
        state=_STATES[status.state],
        main_pid=status.main_pid,
        exit_code=status.exit_code,
        exit_signal=status.exit_signal,
        restart_count=status.restart_count,
        memory_bytes=status.memory_bytes,
        cpu_time=_duration(status.cpu_ns),
        task_count=status.task_count,
        out_of_memory=status.out_of_memory,
    )
    if status.start_time:
        message.start_time.CopyFrom(Timestamp(seconds=status.start_time))
    return message


def task_to_proto(task: Task) -> pb.Task:
    """Answer a task."""
    return pb.Task(
        pid_outside=task.pid_outside,
        pid_inside=task.pid_inside,
        parent_pid=task.parent_pid,
        comm=task.comm,
        argv=task.argv,
        uid=task.uid,
        gid=task.gid,
        namespaces=task.namespaces,
        network_namespace=task.network_namespace,
        cgroup=task.cgroup,
        cgroup_limits=task.cgroup_limits,
        security_label=task.security_label,
        container_engine=task.container_engine,
        process=task.process,
    )


def exited_to_proto(
    code: int | None, signal_name: str, out_of_memory: bool = False
) -> pb.RunProcessResponse.Exited:
    """Answer how a run has ended: a signal counts as 128 and its number, as shells have it."""
    if code is None:
        number = signal.Signals.__members__.get(signal_name)
        code = 128 + (number.value if number else 0)
    return pb.RunProcessResponse.Exited(
        exit_code=code, exit_signal=signal_name, out_of_memory=out_of_memory
    )


def batch_to_proto(batch: Batch, seq: int) -> pb.StreamLogsResponse:
    """Answer a batch of lines."""
    message = pb.StreamLogsResponse(seq=seq, dropped=batch.dropped)
    for line in batch.lines:
        shown = message.lines.add(pid=line.pid, message=line.message, cursor=line.cursor)
        shown.time.FromDatetime(line.time)
    return message


def _limits(message: pb.Limits) -> Limits:
    given = {key: getattr(message, key) for key in _LIMITS if message.HasField(key)}
    devices = tuple(
        DeviceLimit(d.device, **{key: getattr(d, key) for key in _RATES if d.HasField(key)})
        for d in message.devices
    )
    return Limits(**given, devices=devices)


def _restart(message: pb.Restart) -> Restart:
    # A policy of a later version is not known here; never is the one that surprises nobody.
    policy = _POLICIES.get(message.policy, RestartPolicy.NEVER)
    if message.HasField("delay"):
        return Restart(policy, _milliseconds(message.delay))
    return Restart(policy)


def _milliseconds(duration: Duration) -> int:
    """The duration, rounded up, so that a positive one never becomes none."""
    return duration.seconds * 1000 + -(-duration.nanos // 1_000_000)


def _duration(nanoseconds: int) -> Duration:
    return Duration(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)
