"""Rulesets: messages to documents and models to messages, field by field as the API names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from hostler.api.firewall.v1 import ruleset_pb2 as pb
from hostlerd.firewall.model.counter import summed
from hostlerd.firewall.model.document import to_document
from hostlerd.firewall.model.ruleset import Ruleset
from hostlerd.firewall.model.state import Counter, RuleKey
from hostlerd.firewall.plan import change
from hostlerd.firewall.plan.lint import Finding

_OUTPUT_ONLY = ("etag", "update_time")


def from_proto(message: Any) -> dict[str, Any]:
    """Answer the document of a message, a ruleset's or another's; nothing is judged here."""
    return {k: v for k, v in _document(message).items() if k not in _OUTPUT_ONLY}


def to_proto(ruleset: Ruleset, update_time: datetime | None = None) -> pb.Ruleset:
    """Answer the message of a ruleset."""
    message = pb.Ruleset()
    _fill(message, to_document(ruleset))
    message.etag = change.etag(ruleset)
    if update_time is not None:
        message.update_time.FromDatetime(update_time)
    return message


def finding(found: Finding) -> pb.Finding:
    """Answer the message of a finding."""
    return pb.Finding(
        code=found.code,
        message=found.message,
        rule=found.rule,
        field=found.field,
        refused=found.refused,
    )


def sums(counters: Mapping[RuleKey, Counter]) -> Iterable[pb.RuleCounter]:
    """Add up what one name counted in several chains; answers by name."""
    for label, counted in sorted(summed(counters).items()):
        yield counter(label, counted)


def counter(label: str, counted: Counter) -> pb.RuleCounter:
    """Answer the message of a rule's counter."""
    return pb.RuleCounter(rule=label, packets=counted.packets, bytes=counted.bytes)


def _document(message: Any) -> dict[str, Any]:
    return {f.name: _plain(f, value) for f, value in message.ListFields()}


def _plain(field: Any, value: Any) -> Any:
    if field.is_repeated:
        return [_one(field, each) for each in value]
    return _one(field, value)


def _one(field: Any, value: Any) -> Any:
    if field.enum_type is not None:
        return _word(field.enum_type, value)
    if isinstance(value, Timestamp):
        return value.seconds
    return value if field.message_type is None else _document(value)


def _word(enum: Any, number: int) -> str:
    """Answer a value of an enumeration as the word of documents; empty for unspecified."""
    known = enum.values_by_number.get(number)
    if known is None:
        return str(number)
    word = str(known.name).removeprefix(_prefix(enum)).lower()
    return "" if word == "unspecified" else word


def _prefix(enum: Any) -> str:
    return str(enum.values[0].name).removesuffix("UNSPECIFIED")


def _fill(message: Any, document: Mapping[str, Any]) -> None:
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in document.items():
        field = fields[name]
        if field.message_type is None:
            _set(message, field, value)
        elif field.is_repeated:
            for each in value:
                _fill(getattr(message, name).add(), each)
        elif field.message_type.full_name == Timestamp.DESCRIPTOR.full_name:
            getattr(message, name).FromSeconds(value)
        else:
            getattr(message, name).SetInParent()
            _fill(getattr(message, name), value)


def _set(message: Any, field: Any, value: Any) -> None:
    if field.enum_type is not None:
        names = field.enum_type.values_by_name
        value = (
            [names[_prefix(field.enum_type) + each.upper()].number for each in value]
            if field.is_repeated
            else names[_prefix(field.enum_type) + value.upper()].number
        )
    if field.is_repeated:
        getattr(message, field.name).extend(value)
    else:
        setattr(message, field.name, value)
