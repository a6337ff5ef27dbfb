"""Errors as the daemons send them."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2


def rich(code: grpc.StatusCode, reason: str, message: str, **details: Any) -> tuple[Any, ...]:
    """The code, message and trailers of an error, as AIP-193 has them."""
    status = status_pb2.Status(code=code.value[0], message=message)
    info = error_details_pb2.ErrorInfo(
        reason=reason, domain="hostler", metadata=details.get("metadata", {})
    )
    messages: list[Any] = [info]
    if fields := details.get("fields"):
        bad = error_details_pb2.BadRequest()
        for field, description in fields.items():
            bad.field_violations.add(field=field, description=description)
        messages.append(bad)
    if subjects := details.get("subjects"):
        failed = error_details_pb2.PreconditionFailure()
        for subject, description in subjects.items():
            failed.violations.add(subject=subject, description=description)
        messages.append(failed)
    for message_ in messages:
        packed = AnyMessage()
        packed.Pack(message_)
        status.details.append(packed)
    return code, message, (("grpc-status-details-bin", status.SerializeToString()),)


def refuse(context: grpc.ServicerContext, error: tuple[Any, ...]) -> None:
    code, message, trailers = error
    context.set_trailing_metadata(trailers)
    context.abort(code, message)
