"""What is wrong with a filter is said with its place, a caret and what may have been meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.core.trace.filter import FilterInvalid, compile_filter
from hostler.core.trace.filter_parse import MOST_CHARACTERS, MOST_DEPTH

WRONG = [
    ("proc.nam = x", 1, "there is no field 'proc.nam'; did you mean proc.name?"),
    ("proc.name = x and fd.nme contains y", 19, "no field 'fd.nme'; did you mean fd.name?"),
    ("colour = x", 1, "there is no field 'colour'"),
    ("evt.deltatime > 1", 1, "is known to sysdig and not served: a call is one event here"),
    ("thread.cgroup.cpu = /", 1, "there is one cgroup: thread.cgroup"),
    ("k8s.pod.name = x", 1, "not served: no cluster is asked"),
    ("evt.arg = x", 1, "evt.arg takes an argument: evt.arg.NAME"),
    ("evt.arg.flag5 = x", 1, "no call has an argument 'flag5'; did you mean flag?"),
    ("evt.arg.0 = x", 1, "arguments go by name"),
    ("evt.rawarg.data = 1", 1, "say evt.buffer"),
    ("evt.type.is.opne = 1", 1, "no call is named 'opne'; did you mean open?"),
    ("proc.apid[x] = 1", 1, "a generation is a number up to 64"),
    ("proc.apid[65] = 1", 1, "a generation is a number up to 64"),
    ("evt.around[now] = 1", 1, "it takes a time as evt.rawtime has it"),
    ("evt.abspath.up = x", 1, "it is src or dst, not 'up'"),
    ("proc.name contain x", 11, "'contain' is no operator; did you mean contains?"),
    ("proc.name ~ x", 11, "'~' is no operator; proc.name has = != in"),
    ("proc.name", 10, "an operator is due after proc.name"),
    ("proc.name not in (a)", 11, "`not` goes before the field: not proc.name in (…)"),
    ("proc.pid contains 1", 10, "proc.pid (integer) has no contains; it has = != in"),
    ("fd.ip < 10.0.0.1", 7, "fd.ip (address) has no <; it has = != in exists"),
    ("evt.buffer glob x", 12, "evt.buffer (bytes) has no glob"),
    ("evt.is_io > false", 11, "evt.is_io (bool) has no >"),
    ("proc.name =", 12, "the end stands where a value of proc.name is due"),
    ("proc.name = (a)", 13, "'(' stands where a value of proc.name is due"),
    ("proc.name in a", 14, "'a' stands where ( is due"),
    ("proc.name in ()", 15, "')' stands where a value of proc.name is due"),
    ("proc.name in (a,)", 17, "')' stands where a value of proc.name is due"),
    ("proc.name in (a b)", 17, "'b' stands where ) is due"),
    ("proc.name in (a", 16, "the end stands where ) is due"),
    ("proc.name = 'x", 13, "a quotation mark is not closed"),
    ('proc.name = "x', 13, "a quotation mark is not closed"),
    (r"proc.name = a\xg1", 14, r"\x must be followed by two hexadecimal digits"),
    (r"proc.name = a\x1", 14, r"\x must be followed by two hexadecimal digits"),
    ("proc.pid = one", 12, "'one' is no integer"),
    ("proc.pid = 99999999999999999999", 12, "has more than 64 bits"),
    ("evt.is_io = yes", 13, "'yes' is neither true nor false"),
    ("fd.port = 65536", 11, "'65536' is no port: they are numbers from 0 to 65535"),
    ("fd.port = http", 11, "'http' is no port: they are numbers"),
    ("evt.latency > 1msec", 15, "'msec' is no unit of time; units are ns, us"),
    ("evt.latency > fast", 15, "'fast' is no duration; they are written as 10us, 1.5ms, 2s"),
    ("evt.latency > 1.5ns", 15, "is not a whole number of nanoseconds"),
    ("evt.latency > 9999999999h", 15, "9999999999h is too long"),
    ("evt.rawtime > yesterday", 15, "'yesterday' is no time"),
    ("evt.rawtime > 2026-02-30T00:00:00", 15, "is no time"),
    ("fd.ip = 10.0.0", 9, "'10.0.0' is no IP address and no network"),
    (r"fd.ip = \xff", 9, "address values are written in plain letters"),
    ("evt.type = opne", 12, "there is no call 'opne'; did you mean open?"),
    (
        "evt.type = accept4",
        12,
        "to sysdig accept4 is accept: say evt.type=accept or evt.syscall.name",
    ),
    ("evt.type in (read, writ)", 20, "there is no call 'writ'; did you mean write?"),
    ("evt.syscall.name = pread", 20, "the kernel has no call pread: say pread64"),
    ("evt.syscall.name = opne", 20, "the kernel has no call 'opne'; did you mean open?"),
    ("evt.res = ENOFILE", 11, "there is no error 'ENOFILE'; did you mean ENFILE?"),
    ("evt.category = disk", 16, "there is no category 'disk'; there are IPC, file"),
    ("", None, ""),
    ("   ", None, ""),
    ("and", 1, "'and' stands where a field is due"),
    ("proc.name=a and", 16, "the filter ends where a test is due"),
    ("proc.name=a or or proc.name=b", 16, "'or' stands where a field is due"),
    ("not", 4, "the filter ends where a test is due"),
    ("proc.name=a proc.name=b", 13, "'proc.name' is too much; tests are joined by"),
    ("proc.name=a ad proc.name=b", 13, "'ad' is too much; did you mean and?"),
    ("(proc.name=a", 13, "the end stands where ) is due"),
    ("proc.name=a)", 12, "is too much"),
    ("()", 2, "')' stands where a field is due"),
    ("= x", 1, "'=' stands where a field is due"),
    ("proc.name = \ud800", 13, "half a character"),
    ("not " * (MOST_DEPTH + 1) + "proc.name=a", 4 * (MOST_DEPTH + 1) + 1, "nested deeper than 32"),
    ("(" * 500 + "proc.name=a", MOST_DEPTH + 2, "nested deeper than 32"),
    ("proc.name=" + "a" * MOST_CHARACTERS, MOST_CHARACTERS + 1, "longer than 16384 characters"),
]


@pytest.mark.parametrize(("text", "position", "message"), WRONG)
def test_each_error_has_its_place_and_says_what_is_wrong(
    text: str, position: int | None, message: str
) -> None:
    if position is None:
        assert compile_filter(text).node is None
        return
    with pytest.raises(FilterInvalid) as caught:
        compile_filter(text)
    assert caught.value.position == position
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"at character {position}: ")


def test_the_caret_stands_below_the_place() -> None:
    with pytest.raises(FilterInvalid) as caught:
        compile_filter("proc.name = sshd and fd.nme exists")
    assert caught.value.caret() == ("proc.name = sshd and fd.nme exists\n                     ^")


def test_of_a_long_filter_the_caret_shows_what_is_around_the_place() -> None:
    text = "proc.name = x and " * 100 + "proc.nam\t= y" + " and proc.name = z" * 100
    with pytest.raises(FilterInvalid) as caught:
        compile_filter(text)
    line, caret = caught.value.caret().split("\n")
    assert len(line) <= 72
    assert line[caret.index("^") :].startswith("proc.nam = y")


@pytest.mark.parametrize("position", [1, 2, 71, 72, 73, 200])
def test_the_caret_points_where_the_error_is(position: int) -> None:
    text = "".join(chr(97 + i % 26) for i in range(300))
    line, caret = FilterInvalid("x", text, position).caret().split("\n")
    assert line[len(caret) - 1] == text[position - 1]


PIECES = st.sampled_from(
    [
        *(
            "proc.name",
            "fd.ip",
            "evt.latency",
            "=",
            "!=",
            "<",
            "in",
            "(",
            ")",
            ",",
            "and",
            "or",
            "not",
        ),
        *(
            "exists",
            "contains",
            "1ms",
            '"',
            "'",
            "\\",
            "\\x",
            "10.0.0.0/8",
            " ",
            "é",
            "\0",
            "evt.arg.",
        ),
        *("[", "]", "[1]", "evt.around[", "9" * 30, "-"),
    ]
)


@given(st.one_of(st.text(), st.lists(PIECES).map("".join), st.lists(PIECES).map(" ".join)))
def test_any_text_is_a_filter_or_is_refused_with_a_place(text: str) -> None:
    try:
        compile_filter(text)
    except FilterInvalid as e:
        assert 1 <= e.position <= len(text) + 1
        assert e.caret().count("\n") == 1
