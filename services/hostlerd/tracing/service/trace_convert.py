"""Traces between protobuf and the model."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from hostler.api.tracing.v1 import trace_pb2 as pb
from hostlerd.tracing.kernel.traces import Trace
from hostlerd.tracing.model.trace import Budget, Keep, Payload, Spec


def spec_from(asked: pb.TraceSpec) -> Spec:
    """What is asked for, as it stands."""
    budget = asked.budget
    return Spec(
        filter=asked.filter.strip(),
        pids=tuple(asked.pids),
        with_children=not asked.without_children,
        cgroup=asked.cgroup,
        start_unix_ns=asked.start_time.ToNanoseconds() if asked.HasField("start_time") else 0,
        engine=asked.engine,
        keep=_keep_from(asked.store) if asked.HasField("store") else None,
        budget=Budget(
            duration_s=budget.duration.seconds + budget.duration.nanos / 1e9,
            events=budget.events,
            size_bytes=budget.size_bytes,
            ring_bytes=budget.ring_bytes,
            cpu_share=budget.cpu_share,
        ),
    )


def _keep_from(asked: pb.CaptureSpec) -> Keep:
    return Keep(
        name=asked.name,
        size_bytes=asked.rotate_size_bytes,
        seconds=asked.rotate_duration.ToNanoseconds() / 1e9,
        events=asked.rotate_events,
        files=asked.keep_files,
    )


def payload_from(asked: pb.PayloadSpec) -> Payload:
    """What is asked for, as it stands."""
    return Payload(asked.data_bytes, asked.command_lines, asked.environments)


def trace_to(trace: Trace) -> pb.Trace:
    """A trace as it stands now."""
    standing = trace.collecting.standing
    answer = pb.Trace(
        name=trace.name,
        spec=spec_to(trace.spec),
        payload=payload_to(trace.payload),
        owner=trace.owner,
        start_time=time_to(trace.started_unix_s),
        events=standing.events,
        lost=standing.lost,
        size_bytes=standing.size_bytes,
        engine=standing.engine,
        load_duration=_duration_to(standing.load_s),
        watchers=trace.watchers,
        cpu_time=_duration_to(standing.cpu_s),
    )
    if standing.end is not None:
        answer.end_reason, answer.problem = standing.end.value, standing.problem
        answer.end_time.CopyFrom(time_to(standing.ended_unix_s))
    return answer


def time_to(unix_s: float) -> Timestamp:
    """Seconds since 1970 as protobuf has them."""
    at = Timestamp()
    at.FromNanoseconds(round(unix_s * 1e9))
    return at


def payload_to(payload: Payload) -> pb.PayloadSpec:
    """What a trace carries beside calls."""
    return pb.PayloadSpec(
        data_bytes=payload.data_bytes,
        command_lines=payload.command_lines,
        environments=payload.environments,
    )


def spec_to(spec: Spec) -> pb.TraceSpec:
    """What is traced."""
    budget = spec.budget
    answer = pb.TraceSpec(
        filter=spec.filter,
        pids=spec.pids,
        without_children=not spec.with_children,
        cgroup=spec.cgroup,
        engine=spec.engine,
        budget=pb.TraceBudget(
            duration=_duration_to(budget.duration_s),
            events=budget.events,
            size_bytes=budget.size_bytes,
            ring_bytes=budget.ring_bytes,
            cpu_share=budget.cpu_share,
        ),
    )
    if spec.start_unix_ns:
        answer.start_time.FromNanoseconds(spec.start_unix_ns)
    if spec.keep is not None:
        answer.store.CopyFrom(
            pb.CaptureSpec(
                name=spec.keep.name,
                rotate_size_bytes=spec.keep.size_bytes,
                rotate_duration=_duration_to(spec.keep.seconds),
                rotate_events=spec.keep.events,
                keep_files=spec.keep.files,
            )
        )
    return answer


def _duration_to(seconds: float) -> Duration:
    answer = Duration()
    answer.FromNanoseconds(round(seconds * 1e9))
    return answer
