"""The fields of an event's arguments and data: evt.arg.NAME, evt.rawarg.NAME, evt.args … Pure.

Arguments have the names that the kernel has for them; `name`, `path`, `oldpath`, `newpath` and
`size`, as sysdig has it, do as well. `res` is the result, `data` what was read or written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from hostler.core.trace import arguments, calls
from hostler.core.trace.events import Column, Events, Flag
from hostler.core.trace.field import ArgumentInvalid, Family, Field, Kind, Need, single
from hostler.core.trace.fields_fd import type_char
from hostler.core.trace.nearest import suggestion
from hostler.core.trace.syscalls import Syscall, all_syscalls
from hostler.core.trace.values import Numbers, Words, by_event, texts

MOST_DATA_BYTES = 80
"""How much of the data evt.args shows, as sysdig does."""

# Arithmetic with members of Flag takes microseconds, for each event.
_UNFINISHED, _ENTRY_LOST = int(Flag.UNFINISHED), int(Flag.ENTRY_LOST)
_PATHS = {"name": 0, "path": 0, "oldpath": 0, "newpath": 1}
_SIZES = ("count", "size", "len")


@cache
def _names() -> frozenset[str]:
    found = {a.name for call in all_syscalls().values() for a in call.arguments or ()}
    return frozenset(found | {*_PATHS, "size", "res", "data"})


def index_of(call: Syscall, name: str) -> int | None:
    """Answer which argument of a call has a name, its own or sysdig's; None if none has."""
    own = [argument.name for argument in call.arguments or ()]
    if name in own:
        return own.index(name)
    if name in _PATHS:
        return call.index_of("path", _PATHS[name])
    if name == "size":
        return next((own.index(size) for size in _SIZES if size in own), None)
    return None


def path_of(events: Events, event: int, call: Syscall, index: int) -> bytes:
    """The text of an argument that is a path; empty if it is not known, or is none."""
    for column, nth in (("path", 0), ("path2", 1)):
        if call.index_of("path", nth) == index:
            return events.texts[int(events[column][event])]
    return b""


def file_of(events: Events, event: int) -> str:
    """The file of an event as sysdig shows it, `<f>/etc/passwd`; empty if it is not known."""
    row = int(events["file"][event])
    if not row:
        return ""
    file = events.files[row]
    name = events.texts[file["name"]].decode(errors="surrogateescape")
    return f"<{type_char(int(file['type']))}>{name}"


def result_words(events: Events, event: int) -> tuple[str, str]:
    """The result of an event: a number, and what it means, empty if there is nothing to say."""
    result = int(events["result"][event])
    if -arguments.MOST_ERRNO <= result < 0:
        return str(result), arguments.error_name(-result)
    code = calls.code_of(events, event)
    return str(result), file_of(events, event) if calls.name(code) in calls.OPENS else ""


def argument_words(events: Events, event: int, index: int) -> tuple[str, str]:
    """An argument of an event that has it: its value in words, and what it refers to."""
    call, is_32_bit = arguments.call_of(events, event)
    if call is None or call.arguments is None:
        raise ValueError("the call's arguments are not known")
    argument = call.arguments[index]
    if path := path_of(events, event, call, index):
        return path.decode(errors="surrogateescape"), ""
    raw = int(events[f"arg{index}"][event])
    number = arguments.signed(raw, argument, is_32_bit)
    is_its_fd = argument.kind in ("fd", "dirfd") and number == events["fd"][event] >= 0
    refers = file_of(events, event) if is_its_fd and call.name not in calls.OPENS else ""
    return arguments.in_words(call.name, argument, number), refers


def all_words(events: Events, event: int) -> bytes:
    """All arguments of an event, its result and its data, as sysdig shows them."""
    parts = []
    call, _ = arguments.call_of(events, event)
    flags = int(events["flags"][event])
    if call is not None and not flags & _ENTRY_LOST:
        for index, argument in enumerate(call.arguments or ()):
            parts.append((argument.name, *argument_words(events, event, index)))
    if not flags & _UNFINISHED:
        parts.append(("res", *result_words(events, event)))
    told = " ".join(f"{n}={value}{f'({more})' if more else ''}" for n, value, more in parts)
    data = events.texts[events["data"][event]]
    if data:
        told += f" data={arguments.plain(data[:MOST_DATA_BYTES])}"
    return told.encode(errors="surrogateescape")


def calls_with_argument(name: str) -> frozenset[str]:
    """The kernel's names of the calls that have an argument of a name."""
    each = all_syscalls().values()
    return frozenset(call.name for call in each if index_of(call, name) is not None)


def _words(events: Events, name: str) -> Words:
    indices = _indices(name)
    if name == "data":
        return texts(events, events["data"])

    def text(event: int) -> bytes | None:
        if name == "res":
            if int(events["flags"][event]) & _UNFINISHED:
                return None
            value, more = result_words(events, event)
            return (more or value).encode(errors="surrogateescape")
        index = int(indices[calls.code_of(events, event)])
        if index < 0 or int(events["flags"][event]) & _ENTRY_LOST:
            return None
        value, more = argument_words(events, event, index)
        return (more or value).encode(errors="surrogateescape")

    return by_event(events, text)


def _raw(events: Events, name: str) -> Numbers:
    if name == "res":
        return Numbers(events["result"], events["flags"] & Flag.UNFINISHED == 0)
    codes = calls.codes(events)
    indices, widths = _indices(name)[codes], _widths(name)[codes]
    column = np.zeros(len(events), np.int64)
    for index in range(6):
        column = np.where(indices == index, events[f"arg{index}"].view(np.int64), column)
    low = column & 0xFFFFFFFF
    column = np.where(widths == _SIGNED_32, low.astype(np.uint32).view(np.int32), column)
    column = np.where(widths == _UNSIGNED_32, low, column)
    return Numbers(column, (indices >= 0) & (events["flags"] & Flag.ENTRY_LOST == 0))


@cache
def _indices(name: str) -> Column:
    """Which argument of each call, by its code, has a name; -1 for none."""
    return _by_code(lambda call, is_32_bit: index_of(call, name), -1)


_SIGNED_32, _UNSIGNED_32, _WHOLE = 1, 2, 3


@cache
def _widths(name: str) -> Column:
    """How to read that argument of each call."""

    def width(call: Syscall, is_32_bit: bool) -> int:
        index = index_of(call, name)
        if index is None or call.arguments is None:
            return _WHOLE
        argument = call.arguments[index]
        if arguments.signed(0xFFFFFFFF, argument, is_32_bit) < 0:
            return _SIGNED_32
        return _UNSIGNED_32 if is_32_bit else _WHOLE

    return _by_code(width, _WHOLE)


def _by_code(answer: Callable[[Syscall, bool], int | None], otherwise: int) -> Column:
    table = np.full(calls.CODES, otherwise, np.int8)
    for code in calls.known_codes():
        call = calls.known(code)
        found = None if call is None else answer(call, code >= calls.IS_32_BIT)
        table[code] = otherwise if found is None else found
    return table


def _checked(argument: str) -> str:
    if argument.isdigit():
        raise ArgumentInvalid(
            "arguments go by name, as evt.arg.flags: numbers differ from sysdig's"
        )
    if argument not in _names():
        raise ArgumentInvalid(
            f"no call has an argument {argument!r}{suggestion(argument, _names())}"
        )
    return argument


def _arg(argument: str) -> Field:
    name = _checked(argument)
    return single(
        f"evt.arg.{name}",
        Kind.TEXT,
        "an argument in words",
        partial(_words, name=name),
        needs=Need.DATA if name == "data" else Need.NOTHING,
        is_costly=name != "data",
    )


def _rawarg(argument: str) -> Field:
    name = _checked(argument)
    if name == "data":
        raise ArgumentInvalid("data is no number: say evt.buffer")
    read = partial(_raw, name=name)
    return single(f"evt.rawarg.{name}", Kind.INTEGER, "an argument as a number", read)


def _all(events: Events) -> Words:
    return by_event(events, partial(all_words, events))


FIELDS: tuple[Field, ...] = (
    single("evt.args", Kind.TEXT, "all arguments, result and data", _all, is_costly=True),
    single("evt.info", Kind.TEXT, "the same as evt.args", _all, is_costly=True),
    single(
        "evt.buffer",
        Kind.BYTES,
        "what was read or written",
        lambda events: texts(events, events["data"]),
        needs=Need.DATA,
    ),
)

FAMILIES: tuple[Family, ...] = (
    Family("evt.arg", ".NAME", Kind.TEXT, "an argument in words, as O_RDONLY|O_CLOEXEC", _arg),
    Family("evt.rawarg", ".NAME", Kind.INTEGER, "an argument as a number", _rawarg),
)
