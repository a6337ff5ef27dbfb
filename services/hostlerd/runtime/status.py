"""Domain errors as google.rpc.Status with details (AIP-193): mapped here, once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from hostlerd.runtime.errors import Code, DomainError, Violation

_DETAILS_KEY = "grpc-status-details-bin"
# One HTTP/2 header holds the details, and clients refuse metadata above 8 KiB unless they say
# that they take more.
_USUAL_BYTES = 6 << 10
_MOST_BYTES = 256 << 10
_ROOM_KEY = "hostler-details-bytes"

CODES = {code: status for status in grpc.StatusCode for code in Code if code.name == status.name}


def to_status(error: DomainError, most_bytes: int = _USUAL_BYTES) -> status_pb2.Status:
    """Answer the status of an error: ErrorInfo always, violations as the code asks for.

    What does not fit into the bounds is left out, and `violations_left_out` tells how many.
    """
    status = status_pb2.Status(code=error.code.value, message=error.message[:2048])
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain="hostler")
    for key, value in error.metadata.items():
        info.metadata[key] = value[:1024]
    kept = list(error.violations)
    while True:
        details: list[Message] = [info, *_violations(error.code, kept)]
        status.ClearField("details")
        for detail in details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        if status.ByteSize() <= most_bytes or not kept:
            return status
        kept = kept[: len(kept) // 2]
        info.metadata["violations_left_out"] = str(len(error.violations) - len(kept))


def _violations(code: Code, violations: Sequence[Violation]) -> list[Message]:
    if not violations:
        return []
    if code is Code.FAILED_PRECONDITION:
        return [
            error_details_pb2.PreconditionFailure(
                violations=[
                    error_details_pb2.PreconditionFailure.Violation(
                        subject=v.field, description=v.description
                    )
                    for v in violations
                ]
            )
        ]
    return [
        error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(
                    field=v.field, description=v.description
                )
                for v in violations
            ]
        )
    ]


def trailer(error: DomainError, room_bytes: int) -> tuple[tuple[str, bytes], ...]:
    """Answer the trailing metadata that carries an error's details, within the caller's room."""
    return ((_DETAILS_KEY, to_status(error, room_bytes).SerializeToString()),)


def room_of(metadata: Iterable[tuple[str, str | bytes]]) -> int:
    """Answer how many bytes of details a caller takes: what it says, at most 256 KiB, or 6 KiB."""
    for key, value in metadata:
        if key == _ROOM_KEY and isinstance(value, str) and value.isdecimal():
            return max(_USUAL_BYTES, min(int(value[:9]), _MOST_BYTES))
    return _USUAL_BYTES
