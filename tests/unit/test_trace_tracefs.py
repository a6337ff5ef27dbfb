"""Pages of the kernel's ring, and calls out of what is in them, without a kernel."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostlerd.tracing.kernel.tracefs import filters
from hostlerd.tracing.kernel.tracefs.formats import (
    FormatUnknown,
    PageFormat,
    event_format,
    page_format,
)
from hostlerd.tracing.kernel.tracefs.pages import walk
from hostlerd.tracing.kernel.tracefs.pairing import Paired, Pairing
from hostlerd.tracing.kernel.tracefs.records import ENTER, EXIT, RECORD
from hostlerd.tracing.model.capture import Filter

PAGE = PageFormat(8, 16, 4096)
SMALL = PageFormat(8, 16, 128)
HEADER_PAGE = (
    "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
    "\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n"
    "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
    "\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n"
)
ENTER_FORMAT = (
    "name: sys_enter\nID: 443\nformat:\n"
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
    "\tfield:long id;\toffset:8;\tsize:8;\tsigned:1;\n"
    "\tfield:unsigned long args[6];\toffset:16;\tsize:48;\tsigned:0;\n"
)
NO_32 = np.zeros(0, "<i4")


def page(time_ns: int, *entries: bytes, flags: int = 0) -> np.ndarray:
    data = b"".join(entries)
    whole = struct.pack("<QII", time_ns, len(data) | flags, 0) + data
    return np.frombuffer(whole.ljust(PAGE.size_bytes, b"\xff"), "<u4")


def entry(kind: int, delta: int, rest: bytes) -> bytes:
    return struct.pack("<I", kind | delta << 5) + rest


def test_entries_of_each_kind_have_their_time_and_place() -> None:
    """As include/linux/ring_buffer.h describes them."""
    first = page(
        1000,
        entry(2, 0, b"a" * 8),
        entry(29, 3, struct.pack("<I", 8) + b"discarded"[:4]),
        entry(30, 5, struct.pack("<I", 2)),
        entry(0, 7, struct.pack("<I", 12) + b"b" * 8),
        entry(31, 9, struct.pack("<I", 1)),
        entry(1, 1, b"c" * 4),
        entry(29, 0, b"\xff" * 8),
        flags=1 << 31,
    )
    found = walk(np.stack([first, page(5, entry(1, 0, b"d" * 4)), page(9)]), PAGE)
    flat = np.concatenate([first, page(5, entry(1, 0, b"d" * 4)), page(9)])
    told = sorted(
        (int(p), int(t), flat[w : w + 1].tobytes())
        for p, t, w in zip(found.page, found.time_ns, found.word, strict=True)
    )
    late = 1000 + 3 + 5 + (2 << 27) + 7
    stamp = 9 + (1 << 27)
    assert told == [
        *((0, 1000, b"aaaa"), (0, stamp + 1, b"cccc")),
        *((0, late, b"bbbb"), (1, 5, b"dddd")),
    ]


@settings(max_examples=300)
@given(st.integers(0, 3), st.binary(min_size=3 * 128, max_size=3 * 128))
def test_whatever_is_in_pages_nothing_is_read_past_them(count: int, data: bytes) -> None:
    words = np.frombuffer(data[: count * 128], "<u4").reshape(count, 32)
    found = walk(words, SMALL)
    assert len(found.word) <= count * 28
    assert (found.word > found.page * 32 + 4).all()
    assert (found.word < (found.page + 1) * 32).all()


def test_the_kernel_says_where_things_are() -> None:
    assert page_format(HEADER_PAGE) == PAGE
    form = event_format("raw_syscalls/sys_enter", ENTER_FORMAT)
    assert (form.number, form.at("common_pid", 4), form.at("args", 48)) == (443, 4, 16)
    with pytest.raises(FormatUnknown, match="args is not there with 24 bytes"):
        form.at("args", 24)
    with pytest.raises(FormatUnknown):
        page_format(HEADER_PAGE.replace("offset:16", "offset:18"))
    with pytest.raises(FormatUnknown):
        event_format("other", "field:int common_pid;")


def records(*rows: tuple[int, int, int, int]) -> np.ndarray:
    """Of (tid, time, ENTER or EXIT, call)."""
    found = np.zeros(len(rows), RECORD)
    for i, (tid, time_ns, kind, number) in enumerate(rows):
        found[i]["tid"], found[i]["time_ns"] = tid, time_ns
        found[i]["kind"], found[i]["id"] = kind, number
    return found


def pair(pairing: Pairing, *rows: tuple[int, int, int, int]) -> Paired:
    return pairing.pair(pairing.take([records(*rows)], 1 << 62), NO_32)


def told(paired) -> list[tuple[int, int, int]]:
    def when(row: int) -> int:
        return int(paired.records["time_ns"][row]) if row >= 0 else -1

    rows = np.maximum(paired.entry, paired.exit)
    tids = paired.records["tid"][rows].tolist()
    return sorted(zip(tids, map(when, paired.entry), map(when, paired.exit), strict=True))


def test_ends_are_joined_over_batches_and_threads() -> None:
    pairing = Pairing()
    first = pair(pairing, (7, 1, ENTER, 0), (8, 2, ENTER, 1), (8, 3, EXIT, 1))
    assert (told(first), first.missing, pairing.waiting()) == ([(8, 2, 3)], 0, 1)
    # A handler's return is called otherwise at its end; exit_group has none.
    rest = [(7, 9, EXIT, 0), (7, 10, ENTER, 15), (7, 11, EXIT, -1), (8, 12, ENTER, 231)]
    second = pair(pairing, *rest)
    assert told(second) == [(7, 1, 9), (7, 10, 11), (8, 12, -1)]
    assert (second.missing, pairing.waiting()) == (0, 0)


def test_what_is_not_settled_waits() -> None:
    pairing = Pairing()
    later = [records((7, 1, ENTER, 3), (7, 9, ENTER, 4)), records((7, 3, EXIT, 3))]
    assert pairing.take(later, 8)["time_ns"].tolist() == [1, 3]
    assert pairing.take([records((7, 8, EXIT, 3))], 9)["time_ns"].tolist() == [8, 9]


def test_what_is_missing_is_counted_but_for_what_had_begun_before() -> None:
    pairing = Pairing()
    begun = pair(pairing, (7, 1, EXIT, 0), (7, 2, ENTER, 3), (7, 3, ENTER, 4))
    assert told(begun) == [(7, -1, 1), (7, 2, -1)]
    assert begun.missing == 1
    lost = pair(pairing, (7, 4, EXIT, 5), (7, 5, EXIT, 5))
    assert told(lost) == [(7, -1, 4), (7, -1, 5), (7, 3, -1)]
    assert lost.missing == 3


def test_filters_say_what_the_kernel_decides() -> None:
    assert filters.filters(Filter()) == ("", "")
    calls = filters.filters(Filter(syscalls=frozenset(("getppid",))))
    assert calls == ("(id == 64 || id == 110)",) * 2
    enter, left = filters.filters(Filter(names=(b"sshd",), syscalls=frozenset(("rt_sigreturn",))))
    assert left == '((id == 15 || id == 173) || id == -1) && (comm == "sshd")'
    assert enter.startswith('(id == 15 || id == 173) && (comm == "sshd" || ')
    # What the language has a meaning for is not put into it.
    assert filters.filters(Filter(names=(b'a" || 1 || "',))) == ("", "")
