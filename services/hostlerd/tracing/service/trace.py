"""The gRPC edge of traces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import grpc.aio

from hostler.api.tracing.v1 import trace_pb2 as pb
from hostlerd.runtime.call import current
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.tracing.kernel.payloads import without_payloads
from hostlerd.tracing.kernel.traces import Trace, Traces
from hostlerd.tracing.model.trace import Payload, Spec
from hostlerd.tracing.plan import trace as plan
from hostlerd.tracing.service import filters
from hostlerd.tracing.service.trace_convert import payload_from, spec_from, time_to, trace_to

# Blocks wait for others: a look for each would cost more than they do.
_LOOK_S = 0.02
# Who is sent no events is told how the trace stands.
_TELL_S = 1.0
_AT_ONCE = 16
_WITHHELD = "payloads, command lines and environments are left out: StreamPayloadTrace has them"

# What of a trace tells what its filter has seen.
_OF_PAYLOADS: tuple[Literal["events", "lost", "size_bytes"], ...] = ("events", "lost", "size_bytes")

Context = grpc.aio.ServicerContext[Any, Any]
Strip = Callable[[bytes], bytes]


class TraceService:
    """Serves hostler.api.tracing.v1.TraceService."""

    def __init__(self, runtime: Runtime, traces: Traces) -> None:
        self.runtime = runtime
        self.traces = traces

    async def StartTrace(
        self, request: pb.StartTraceRequest, context: Context
    ) -> pb.StartTraceResponse:
        """Start a trace without payloads."""
        trace, warnings = await self._start(spec_from(request.spec), Payload())
        return pb.StartTraceResponse(trace=trace_to(trace), warnings=warnings)

    async def StartPayloadTrace(
        self, request: pb.StartPayloadTraceRequest, context: Context
    ) -> AsyncIterator[pb.StartPayloadTraceResponse]:
        """Start a trace with payloads, and stream it."""
        asked, warnings = await self._start(spec_from(request.spec), payload_from(request.payload))
        with self.traces.watched(asked.name) as trace:
            yield pb.StartPayloadTraceResponse(
                trace=trace_to(trace), batch=_batch(0, warnings=warnings)
            )
            async for batch in self._batches(trace, 0, None):
                yield pb.StartPayloadTraceResponse(batch=batch)

    async def StreamTrace(
        self, request: pb.StreamTraceRequest, context: Context
    ) -> AsyncIterator[pb.StreamTraceResponse]:
        """Stream the events of a trace without payloads."""
        with self.traces.watched(request.name) as trace:
            strip = without_payloads if trace.payload else None
            if strip is not None:
                await self.runtime.blocking(filters.check_to_be_told, trace.spec.filter, trace.name)
            async for batch in self._batches(trace, _after(request.after_seq), strip):
                yield pb.StreamTraceResponse(batch=batch)

    async def StreamPayloadTrace(
        self, request: pb.StreamPayloadTraceRequest, context: Context
    ) -> AsyncIterator[pb.StreamPayloadTraceResponse]:
        """Stream the events of a trace with all that it carries."""
        with self.traces.watched(request.name) as trace:
            async for batch in self._batches(trace, _after(request.after_seq), None):
                yield pb.StreamPayloadTraceResponse(batch=batch)

    async def StopTrace(
        self, request: pb.StopTraceRequest, context: Context
    ) -> pb.StopTraceResponse:
        """End a trace."""
        caller = current().caller.identity
        is_root = caller == "local/root"
        trace = await self.runtime.blocking(self.traces.stop, request.name, caller, is_root)
        return pb.StopTraceResponse(trace=trace_to(trace))

    async def ListTraces(
        self, request: pb.ListTracesRequest, context: Context
    ) -> pb.ListTracesResponse:
        """List what runs, and what has ended in the last minute."""
        caller = current().caller.identity
        traces = await self.runtime.blocking(self._listed, caller)
        return pb.ListTracesResponse(traces=traces)

    def _listed(self, caller: str) -> list[pb.Trace]:
        found = []
        for trace in self.traces.all():
            told = trace_to(trace)
            if trace.owner != caller and filters.sees_payloads(trace.spec.filter):
                for field in _OF_PAYLOADS:
                    told.ClearField(field)
                told.spec.ClearField("filter")
            found.append(told)
        return found

    async def _start(self, spec: Spec, payload: Payload) -> tuple[Trace, tuple[str, ...]]:
        faults = plan.faults(spec, payload, time.time_ns())
        if not faults:
            faults = await self.runtime.blocking(
                filters.faults_of, spec.filter, payload, "spec.filter"
            )
        if faults:
            raise InvalidRequest.of([Violation(*fault) for fault in faults])
        budget, cut = plan.allowed(spec.budget)
        trace: Trace = await self.runtime.blocking(
            self.traces.start, replace(spec, budget=budget), payload, current().caller.identity
        )
        return trace, (*cut, *trace.collecting.warnings)

    async def _batches(
        self, trace: Trace, seq: int, strip: Strip | None
    ) -> AsyncIterator[pb.TraceBatch]:
        warnings = [_WITHHELD] if strip else []
        schema = await self.runtime.blocking(schema_text)
        yield _batch(seq, warnings=warnings, schema=schema)
        told_s = time.monotonic()
        while True:
            # Read before the blocks are taken: what came before the end is sent before it is told.
            ended = not trace.runs
            taken = trace.collecting.blocks.take(seq, _AT_ONCE)
            missed = taken.missed
            for number, block in taken.blocks:
                data = block.data
                if strip is not None:
                    data = await self.runtime.blocking(strip, data)
                yield _batch(number, data, block.events, block.lost, missed)
                missed, told_s = 0, time.monotonic()
            seq = taken.seq
            if ended and not taken.blocks:
                yield _batch(seq, ended=trace_to(trace))
                return
            if not taken.blocks:
                if time.monotonic() - told_s > _TELL_S:
                    yield _batch(seq)
                    told_s = time.monotonic()
                await asyncio.sleep(_LOOK_S)


def schema_text() -> str:
    """Which columns the blocks have that this release writes."""
    from hostler.core.trace.schema import SCHEMA

    return SCHEMA.to_json()


def _after(seq: int) -> int:
    if seq < 0:
        raise InvalidRequest.of([Violation("after_seq", "must not be negative")])
    return seq


def _batch(
    seq: int,
    data: bytes = b"",
    events: int = 0,
    lost: int = 0,
    missed: int = 0,
    *,
    ended: pb.Trace | None = None,
    warnings: Sequence[str] = (),
    schema: str = "",
) -> pb.TraceBatch:
    return pb.TraceBatch(
        seq=seq,
        block=data,
        events=events,
        lost=lost,
        batches_dropped=missed,
        time=time_to(time.time()),
        ended=ended,
        warnings=warnings,
        schema=schema,
    )
