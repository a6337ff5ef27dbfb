"""Chisels run on calls made by hand or drawn by Hypothesis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from hypothesis import strategies as st
from trace_rows import Call, File, Process, batch

from hostler.core.trace.chisel import Chisel
from hostler.core.trace.chisel_registry import find
from hostler.core.trace.chisel_results import Lines, Result, Table
from hostler.core.trace.events import FileType, Flag

READS = ("read", "pread64", "recvfrom")
WRITES = ("write", "pwrite64", "sendto")
IP = (FileType.IPV4, FileType.IPV6)

PROCESSES = [Process(pid, name) for pid, name in ((1, "systemd"), (700, "bash"), (701, "bash"))]
FILES = [
    File(FileType.FILE, "/etc/passwd"),
    File(FileType.FILE, "/var/log/x"),
    File(FileType.PIPE, "pipe:[7]"),
    File(
        FileType.IPV4,
        "10.0.0.1:4000->10.0.0.2:80",
        6,
        local=(bytes([10, 0, 0, 1]), 4000),
        remote=(bytes([10, 0, 0, 2]), 80),
    ),
    File(
        FileType.IPV6,
        "::1:443->::2:5000",
        6,
        is_server=True,
        local=(bytes(15) + b"\1", 443),
        remote=(bytes(15) + b"\2", 5000),
    ),
    File(FileType.IPV4, "0.0.0.0:53->", 17),
]


RESULTS = st.just(0) | st.integers(-40, -1) | st.integers(1, 1 << 40)
LATENCIES_NS = st.sampled_from(
    (0, 1, 900_000_000, 1_999_999_999, 2_000_000_000, 2_000_000_001, 1 << 36)
)


@st.composite
def any_call(draw: st.DrawFn) -> Call:
    """A call as it may occur: some on files, some failed, some that did not return."""
    name = draw(st.sampled_from((*READS, *WRITES, "close", "fstat", "getpid", "openat", "futex")))
    file = None
    if name not in ("getpid", "openat", "futex"):
        file = draw(st.sampled_from([None, *FILES]))
    unfinished = draw(st.integers(0, 9)) == 0
    return Call(
        name,
        result=0 if unfinished else draw(RESULTS),
        process=draw(st.sampled_from([None, *PROCESSES])),
        file=file,
        fd=draw(st.integers(0, 5)) if file else -1,
        tid=draw(st.sampled_from((1, 700, 701, 702))),
        after_ns=draw(st.integers(0, 5_000_000_000)),
        latency_ns=0 if unfinished else draw(LATENCIES_NS),
        flags=Flag.UNFINISHED if unfinished else Flag(0),
    )


def many_calls(most: int = 40) -> st.SearchStrategy[list[Call]]:
    """Calls of a trace."""
    return st.lists(any_call(), max_size=most)


def run(name: str | Chisel, calls: Sequence[Call], *, cut: int = 0, **given: str) -> Result:
    """What a chisel answers, the calls being given in two batches that are cut somewhere."""
    chisel = find(name) if isinstance(name, str) else name
    running = chisel.start(given)
    for part in (calls[:cut], calls[cut:]):
        running.take(batch(part), "alpha")
    return running.result()


def table(name: str | Chisel, calls: Sequence[Call], *, cut: int = 0, **given: str) -> Table:
    """The same, of a chisel that answers a table."""
    result = run(name, calls, cut=cut, **given)
    assert isinstance(result, Table)
    assert all(len(row) == len(result.headings) for row in result.rows)
    return result


def lines(name: str | Chisel, calls: Sequence[Call], *, cut: int = 0, **given: str) -> Lines:
    """The same, of a chisel that answers lines."""
    result = run(name, calls, cut=cut, **given)
    assert isinstance(result, Lines)
    assert all(len(row) == len(result.headings) for row in result.rows)
    return result


def summed(
    calls: Iterable[Call],
    where: Callable[[Call], bool],
    key: Callable[[Call], Hashable],
    value: Callable[[Call], int],
) -> dict[Any, int]:
    """What the table is to say, added up call by call."""
    sums: Counter[Any] = Counter()
    for call in calls:
        if where(call) and key(call) is not None and value(call) > 0:
            sums[key(call)] += value(call)
    return dict(sums)


def once(call: Call) -> int:
    """Counts calls."""
    return 1


def transferred(call: Call) -> int:
    """How many bytes a call read or wrote."""
    return call.result


def took(call: Call) -> int:
    """How long a call took."""
    return call.latency_ns


def does_io(call: Call) -> bool:
    return call.name in READS + WRITES


def failed(call: Call) -> bool:
    return call.result < 0


def on(*types: FileType) -> Callable[[Call], bool]:
    return lambda call: call.file is not None and call.file.type in types


def io_on(*types: FileType) -> Callable[[Call], bool]:
    return lambda call: does_io(call) and on(*types)(call)


def process_of(call: Call) -> tuple[str, int] | None:
    return (call.process.name, call.process.pid) if call.process else None
