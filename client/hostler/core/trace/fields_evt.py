"""The fields of the event itself: evt.*, syscall.type. Pure.

To sysdig a call is two events, `>` when it is made and `<` when it returns. Here it is one, which
answers as sysdig's `<` does: evt.rawtime is when it returned, evt.cpu where. A call that did not
return, such as exit_group, answers as `>` does. evt.num counts calls.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hostler.core.trace import arguments, calls, times
from hostler.core.trace.events import Column, Events, FileType, Flag
from hostler.core.trace.field import ArgumentInvalid, Family, Field, Kind, single
from hostler.core.trace.fields_syslog import is_syslog
from hostler.core.trace.nearest import suggestion
from hostler.core.trace.values import Numbers, Words, by_event, flags, texts

_FILES = (FileType.FILE, FileType.DIRECTORY, FileType.DEVICE)
_SOCKETS = (FileType.IPV4, FileType.IPV6, FileType.UNIX)
# I/O belongs to what the fd is.
_IO_CATEGORIES = {
    **dict.fromkeys((FileType.FILE, FileType.DIRECTORY, FileType.DEVICE), "file"),
    **dict.fromkeys((FileType.IPV4, FileType.IPV6), "net"),
    **dict.fromkeys((FileType.UNIX, FileType.PIPE, FileType.EVENT), "ipc"),
    **dict.fromkeys((FileType.SIGNAL, FileType.INOTIFY), "ipc"),
}


def _is_finished(events: Events) -> Column:
    mask: Column = events["flags"] & Flag.UNFINISHED == 0
    return mask


def _has_latency(events: Events) -> Column:
    mask: Column = events["flags"] & (Flag.UNFINISHED | Flag.ENTRY_LOST) == 0
    return mask


def _latency(events: Events, part: Callable[[Column], Column]) -> Numbers:
    return Numbers(part(events["latency_ns"]), _has_latency(events))


def _latency_for_people(events: Events) -> Words:
    known, latency = _has_latency(events), events["latency_ns"]
    return by_event(
        events, lambda i: times.duration(int(latency[i])).encode() if known[i] else None
    )


def _wait_latency(events: Events) -> Numbers:
    waits = calls.among(events, calls.WAITS)
    return Numbers(events["latency_ns"], waits & _has_latency(events))


def _rawtime(events: Events, part: Callable[[Column], Column]) -> Numbers:
    return Numbers(part(times.finished(events)))


def _reltime(events: Events, part: Callable[[Column], Column]) -> Numbers:
    now, start = times.finished(events), np.uint64(events.start_ns)
    return Numbers(part(now - start), (now >= start) & bool(events.start_ns))


def _time(events: Events, text: Callable[[int], str]) -> Words:
    column = times.finished(events)
    return by_event(events, lambda i: text(int(column[i])).encode())


def _whole(column: Column) -> Column:
    return column


def _seconds(column: Column) -> Column:
    seconds: Column = column // np.uint64(times.SECOND_NS)
    return seconds


def _fraction(column: Column) -> Column:
    fraction: Column = column % np.uint64(times.SECOND_NS)
    return fraction


def _direction(events: Events) -> Words:
    return Words((~_is_finished(events)).astype(np.uint8), 2, lambda code: b"<>"[code : code + 1])


def _category(events: Events) -> Words:
    codes, types = calls.codes(events), events.of_file("type").astype(np.int64)

    def text(code: int) -> bytes:
        category = calls.category(code % calls.CODES)
        if category in calls.IO_CATEGORIES:
            category = _IO_CATEGORIES.get(FileType(code // calls.CODES), "unknown")
        return category.encode()

    return Words(codes + types * calls.CODES, calls.CODES * (max(FileType) + 1), text)


def _no_category(name: str) -> str | None:
    known = {*calls.categories().values(), *_IO_CATEGORIES.values(), "unknown", "scheduler"}
    known -= {*calls.IO_CATEGORIES}
    if name in known:
        return None
    return f"there is no category {name[:40]!r}; there are {', '.join(sorted(known))}"


def _result_word(events: Events) -> Words:
    result = np.clip(events["result"], -arguments.MOST_ERRNO - 1, 0)
    failed = np.where(result < -arguments.MOST_ERRNO, 0, -result)
    codes = np.where(_is_finished(events), failed + 1, 0)

    def text(code: int) -> bytes | None:
        if code < 2:
            return b"SUCCESS" if code else None
        return arguments.error_name(code - 1).encode()

    return Words(codes, arguments.MOST_ERRNO + 2, text)


def _io_direction(events: Events) -> Words:
    reads, writes = calls.among(events, calls.READS), calls.among(events, calls.WRITES)
    codes = np.where(writes, 2, reads.astype(np.uint8))
    return Words(codes, 3, lambda code: (None, b"read", b"write")[code])


def _buffer_length(events: Events) -> Numbers:
    does_io = calls.among(events, calls.READS | calls.WRITES)
    known = does_io & (events["file"] > 0) & (events["result"] >= 0) & _is_finished(events)
    return Numbers(events["result"], known)


def _one_where(mask: Column) -> Numbers:
    return Numbers(np.ones(len(mask), np.uint8), mask)


def _areas(events: Events) -> dict[str, Column]:
    """Which events are about files, about sockets, about memory and about neither: masks."""
    types, is_known = events.of_file("type"), events["file"] > 0
    opens, connects = calls.among(events, calls.OPENS), calls.among(events, calls.CONNECTS)
    in_file = np.where(is_known, np.isin(types, _FILES), opens)
    in_net = np.where(is_known, np.isin(types, _SOCKETS), connects)
    in_memory = calls.of_category(events, "memory")
    return {
        "file": in_file,
        "net": in_net,
        "memory": in_memory,
        # To sysdig a failed mmap of a pipe is both memory and other.
        "other": ~in_file & ~in_net & (is_known | ~in_memory),
    }


def _errors(events: Events, area: str | None = None) -> Numbers:
    is_error = arguments.failed(events)
    return _one_where(is_error if area is None else is_error & _areas(events)[area])


def _open_flags(events: Events) -> Column:
    """The flags of open and openat; of other calls, and of openat2, which points to them, 3."""
    by_open, by_openat = _is(events, "open"), _is(events, "openat")
    return np.select([by_open, by_openat], [events["arg1"], events["arg2"]], np.uint64(3))


def _opens_for(events: Events, *access: int) -> Column:
    # As in sysdig, whether it succeeds or not. What is opened with O_PATH is neither.
    how = _open_flags(events)
    mask: Column = np.isin(how & np.uint64(3), access) & (how & np.uint64(0o10000000) == 0)
    return mask


def _makes_executable(events: Events) -> Column:
    creates = (_open_flags(events) & np.uint64(0o100) != 0) | _is(events, "creat")
    mode = np.select(
        [_is(events, "openat"), _is(events, "creat")],
        [events["arg3"], events["arg1"]],
        events["arg2"],
    )
    mask: Column = creates & (mode & np.uint64(0o111) != 0)
    return mask


def _is(events: Events, name: str) -> Column:
    return calls.among(events, frozenset({name}))


def _absolute(events: Events) -> Words:
    """The path of calls that have one: of those with two, sysdig wants to know which."""
    return texts(events, np.where(events["path2"] > 0, 0, events["path"]))


def _abspath(argument: str) -> Field:
    columns = {"src": "path", "dst": "path2"}
    if argument not in columns:
        raise ArgumentInvalid(f"it is src or dst, not {argument!r}")
    return single(
        f"evt.abspath.{argument}",
        Kind.TEXT,
        "the first path of a call that has two" if argument == "src" else "the second one",
        lambda events: texts(events, np.where(events["path2"] > 0, events[columns[argument]], 0)),
    )


def _type_is(argument: str) -> Field:
    if argument not in calls.sysdig_names():
        raise ArgumentInvalid(
            f"no call is named {argument!r}{suggestion(argument, calls.sysdig_names())}"
        )
    names = calls.called_by_sysdig(argument)
    return single(
        f"evt.type.is.{argument}",
        Kind.INTEGER,
        f"1 if it is {argument}, else 0",
        lambda events: flags(calls.among(events, names)),
    )


def _around(argument: str) -> Field:
    if not argument.isascii() or not argument.isdigit() or len(argument) > 19:
        raise ArgumentInvalid(
            "it takes a time as evt.rawtime has it: evt.around[TIME]=MILLISECONDS"
        )
    time_ns = np.uint64(int(argument))

    def read(events: Events) -> Numbers:
        now = times.finished(events)
        apart = np.where(now > time_ns, now - time_ns, time_ns - now)
        return Numbers(apart)

    return single(f"evt.around[{argument}]", Kind.NEARNESS, "how far from a time it is", read)


def _flag(name: str, meaning: str, mask: Callable[[Events], Column]) -> Field:
    return single(name, Kind.BOOL, meaning, lambda events: flags(mask(events)))


_Part = Callable[[Column], Column]


def _parts(
    name: str, kind: Kind, meaning: str, read: Callable[[Events, _Part], Numbers]
) -> tuple[Field, ...]:
    """A field of nanoseconds, and those of its seconds and of the rest."""
    return (
        single(name, kind, meaning, lambda events: read(events, _whole)),
        single(f"{name}.s", Kind.INTEGER, "its seconds", lambda events: read(events, _seconds)),
        single(f"{name}.ns", Kind.INTEGER, "its rest", lambda events: read(events, _fraction)),
    )


def _as_text(name: str, meaning: str, text: Callable[[int], str]) -> Field:
    return single(name, Kind.TEXT, meaning, lambda events: _time(events, text), is_costly=True)


def _errors_in(area: str, meaning: str) -> Field:
    name = f"evt.count.error.{area}"
    return single(name, Kind.INTEGER, meaning, lambda events: _errors(events, area))


_TIMES: tuple[Field, ...] = (
    *_parts("evt.rawtime", Kind.TIME, "when the call returned, in ns since 1970", _rawtime),
    *_parts("evt.reltime", Kind.DURATION, "the same since the trace began", _reltime),
    _as_text("evt.time", "the time of day (UTC), as 13:37:00.123456789", times.clock),
    _as_text("evt.time.s", "without the fraction", lambda t: times.clock(t, 0)),
    _as_text(
        "evt.datetime", "with the date before it", lambda t: f"{times.date(t)} {times.clock(t)}"
    ),
    _as_text(
        "evt.datetime.s", "without the fraction", lambda t: f"{times.date(t)} {times.clock(t, 0)}"
    ),
    _as_text("evt.time.iso8601", "as ISO 8601", lambda t: f"{times.date(t)}T{times.clock(t)}+0000"),
    *_parts("evt.latency", Kind.DURATION, "how long the call took", _latency),
    single(
        "evt.latency.human", Kind.TEXT, "the same as 10.3ms", _latency_for_people, is_costly=True
    ),
    single("evt.wait_latency", Kind.DURATION, "evt.latency of calls that wait", _wait_latency),
)

_CALLS: tuple[Field, ...] = (
    single("evt.num", Kind.INTEGER, "counts the calls", lambda events: Numbers(events["number"])),
    single("evt.dir", Kind.TEXT, "< for a call that returned, > for one that did not", _direction),
    single(
        "evt.type",
        Kind.TEXT,
        "the call as sysdig names it: accept for accept4, pread for pread64",
        lambda events: calls.by_call(events, calls.sysdig_name),
        objection=calls.not_named_by_sysdig,
    ),
    single(
        "syscall.type",
        Kind.TEXT,
        "the same as evt.type: every event is a call",
        lambda events: calls.by_call(events, calls.sysdig_name),
        objection=calls.not_named_by_sysdig,
    ),
    single(
        "evt.syscall.name",
        Kind.TEXT,
        "the call as the kernel names it",
        lambda events: calls.by_call(events, calls.name),
        objection=calls.not_named,
    ),
    single(
        "evt.syscall.number",
        Kind.INTEGER,
        "its number",
        lambda events: Numbers(events["syscall"]),
    ),
    _flag(
        "evt.syscall.is32",
        "whether a 32-bit program's numbers are meant",
        lambda events: events["flags"] & Flag.IS_32_BIT != 0,
    ),
    single(
        "evt.category",
        Kind.TEXT,
        "file, net, IPC, memory, process, wait …",
        _category,
        objection=_no_category,
    ),
    single("evt.cpu", Kind.INTEGER, "on which CPU", lambda events: Numbers(events["cpu"])),
    single("evt.abspath", Kind.TEXT, "the path of a call that has one path", _absolute),
    _flag(
        "evt.is_wait",
        "whether it waits, as poll and nanosleep",
        lambda e: calls.among(e, calls.WAITS),
    ),
    _flag("evt.is_syslog", "whether it writes to /dev/log", is_syslog),
    _flag("evt.is_open_read", "whether it opens for reading", lambda e: _opens_for(e, 0, 2)),
    _flag("evt.is_open_write", "whether it opens for writing", lambda e: _opens_for(e, 1, 2)),
    _flag("evt.is_open_exec", "whether it makes an executable file", _makes_executable),
)

_RESULTS: tuple[Field, ...] = (
    single(
        "evt.res",
        Kind.TEXT,
        "SUCCESS, or the error as ENOENT",
        _result_word,
        objection=arguments.not_a_result,
    ),
    single(
        "evt.rawres",
        Kind.INTEGER,
        "the result; an error is a negative number",
        lambda events: Numbers(events["result"], _is_finished(events)),
    ),
    _flag("evt.failed", "whether it answered an error", arguments.failed),
    _flag(
        "evt.is_io",
        "whether it reads or writes",
        lambda e: calls.among(e, calls.READS | calls.WRITES),
    ),
    _flag("evt.is_io_read", "whether it reads", lambda e: calls.among(e, calls.READS)),
    _flag("evt.is_io_write", "whether it writes", lambda e: calls.among(e, calls.WRITES)),
    single("evt.io_dir", Kind.TEXT, "read or write", _io_direction),
    single("evt.buflen", Kind.INTEGER, "how many bytes were read or written", _buffer_length),
    single(
        "evt.count",
        Kind.INTEGER,
        "always 1, to be added up",
        lambda events: Numbers(np.ones(len(events), np.uint8)),
    ),
    single(
        "evt.count.exit",
        Kind.INTEGER,
        "1 for calls that returned",
        lambda events: _one_where(_is_finished(events)),
    ),
    single("evt.count.error", Kind.INTEGER, "1 for calls that failed", _errors),
    _errors_in("file", "1 for those that failed on a file"),
    _errors_in("net", "1 for those that failed on a socket"),
    _errors_in("memory", "1 for those that failed on memory"),
    _errors_in("other", "1 for those that failed on anything else"),
)

FIELDS: tuple[Field, ...] = (*_TIMES, *_CALLS, *_RESULTS)

FAMILIES: tuple[Family, ...] = (
    Family("evt.type.is", ".NAME", Kind.INTEGER, "1 if it is that call, else 0", _type_is),
    Family("evt.abspath", ".src or .dst", Kind.TEXT, "one path of a call that has two", _abspath),
    Family("evt.around", "[TIME]", Kind.NEARNESS, "= MILLISECONDS: so near to a time", _around),
)
