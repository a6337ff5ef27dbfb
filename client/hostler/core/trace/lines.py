"""Events as lines of text, as sysdig and as strace write them. Pure.

Paths are those that the trace resolved, where strace shows what the program passed; what an
argument points to and the trace does not keep is an address.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from hostler.core.trace import arguments, calls, times
from hostler.core.trace.events import Events, Flag
from hostler.core.trace.fields_args import all_words, path_of
from hostler.core.trace.syscalls import Argument, Syscall

DEFAULT_BYTES = 32
"""How much of a text strace shows unless it is told otherwise (-s)."""

# Arithmetic with members of Flag takes microseconds, for each line that is written.
_UNFINISHED, _ENTRY_LOST = int(Flag.UNFINISHED), int(Flag.ENTRY_LOST)
_PATH_CUT, _DATA_CUT = int(Flag.PATH_CUT), int(Flag.DATA_CUT)
_O_CREAT, _O_TMPFILE = 0o100, 0o20200000
# F_GETFD, F_GETFL, F_GETOWN, F_GETSIG, F_GETLEASE, F_GETPIPE_SZ, F_GET_SEALS.
_FCNTL_ALONE = frozenset((1, 3, 9, 11, 1025, 1032, 1034))
# Calls that answer an address.
_ADDRESSES = frozenset(("mmap", "mmap2", "mremap", "brk", "shmat"))
# Arguments that hold what was read or written.
_BUFFERS = frozenset(("buf", "buff", "ubuf", "vec", "msg", "mmsg"))


@dataclass(frozen=True, slots=True)
class Style:
    """How lines are written. `most_bytes` is how much of paths and data is shown (-s).

    `is_ascii` shows a dot for each byte that is not printable (--ascii), not its number.
    """

    most_bytes: int = DEFAULT_BYTES
    is_ascii: bool = False


def sysdig_lines(events: Events) -> Iterator[str]:
    """Each event as sysdig does: number, time, CPU, process, thread, direction, call, arguments."""
    now = times.finished(events)
    for event in range(len(events)):
        process = events.processes[events["process"][event]]
        name = _text(events.texts[process["name"]]) or "<NA>"
        finished = not int(events["flags"][event]) & _UNFINISHED
        yield " ".join(
            (
                str(events["number"][event]),
                times.clock(int(now[event])),
                str(events["cpu"][event]),
                f"{name} ({events['tid'][event]})",
                "<" if finished else ">",
                calls.sysdig_name(calls.code_of(events, event)),
                _text(all_words(events, event)),
            )
        )


def strace_lines(events: Events, style: Style | None = None) -> Iterator[str]:
    """Each event as `strace -f -tt -T` does: thread, time, call, result and how long it took."""
    chosen = style or Style()
    for event in range(len(events)):
        when = times.clock(int(events["time_ns"][event]), 6)
        yield f"{events['tid'][event]} {when} {_call(events, event, chosen)}"


def _call(events: Events, event: int, style: Style) -> str:
    call, is_32_bit = arguments.call_of(events, event)
    flags = int(events["flags"][event])
    name = call.name if call else calls.name(calls.code_of(events, event))
    if flags & _ENTRY_LOST:
        told = "..."
    else:
        told = ", ".join(_arguments(events, event, call, is_32_bit, style))
    took = int(events["latency_ns"][event])
    tail = "" if flags & (_UNFINISHED | _ENTRY_LOST) else f" <{took / 1e9:.6f}>"
    return f"{name}({told}) = {_result(events, event, name)}{tail}"


def _arguments(
    events: Events, event: int, call: Syscall | None, is_32_bit: bool, style: Style
) -> Iterator[str]:
    if call is None or call.arguments is None:
        yield from (f"{int(events[f'arg{index}'][event]):#x}" for index in range(6))
        return
    for index, argument in enumerate(call.arguments):
        raw = int(events[f"arg{index}"][event])
        if _is_idle(events, event, call, argument):
            continue
        number = arguments.signed(raw, argument, is_32_bit)
        pointed = _pointed(events, event, call, index, style)
        yield arguments.in_words(call.name, argument, number) if pointed is None else pointed


def _is_idle(events: Events, event: int, call: Syscall, argument: Argument) -> bool:
    """Whether an argument says nothing: a mode where no file may be made, such as strace skips."""
    if call.name in ("fcntl", "fcntl64"):
        return argument.name == "arg" and int(events["arg1"][event]) in _FCNTL_ALONE
    position = {"open": 1, "openat": 2}.get(call.name)
    if position is None or argument.kind != "mode":
        return False
    flags = int(events[f"arg{position}"][event])
    return not flags & _O_CREAT and flags & _O_TMPFILE != _O_TMPFILE


def _pointed(events: Events, event: int, call: Syscall, index: int, style: Style) -> str | None:
    """What an argument points to, in quotation marks; None if the trace does not have it."""
    argument = (call.arguments or ())[index]
    if argument.kind == "path":
        path = path_of(events, event, call, index)
        cut = bool(int(events["flags"][event]) & _PATH_CUT)
        return arguments.quoted(path, is_ascii=style.is_ascii) + "..." * cut if path else None
    data = events.texts[int(events["data"][event])] if argument.name in _BUFFERS else b""
    if not data:
        return None
    told = arguments.quoted(data, style.most_bytes, is_ascii=style.is_ascii)
    is_cut = int(events["flags"][event]) & _DATA_CUT and not told.endswith("...")
    return told + "..." * bool(is_cut)


def _result(events: Events, event: int, name: str) -> str:
    if int(events["flags"][event]) & _UNFINISHED:
        return "?"
    result = int(events["result"][event])
    if -arguments.MOST_ERRNO <= result < 0:
        error = arguments.error_name(-result)
        if -result >= _FIRST_INNER_ERROR:
            return f"? {error} (to be restarted)"
        return f"-1 {error} ({os.strerror(-result)})"
    return f"{result % (1 << 64):#x}" if name in _ADDRESSES else str(result)


_FIRST_INNER_ERROR = 512


def _text(text: bytes) -> str:
    """A text on one line: what is not printable, and might move a terminal's cursor, is escaped."""
    decoded = text.decode(errors="backslashreplace")
    if decoded.isprintable():
        return decoded
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in decoded)
