"""Requests as they may be written down: without the fields that hold secrets, and bounded."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

_MOST_BYTES = 64 << 10


def to_json(message: Message) -> str:
    """Answer the message as JSON, fields marked debug_redact replaced by "(redacted)".

    Bytes are answered as their number. More than 64 KiB is cut, and says so.
    """
    text = json.dumps(_shown(message), separators=(",", ":"))
    if len(text) > _MOST_BYTES:
        return json.dumps({"truncated_bytes": len(text), "beginning": text[:_MOST_BYTES]})
    return text


def _shown(message: Message) -> dict[str, Any]:
    if message.DESCRIPTOR.full_name.startswith("google.protobuf."):
        return {"value": MessageToDict(message)}
    return {
        field.name: "(redacted)" if field.GetOptions().debug_redact else _value(field, value)
        for field, value in message.ListFields()
    }


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"]
        return {str(key): _one(inner, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_one(field, item) for item in value]
    return _one(field, value)


def _one(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Message):
        return _shown(value)
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return value


def clear(message: Message) -> None:
    """Clear the fields marked debug_redact, in it and in all that it holds."""
    for field, value in message.ListFields():
        if field.GetOptions().debug_redact:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for inner in _inner(field, value):
                clear(inner)


def _inner(field: FieldDescriptor, value: Any) -> list[Message]:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        of = kind.fields_by_name["value"]
        return list(value.values()) if of.message_type is not None else []
    return list(value) if field.is_repeated else [value]
