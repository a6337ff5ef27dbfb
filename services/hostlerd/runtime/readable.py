"""What every request must be before anybody looks into it: of its type, with times that exist."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from hostlerd.runtime.errors import Code, DomainError, InvalidRequest, Violation

# Source: google/protobuf/timestamp.proto and duration.proto.
_YEAR_1, _YEAR_9999_ENDS = -62_135_596_800, 253_402_300_799
_MOST_SECONDS = 315_576_000_000
_MOST_NANOS = 999_999_999
# A request of 4 MiB has room for a million of them.
_MOST_TOLD = 20


class RequestUnreadable(DomainError):
    """The bytes of the request are no message of the method's type."""

    code, reason = Code.INVALID_ARGUMENT, "REQUEST_UNREADABLE"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for bytes that are no message; `empty` is one of their type, with nothing set.

    gRPC would answer UNKNOWN by itself, with a parser's words, before anybody has asked who calls.
    """

    empty: Message
    size_bytes: int

    def error(self) -> RequestUnreadable:
        """What the caller is told once it may know."""
        name = self.empty.DESCRIPTOR.full_name
        return RequestUnreadable(
            f"the {self.size_bytes} bytes of the request are no {name}",
            type=name,
            size_bytes=self.size_bytes,
        )


def reading(parse: Callable[[bytes], Message]) -> Callable[[bytes], Message | Unreadable]:
    """Have a parser answer what it cannot read as such, instead of raising."""

    def read(data: bytes) -> Message | Unreadable:
        try:
            return parse(data)
        except DecodeError:
            return Unreadable(parse(b""), len(data))

    return read


def require_times(request: Message) -> None:
    """Raise InvalidRequest that names the Timestamps and Durations outside of their types' range.

    They are numbers on the wire, of which most are no time: converting one of those raises.
    """
    if violations := list(islice(_violations(request, ""), _MOST_TOLD)):
        raise InvalidRequest.of(violations)


def _violations(message: Any, path: str) -> Iterator[Violation]:
    if isinstance(message, Timestamp):
        if not (
            _YEAR_1 <= message.seconds <= _YEAR_9999_ENDS and 0 <= message.nanos <= _MOST_NANOS
        ):
            yield Violation(path, "is no time of the years 1 to 9999")
        return
    if isinstance(message, Duration):
        if not _is_duration(message.seconds, message.nanos):
            yield Violation(path, "is no duration: at most 10,000 years, its parts of one sign")
        return
    for field in _on_the_way(message.DESCRIPTOR):
        for where, inner in _inside(message, field):
            yield from _violations(inner, f"{path}.{where}" if path else where)


def _is_duration(seconds: int, nanos: int) -> bool:
    return abs(seconds) <= _MOST_SECONDS and abs(nanos) <= _MOST_NANOS and seconds * nanos >= 0


def _inside(message: Any, field: FieldDescriptor) -> Iterator[tuple[str, Any]]:
    if not field.is_repeated:
        if message.HasField(field.name):
            yield field.name, getattr(message, field.name)
    elif field.message_type is not None and field.message_type.GetOptions().map_entry:
        for key, value in getattr(message, field.name).items():
            yield f"{field.name}[{key!r}]", value
    else:
        for index, item in enumerate(getattr(message, field.name)):
            yield f"{field.name}[{index}]", item


@cache
def _on_the_way(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    """The fields of a type that are times or may hold some: the others cost nothing."""
    return tuple(f for f in descriptor.fields if _holds_times(f, frozenset()))


def _holds_times(field: FieldDescriptor, above: frozenset[str]) -> bool:
    kind = field.message_type
    if kind is None or kind.full_name in above:
        return False
    if kind.full_name in (Timestamp.DESCRIPTOR.full_name, Duration.DESCRIPTOR.full_name):
        return True
    return any(_holds_times(inner, above | {kind.full_name}) for inner in kind.fields)
