"""AuditService: shows the daemon's own audit log, and hands out its lines to be verified."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from hostler.api.common.v1 import audit_pb2, audit_pb2_grpc
from hostler.core.audit import Record, parse
from hostlerd.runtime.audit import AuditLog
from hostlerd.runtime.audit_files import (
    all_files,
    backwards,
    last_record,
    lines,
    pieces,
)
from hostlerd.runtime.audit_tail import Tail
from hostlerd.runtime.changes import Blocking
from hostlerd.runtime.errors import InvalidRequest, Violation

_MOST_RECORDS = 1000
_LOOK_S = 0.5
_CHUNK_BYTES = 256 << 10
# So many lines are looked through before anybody else may use the thread, and sent together.
_LINES_AT_ONCE = 1000
# Fields of a record that have a field of their own in the answer.
_SHOWN = frozenset(
    {
        *("seq", "time", "kind", "identity", "certificate_serial", "peer", "method", "request"),
        *("status", "reason", "plan_hash", "steps", "duration_s", "intent_seq", "previous", "hash"),
        *("run", "request_id", "resources", "outcome", "message", "group", "job", "approval"),
        "count",
    }
)
_PLAIN = (
    *("kind", "identity", "certificate_serial", "peer", "method", "status", "reason", "plan_hash"),
    *("run", "request_id", "outcome", "message", "group", "job", "approval"),
)
_EQUAL = ("identity", "method", "run", "request_id", "status", "reason", "group")


class AuditService(audit_pb2_grpc.AuditServiceServicer):  # type: ignore[misc]
    """Reads the daemon's own audit log."""

    def __init__(self, log: AuditLog, blocking: Blocking) -> None:
        self._log = log
        self._path = log.path
        self._blocking = blocking

    async def ListAuditRecords(
        self, request: audit_pb2.ListAuditRecordsRequest, context: Any
    ) -> Any:
        """List records, oldest first; page tokens are sequence numbers."""
        after = request.after_seq
        if request.page_token:
            if not request.page_token.isdecimal():
                raise InvalidRequest.of([Violation("page_token", "not one of this service's")])
            after = max(after, int(request.page_token))
        return await self._blocking(self._list, request, after)

    def _list(self, request: audit_pb2.ListAuditRecordsRequest, after: int) -> Any:
        end = last_record(self._path)
        filters = Filter(request)
        token = ""
        if request.tail > 0:
            size = min(request.tail, _MOST_RECORDS)
            newest = filters.matching(_newest_first(backwards(self._path), after))
            found = list(islice(newest, size))[::-1]
        else:
            size = min(request.page_size if request.page_size > 0 else 100, _MOST_RECORDS)
            # Not past the end that is answered: who follows goes on after it.
            source = filters.matching(_until(lines(self._path, after), end), after)
            found = list(islice(source, size))
            token = str(found[-1]["seq"]) if next(source, None) is not None else ""
        return audit_pb2.ListAuditRecordsResponse(
            records=[to_proto(record) for record in found],
            next_page_token=token,
            end=audit_pb2.AuditPosition(seq=end["seq"], head=end["hash"]) if end else None,
        )

    async def FollowAuditRecords(
        self, request: audit_pb2.FollowAuditRecordsRequest, context: Any
    ) -> AsyncIterator[Any]:
        """Stream records as they are written."""
        if request.after_seq < -1:
            raise InvalidRequest.of([Violation("after_seq", "below -1")])
        filters, after = Filter(request), request.after_seq
        if after == -1:
            end = await self._blocking(last_record, self._path)
            after = end["seq"] if end else 0
        tail, begun = Tail(self._path, after), False
        try:
            while True:
                answer, whole = await self._blocking(_follow, tail, filters, after)
                if answer.records or answer.dropped or not begun:
                    begun = True
                    yield answer
                after = answer.seq
                if whole:
                    await asyncio.sleep(_LOOK_S)
        finally:
            tail.close()

    async def ReadAuditLog(
        self, request: audit_pb2.ReadAuditLogRequest, context: Any
    ) -> AsyncIterator[Any]:
        """Stream the lines of the log as they lie on the disk."""
        source = _chunks(pieces(self._path, request.after_seq), request.after_seq)
        while (chunk := await self._blocking(next, source, None)) is not None:
            yield chunk

    async def GetAuditState(self, request: audit_pb2.GetAuditStateRequest, context: Any) -> Any:
        """Get the state of the log."""
        return await self._blocking(self._state)

    def _state(self) -> Any:
        state = self._log.state
        answer = audit_pb2.GetAuditStateResponse(
            journal_from_seq=state.journal_from_seq, problem=state.problem
        )
        for file in all_files(self._path):
            try:
                size = file.path.stat().st_size
            except FileNotFoundError:
                continue
            answer.files.add(
                name=file.path.name,
                size_bytes=size,
                first_seq=file.first_seq,
                compressed=file.compressed,
            )
        answer.oldest_seq = next((file.first_seq for file in answer.files), 0)
        if state.journal_from_seq:
            answer.end.seq, answer.end.head = state.end.seq, state.end.head
        elif (end := last_record(self._path)) is not None:
            answer.end.seq, answer.end.head = end["seq"], end["hash"]
        return answer


def _follow(tail: Tail, filters: Filter, after: int) -> tuple[Any, bool]:
    """Look through the next lines; answers what matches, and whether that was all there is."""
    found: list[Record] = []
    last, dropped = after, 0
    new = tail.lines(_LINES_AT_ONCE)
    for line in new:
        record = parse(line)
        if record is None or record["seq"] <= last:
            continue
        if last == after:
            dropped = record["seq"] - after - 1
        last = record["seq"]
        if filters.fits(record):
            found.append(record)
    answer = audit_pb2.FollowAuditRecordsResponse(
        records=[to_proto(record) for record in found], seq=last, dropped=dropped
    )
    return answer, len(new) < _LINES_AT_ONCE


class Filter:
    """What a request wants to see. Lines that cannot match are not even parsed."""

    def __init__(self, request: Any) -> None:
        self._equal = {name: value for name in _EQUAL if (value := getattr(request, name))}
        self._kinds = frozenset(request.kinds)
        self._resource = request.resource
        self._contains = request.resource_contains
        self._since, self._until = _moment(request, "since"), _moment(request, "until")
        words = [*self._equal.values(), *filter(None, (self._resource,))]
        # As the writer has spelled them.
        self._needles = [json.dumps(word).encode() for word in words]

    def matching(self, source: Iterator[bytes], after: int = 0) -> Iterator[Record]:
        """Yield the records of these lines that are wanted."""
        for line in source:
            if all(needle in line for needle in self._needles):
                record = parse(line)
                if record is not None and record["seq"] > after and self.fits(record):
                    yield record

    def fits(self, record: Record) -> bool:
        """Whether a record is wanted."""
        if any(record.get(name) != value for name, value in self._equal.items()):
            return False
        if self._kinds and record.get("kind") not in self._kinds:
            return False
        resources = record.get("resources", [])
        if self._resource and self._resource not in resources:
            return False
        if self._contains and not any(self._contains in str(name) for name in resources):
            return False
        return self._in_time(record)

    def _in_time(self, record: Record) -> bool:
        if self._since is None and self._until is None:
            return True
        moment = _time(record)
        if self._since is not None and moment < self._since:
            return False
        return self._until is None or moment < self._until


def _moment(request: Any, name: str) -> datetime | None:
    if name not in request.DESCRIPTOR.fields_by_name or not request.HasField(name):
        return None
    moment: datetime = getattr(request, name).ToDatetime(UTC)
    return moment


def _time(record: Record) -> datetime:
    try:
        moment = datetime.fromisoformat(str(record.get("time")))
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _until(source: Iterator[bytes], end: Record | None) -> Iterator[bytes]:
    """Yield lines up to the one that was last; what comes after is for another call."""
    wanted = f'"hash":"{end["hash"]}"'.encode() if end else b""
    for line in source:
        yield line
        if wanted and wanted in line:
            return


def _newest_first(source: Iterator[bytes], after: int) -> Iterator[bytes]:
    for line in source:
        if after:
            record = parse(line)
            if record is not None and record["seq"] <= after:
                return
        yield line


def _chunks(source: Iterator[tuple[str, bytes]], after: int) -> Iterator[Any]:
    """Put lines together into messages, each of one file, from the one after `after` on."""
    name, data = "", bytearray()
    skipping = after > 0
    for file, line in source:
        if skipping:
            record = parse(line)
            if record is None or record["seq"] <= after:
                continue
            skipping = False
        if data and (file != name or len(data) >= _CHUNK_BYTES):
            yield audit_pb2.ReadAuditLogResponse(file=name, data=bytes(data))
            data.clear()
        name = file
        data += line
    if data:
        yield audit_pb2.ReadAuditLogResponse(file=name, data=bytes(data))


def to_proto(record: Record) -> audit_pb2.AuditRecord:
    """Answer a record as the API has it; one that somebody has edited as far as it fits."""
    plain: dict[str, Any] = {name: _text(record.get(name, "")) for name in _PLAIN}
    made = audit_pb2.AuditRecord(
        seq=record["seq"],
        request_json=_text(record.get("request", "")),
        steps=_texts(record.get("steps")),
        resources=_texts(record.get("resources")),
        intent_seq=_number(record.get("intent_seq")),
        count=_number(record.get("count")),
        previous=_text(record.get("previous", "")),
        hash=record["hash"],
        **plain,
    )
    made.time.FromDatetime(_time(record))
    duration = record.get("duration_s", 0)
    if isinstance(duration, (int, float)) and 0 <= duration < 1e9:
        made.duration.FromNanoseconds(int(duration * 1e9))
    more = {key: value for key, value in record.items() if key not in _SHOWN}
    if more:
        made.more_json = json.dumps(more)
    return made


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _texts(value: Any) -> list[str]:
    return [_text(item) for item in value] if isinstance(value, list) else []


def _number(value: Any) -> int:
    return value if isinstance(value, int) and abs(value) < 1 << 62 else 0
