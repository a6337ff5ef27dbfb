"""Traces of system calls on hosts: started together, followed, and told in one order.

A host's clock is compared with this machine's before its trace begins; times of events are
corrected by the difference, so that what several hosts did can be put in order.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hostler.api.common.v1 import host_pb2
from hostler.api.tracing.v1 import trace_pb2 as pb
from hostler.channel import rpc
from hostler.results import CallFailed, HostError
from hostler.session import Session

if TYPE_CHECKING:
    from hostler.core.trace.events import Events

START = rpc(pb, "TraceService", "StartTrace")
START_WITH_PAYLOAD = rpc(pb, "TraceService", "StartPayloadTrace")
STREAM = rpc(pb, "TraceService", "StreamTrace")
STREAM_WITH_PAYLOAD = rpc(pb, "TraceService", "StreamPayloadTrace")
STOP = rpc(pb, "TraceService", "StopTrace")
LIST = rpc(pb, "TraceService", "ListTraces")
_GET_HOST = rpc(host_pb2, "HostService", "GetHost").at("tracing")

WITHHELD = "payloads are not allowed to this identity; the trace goes on without them"
_CLOCK_TRIES = 4
_WORTH_TELLING_NS = 100_000_000
"""Clocks that are kept by NTP are nearer to each other than this."""
_LATE_S = 15.0
"""How long after its end what a trace has told may still come."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is traced on each host; `payload` is None if nothing beyond calls is wanted."""

    spec: pb.TraceSpec
    payload: pb.PayloadSpec | None = None


@dataclass(frozen=True, slots=True)
class Attached:
    """A trace that somebody has started, by its name on each host; to be left as it is."""

    name: str
    with_payload: bool = False


@dataclass(frozen=True, slots=True)
class Clock:
    """How a host's clock stands to ours: its time minus ours, and how far off that may be."""

    offset_ns: int
    error_ns: int

    def words(self) -> str:
        """Say how far off the clock is, "" if it is not by much, or not for certain."""
        if abs(self.offset_ns) < max(_WORTH_TELLING_NS, self.error_ns):
            return ""
        way = "ahead of" if self.offset_ns > 0 else "behind"
        off_s, error_s = abs(self.offset_ns) / 1e9, self.error_ns / 1e9
        return (
            f"its clock is {off_s:.3f} s {way} this machine's, to within {error_s:.3f} s;"
            " times are corrected by that"
        )


@dataclass(frozen=True, slots=True)
class Started:
    """A trace that runs on a host."""

    name: str
    has_payload: bool
    clock: Clock
    boot_id: str
    trace: Any
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class Piece:
    """A batch from a host: its events with times of our clock, and what is to be known with it.

    `until_ns` is a time of our clock before which no further event of this host will come, as far
    as can be told: events are told when their call ends.
    """

    events: Events
    until_ns: int
    block: bytes = b""
    lost: int = 0
    batches_dropped: int = 0
    ended: Any = None
    warnings: Sequence[str] = field(default_factory=tuple)


async def compare_clock(session: Session) -> tuple[Clock, str]:
    """Compare a host's clock with ours; answers its boot id too. Raises CallFailed.

    The answer that took the shortest time is the one that says most: it was given between our
    sending and our receiving.
    """
    found: list[Clock] = []
    boot_id = ""
    for _ in range(_CLOCK_TRIES):
        sent_ns = time.time_ns()
        answer = await session.call(_GET_HOST, host_pb2.GetHostRequest())
        taken_ns = time.time_ns() - sent_ns
        middle_ns = sent_ns + taken_ns // 2
        found.append(Clock(answer.host.now.ToNanoseconds() - middle_ns, taken_ns // 2))
        boot_id = answer.host.boot_id
    return min(found, key=lambda clock: clock.error_ns), boot_id


async def start(session: Session, asked: Asked, begin_unix_ns: int = 0) -> Started:
    """Start a trace, at a time of our clock if one is given. Raises CallFailed.

    Who may not have payloads gets the trace without them, with a warning.
    """
    clock, boot_id = await compare_clock(session)
    spec = pb.TraceSpec()
    spec.CopyFrom(asked.spec)
    if begin_unix_ns:
        spec.start_time.FromNanoseconds(begin_unix_ns + clock.offset_ns)
    warnings = (words,) if (words := clock.words()) else ()
    if asked.payload is not None:
        request = pb.StartPayloadTraceRequest(spec=spec, payload=asked.payload)
        try:
            return await _start_with_payload(session, request, clock, boot_id, warnings)
        except CallFailed as failed:
            if failed.error.reason != "PERMISSION_DENIED":
                raise
            warnings = (*warnings, WITHHELD)
    answer = await session.call(START, pb.StartTraceRequest(spec=spec))
    said = (*warnings, *answer.warnings)
    return Started(answer.trace.name, False, clock, boot_id, answer.trace, said)


async def attach(session: Session, attached: Attached) -> Started:
    """Find a trace that runs, or has just ended. Raises CallFailed."""
    clock, boot_id = await compare_clock(session)
    answer = await session.call(LIST, pb.ListTracesRequest())
    for trace in answer.traces:
        if trace.name == attached.name:
            return Started(trace.name, attached.with_payload, clock, boot_id, trace)
    words = "there is no such trace, or it has ended a while ago"
    raise CallFailed(HostError("NOT_FOUND", "TRACE_NOT_FOUND", words))


async def _start_with_payload(
    session: Session,
    request: Any,
    clock: Clock,
    boot_id: str,
    warnings: tuple[str, ...],
) -> Started:
    # What it streams is asked for once more, by a method that goes on after a cut.
    async for answer in session.stream(START_WITH_PAYLOAD, request):
        said = (*warnings, *answer.batch.warnings)
        return Started(answer.trace.name, True, clock, boot_id, answer.trace, said)
    raise CallFailed(HostError("INTERNAL", "NO_ANSWER", "the trace was started without a word"))


async def follow(session: Session, started: Started) -> AsyncIterator[Piece]:
    """Follow a trace to its end. Raises CallFailed, and CaptureInvalid for what is no block."""
    from hostler.core.trace.blocks import decode
    from hostler.core.trace.events import Events
    from hostler.core.trace.merge import moved
    from hostler.core.trace.schema import SCHEMA, Schema

    schema = SCHEMA
    with_payload = started.has_payload
    method = STREAM_WITH_PAYLOAD if with_payload else STREAM
    make = pb.StreamPayloadTraceRequest if with_payload else pb.StreamTraceRequest
    async for response in session.stream(
        method, make(name=started.name), timeout_s=_longest_s(started), resume=_resume
    ):
        batch = response.batch
        if batch.schema:
            schema = Schema.from_json(batch.schema)
        events = decode(batch.block, schema) if batch.block else Events.empty()
        offset_ns = started.clock.offset_ns
        yield Piece(
            moved(events, -offset_ns),
            batch.time.ToNanoseconds() - offset_ns,
            batch.block,
            batch.lost,
            batch.batches_dropped,
            batch.ended if batch.HasField("ended") else None,
            tuple(batch.warnings),
        )


def _longest_s(started: Started) -> float:
    """How long a trace can be told of: a host that has died in it is not waited for much longer."""
    spec = started.trace.spec
    ahead_ns = 0
    if spec.HasField("start_time"):
        ahead_ns = spec.start_time.ToNanoseconds() - started.clock.offset_ns - time.time_ns()
    lasting_ns: int = max(0, ahead_ns) + spec.budget.duration.ToNanoseconds()
    return lasting_ns / 1e9 + _LATE_S


def _resume(request: Any, response: Any) -> None:
    request.after_seq = response.batch.seq
