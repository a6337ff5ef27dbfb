"""Captures that hosts keep: listed, asked for what is wanted of them, fetched, removed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostler.api.tracing.v1 import capture_pb2 as pb
from hostler.channel import rpc
from hostler.results import CallFailed, HostError
from hostler.session import Session
from hostler.traces import compare_clock

if TYPE_CHECKING:
    from hostler.core.trace.capture import CaptureHeader
    from hostler.core.trace.schema import Schema

LIST = rpc(pb, "CaptureService", "ListCaptures")
QUERY = rpc(pb, "CaptureService", "QueryCapture")
QUERY_WITH_PAYLOAD = rpc(pb, "CaptureService", "QueryPayloadCapture")
DELETE = rpc(pb, "CaptureService", "DeleteCapture")

_LONGEST_S = 24 * 3600.0


@dataclass(slots=True)
class Fetched:
    """What was fetched of a capture; `capture` is how it stood."""

    path: Path
    capture: Any
    events: int = 0
    lost: int = 0
    warnings: tuple[str, ...] = ()


async def fetch(session: Session, query: Any, path: Path, *, with_payload: bool) -> Fetched:
    """Write what a query answers into a new file. Raises CallFailed, FileExistsError, OSError.

    Its header has how the host's clock stands to ours, so that several can be merged.
    """
    from hostler.core.trace.capture_writer import CaptureWriter
    from hostler.core.trace.schema import CaptureInvalid, Schema

    clock, _ = await compare_clock(session)
    method = QUERY_WITH_PAYLOAD if with_payload else QUERY
    make = pb.QueryPayloadCaptureRequest if with_payload else pb.QueryCaptureRequest
    answers = session.stream(method, make(query=query), timeout_s=_LONGEST_S, resume=_resume)
    writer: CaptureWriter | None = None
    schema: Schema | None = None
    fetched = Fetched(path, None)
    try:
        async for answer in answers:
            batch = answer.batch
            if batch.schema:
                schema = Schema.from_json(batch.schema)
            if writer is None:
                header = _header(session.host.name, batch.capture, query, -clock.offset_ns)
                writer = CaptureWriter(path, header)
                fetched.capture = batch.capture
            fetched.warnings += tuple(w for w in batch.warnings if w not in fetched.warnings)
            _write(writer, batch, schema, fetched)
    except CaptureInvalid as e:
        raise CallFailed(HostError("DATA_LOSS", "BLOCK_INVALID", str(e))) from e
    finally:
        if writer is not None:
            writer.close()
    return fetched


def _header(host: str, capture: Any, query: Any, offset_ns: int) -> CaptureHeader:
    from hostler.core.trace.capture import CaptureHeader

    texts = [f"({text})" for text in (capture.spec.filter, query.filter) if text]
    return CaptureHeader(
        host=host,
        boot_id=capture.boot_id,
        start_ns=capture.start_time.ToNanoseconds(),
        clock_offset_ns=offset_ns,
        filter_text=" and ".join(texts),
    )


def _write(writer: Any, batch: Any, schema: Schema | None, fetched: Fetched) -> None:
    from hostler.core.trace.blocks import decode
    from hostler.core.trace.events import Events
    from hostler.core.trace.schema import SCHEMA

    if not batch.block and not batch.lost:
        return
    events = decode(batch.block, schema or SCHEMA) if batch.block else Events.empty()
    events.lost = batch.lost
    writer.write(events)
    fetched.events += len(events)
    fetched.lost += batch.lost


def _resume(request: Any, response: Any) -> None:
    request.query.after_seq = response.batch.seq
