"""The gRPC edge of captures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc.aio

from hostler.api.tracing.v1 import capture_pb2 as pb
from hostlerd.runtime.call import current
from hostlerd.runtime.changes import Changes
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan
from hostlerd.tracing.kernel.query import Part, parts
from hostlerd.tracing.kernel.store import Store
from hostlerd.tracing.model.stored import Query, Stored
from hostlerd.tracing.model.trace import Payload
from hostlerd.tracing.plan import stored as plan
from hostlerd.tracing.plan.trace import FILTER_BYTES_MOST
from hostlerd.tracing.service import filters
from hostlerd.tracing.service.trace import schema_text
from hostlerd.tracing.service.trace_convert import payload_to, spec_to, time_to

# A block may take 128 MB while it is filtered.
_AT_ONCE = 2
_WITHHELD = "payloads, command lines and environments are left out: QueryPayloadCapture has them"

Context = grpc.aio.ServicerContext[Any, Any]


class CaptureService:
    """Serves hostler.api.tracing.v1.CaptureService."""

    def __init__(self, runtime: Runtime, store: Store, changes: Changes) -> None:
        self.runtime = runtime
        self.store = store
        self.changes = changes
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def ListCaptures(
        self, request: pb.ListCapturesRequest, context: Context
    ) -> pb.ListCapturesResponse:
        """List what is kept."""
        caller = current().caller.identity
        found = await self.runtime.blocking(self._listed, caller)
        return pb.ListCapturesResponse(captures=found, limit_bytes=self.store.bounds.bytes)

    def _listed(self, caller: str) -> list[pb.Capture]:
        found = []
        for stored in self.store.all():
            told = _capture(stored)
            if stored.owner != caller and filters.sees_payloads(stored.spec.filter):
                told.ClearField("events")
                told.ClearField("size_bytes")
                told.spec.ClearField("filter")
            found.append(told)
        return found

    async def QueryCapture(
        self, request: pb.QueryCaptureRequest, context: Context
    ) -> AsyncIterator[pb.QueryCaptureResponse]:
        """Stream events without payloads."""
        async for batch in self._batches(_query(request.query), with_payloads=False):
            yield pb.QueryCaptureResponse(batch=batch)

    async def QueryPayloadCapture(
        self, request: pb.QueryPayloadCaptureRequest, context: Context
    ) -> AsyncIterator[pb.QueryPayloadCaptureResponse]:
        """Stream events with all that the capture has."""
        async for batch in self._batches(_query(request.query), with_payloads=True):
            yield pb.QueryPayloadCaptureResponse(batch=batch)

    async def DeleteCapture(
        self, request: pb.DeleteCaptureRequest, context: Context
    ) -> pb.DeleteCaptureResponse:
        """Remove a capture."""

        def make_plan() -> Plan:
            return plan.remove(request.name, self.store.all())

        done = await self.changes.carry_out(request.change, make_plan)
        return pb.DeleteCaptureResponse(change=done.change)

    async def _batches(
        self, query: Query, *, with_payloads: bool
    ) -> AsyncIterator[pb.CaptureBatch]:
        stored = await self.runtime.blocking(self._checked, query, with_payloads)
        is_less = bool(stored.payload) and not with_payloads
        yield pb.CaptureBatch(
            seq=query.after_seq,
            capture=_capture(stored),
            schema=await self.runtime.blocking(schema_text),
            warnings=[_WITHHELD] if is_less else [],
        )
        seq = query.after_seq
        found = parts(self.store.files(query.name), query, with_payloads=not is_less)
        while (part := await self._next(found)) is not None:
            seq = max(seq, part.seq)
            yield pb.CaptureBatch(
                seq=seq,
                block=part.data,
                events=part.events,
                lost=part.lost,
                warnings=[part.problem] if part.problem else [],
            )
        yield pb.CaptureBatch(seq=seq, capture=_capture(stored), is_last=True)

    async def _next(self, found: Iterator[Part]) -> Part | None:
        async with self._turns:
            part: Part | None = await self.runtime.blocking(next, found, None)
        return part

    def _checked(self, query: Query, with_payloads: bool) -> Stored:
        stored = self.store.get(query.name)
        if not with_payloads:
            filters.check_to_be_told(stored.spec.filter, stored.name)
        seen = stored.payload if with_payloads else Payload()
        filters.check(query.filter, seen, "query.filter")
        return stored


def _query(asked: pb.CaptureQuery) -> Query:
    if asked.after_seq < 0:
        raise InvalidRequest.of([Violation("query.after_seq", "must not be negative")])
    query = Query(
        name=asked.name,
        filter=asked.filter.strip(),
        begin_ns=asked.begin_time.ToNanoseconds(),
        end_ns=asked.end_time.ToNanoseconds(),
        after_seq=asked.after_seq,
    )
    if query.begin_ns < 0 or query.end_ns < 0:
        raise InvalidRequest.of([Violation("query.begin_time", "must not be before 1970")])
    if len(query.filter.encode(errors="replace")) > FILTER_BYTES_MOST:
        what = f"must have at most {FILTER_BYTES_MOST} bytes"
        raise InvalidRequest.of([Violation("query.filter", what)])
    return query


def _capture(stored: Stored) -> pb.Capture:
    answer = pb.Capture(
        name=stored.name,
        spec=spec_to(stored.spec),
        payload=payload_to(stored.payload),
        owner=stored.owner,
        start_time=time_to(stored.started_unix_s),
        events=stored.events,
        lost=stored.lost,
        size_bytes=stored.size_bytes,
        files=stored.files,
        boot_id=stored.boot_id,
    )
    if stored.end is not None:
        answer.end_reason, answer.problem = stored.end.value, stored.problem
        answer.end_time.CopyFrom(time_to(stored.ended_unix_s))
    return answer
