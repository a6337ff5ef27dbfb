"""What a newer caller asks for and this version does not know: refused by name, never dropped.

Protobuf keeps a field that it does not know and says nothing. A plan made without it would be
another one than the caller has asked for, and look like it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from hostlerd.runtime.errors import Code, DomainError, Violation
from hostlerd.runtime.host import daemon_version

_MOST_TOLD, _MOST_SHOWN = 20, 3
_OURS = "hostler."


class NotKnownHere(DomainError):
    """The request has a field, or a value of an enumeration, that came after this version."""

    code, reason = Code.INVALID_ARGUMENT, "NOT_KNOWN_HERE"


def refuse_unknown(request: Message, *, changes: bool) -> None:
    """Raise NotKnownHere for what this version does not know in a request, however deep it is.

    A request that only reads may have fields that are not known here: it is answered as without
    them, so that a newer client can look at an older host. Values of enumerations are asked for
    in so many words, and there is no answer as without them.
    """
    faults = list(islice(_faults(request, changes=changes), _MOST_TOLD))
    if not faults:
        return
    version = daemon_version()
    todo = f"of this daemon's version, {version}: upgrade the host's packages, or leave it out"
    violations = [Violation(each.field, f"{each.description} {todo}") for each in faults]
    message = "; ".join(f"{each.field}: {each.description}" for each in violations[:_MOST_SHOWN])
    raise NotKnownHere(message, violations=violations, daemon_version=version)


def _faults(request: Message, *, changes: bool) -> Iterator[Violation]:
    if request.DESCRIPTOR.full_name.startswith(_OURS):
        if changes and _has_unknown_fields(request):
            yield from _unknown_fields(request, "")
        yield from _unknown_values(request, "")


def _has_unknown_fields(request: Message) -> bool:
    """Whether there is one at any depth: found in C, since a large request has a million fields."""
    known = type(request)()
    known.CopyFrom(request)
    known.DiscardUnknownFields()
    return known.ByteSize() != request.ByteSize()


def _unknown_fields(message: Message, path: str) -> Iterator[Violation]:
    of = message.DESCRIPTOR.full_name
    unknown: Any = UnknownFieldSet(message)
    for number in sorted({field.field_number for field in unknown}):
        yield Violation(f"{path}{number}", f"there is no field {number} in {of}")
    for field, _ in message.ListFields():
        if field.message_type is not None:
            for place, inner in _each(message, field, path):
                yield from _unknown_fields(inner, f"{place}.")


def _unknown_values(message: Message, path: str) -> Iterator[Violation]:
    for field in _leading_to_enums(message.DESCRIPTOR):
        if field.has_presence and not message.HasField(field.name):
            continue
        enum = _enum(field)
        for place, value in _each(message, field, path):
            if enum is None:
                yield from _unknown_values(value, f"{place}.")
            elif value not in enum.values_by_number:
                yield Violation(place, f"there is no value {value} of {enum.full_name}")


def _each(message: Message, field: FieldDescriptor, path: str) -> Iterator[tuple[str, Any]]:
    """The values of a field, of a map those of its entries, each with its path."""
    value = getattr(message, field.name)
    place = f"{path}{field.name}"
    entry = _entry(field)
    if entry is not None:
        if entry.message_type is not None or entry.enum_type is not None:
            for key in value:
                yield f"{place}[{key}]", value[key]
    elif field.is_repeated:
        for at, one in enumerate(value):
            yield f"{place}[{at}]", one
    else:
        yield place, value


def _entry(field: FieldDescriptor) -> FieldDescriptor | None:
    """The value of a map's entries; None for what is no map."""
    of = field.message_type
    if of is None or not of.GetOptions().map_entry:
        return None
    return of.fields_by_name["value"]


def _enum(field: FieldDescriptor) -> EnumDescriptor | None:
    """The enumeration that a field's values, of a map its entries', are of."""
    return (_entry(field) or field).enum_type


@cache
def _leading_to_enums(of: Descriptor) -> tuple[FieldDescriptor, ...]:
    """The fields of a message that are of an enumeration, or of messages that lead to one."""
    return tuple(
        field
        for field in of.fields
        if _enum(field) is not None
        or (field.message_type is not None and _has_enum(field.message_type))
    )


def _has_enum(of: Descriptor) -> bool:
    seen: dict[str, Descriptor] = {}
    waiting = [of]
    while waiting:
        one = waiting.pop()
        if one.full_name not in seen:
            seen[one.full_name] = one
            waiting += [f.message_type for f in one.fields if f.message_type is not None]
    return any(field.enum_type is not None for one in seen.values() for field in one.fields)
