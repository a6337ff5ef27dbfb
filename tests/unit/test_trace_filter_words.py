"""Filters as people write them: operators, quotes, units, and what binds stronger."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from trace_rows import START_NS, Call, Process, batch
from trace_world import CAT, CLIENT, LISTENING, PASSWD, READ, SERVER, SHELL

from hostler.core.trace.events import Events
from hostler.core.trace.field import Need
from hostler.core.trace.filter import compile_filter
from hostler.core.trace.filter_parse import OPERATORS

SPACED = Process(9, "a b", exe='x"y\\z', cwd="é")
CALLS = [
    replace(READ, latency_ns=1_500_000),
    Call("write", (1,), -32, SHELL, CLIENT, 1, latency_ns=999),
    Call("accept4", (4,), 5, CAT, SERVER, 5, after_ns=7_000_000),
    Call("getpid", process=SPACED, data=b"\x00\x1fGET /"),
]
HOLDS = [
    ("proc.name=cat", "0 2"),
    ("proc.name == cat", "0 2"),
    ("proc.name!=cat", "1 3"),
    ("proc.name contains a", "0 1 2 3"),
    ("proc.name contains A", ""),
    ("proc.name icontains A", "0 1 2 3"),
    ("proc.name startswith ba", "1"),
    ("proc.name endswith t", "0 2"),
    ("proc.name glob b?s*", "1"),
    ("proc.name glob [bc]a*", "0 1 2"),
    ("proc.name in (cat, bash)", "0 1 2"),
    ("proc.name in(cat,'a b')", "0 2 3"),
    ("proc.name exists", "0 1 2 3"),
    ("proc.name < b", "3"),
    ("proc.name >= bash", "0 1 2"),
    ("proc.name = 'a b'", "3"),
    ('proc.name = "a b"', "3"),
    (r"proc.name = a\x20b", "3"),
    (r'proc.exepath = "x\"y\\z"', "3"),
    (r"proc.exepath = 'x\"y\\z'", "3"),
    (r"proc.exepath contains \y", ""),
    ("proc.cwd contains é", "3"),
    (r"proc.cwd contains \xc3\xa9", "3"),
    ("fd.name exists", "0 1 2"),
    ("not fd.name exists", "3"),
    ("fd.name != x", "0 1 2"),
    ("not fd.name = x", "0 1 2 3"),
    ("fd.name contains /etc", "0"),
    ("fd.name pmatch (/etc)", "0"),
    ("fd.name pmatch (/et, /var)", ""),
    ("fd.name pmatch (/etc/passwd/, /srv)", "0"),
    ("fd.num < 5", "0 1"),
    ("fd.num <= 5", "0 1 2"),
    ("fd.num > 0x3", "2"),
    ("fd.num >= 3", "0 2"),
    ("fd.num in (1, 5)", "1 2"),
    ("fd.num in (-1)", ""),
    ("proc.pid in (-1, 700, 99999999999)", "1"),
    ("proc.pid in (-1)", ""),
    ("proc.pid > -1", "0 1 2 3"),
    ("evt.latency in (999, 18446744073709551615)", "1"),
    ("evt.rawarg.res in (-32, 18446744073709551615)", "1"),
    ("evt.rawres < 0", "1"),
    ("evt.rawres = -32", "1"),
    ("evt.res = EPIPE", "1"),
    ("evt.failed = true", "1"),
    ("evt.failed != true", "0 2 3"),
    ("evt.is_io = true", "0 1"),
    ("evt.latency > 1ms", "0"),
    ("evt.latency > 1.5ms", ""),
    ("evt.latency >= 1.5ms", "0"),
    ("evt.latency >= 1500us", "0"),
    ("evt.latency = 999", "1"),
    ("evt.latency = 999ns", "1"),
    ("evt.latency < 1us", "1 2 3"),
    ("evt.latency < 1h", "0 1 2 3"),
    ("evt.rawtime > 2025-11-26T23:33:20.006Z", "2"),
    ("evt.rawtime > 2025-11-27T00:33:20.006+01:00", "2"),
    ("evt.rawtime > '2025-11-26 23:33:20.006'", "2"),
    (f"evt.rawtime >= {START_NS + 7_000_000}", "2"),
    (f"evt.around[{START_NS}] = 5", "0 1 3"),
    (f"evt.around[{START_NS}] = 7ms", "0 1 2 3"),
    ("fd.ip = 10.0.0.1", "1"),
    ("fd.ip != 10.0.0.1", "2"),
    ("fd.ip = ::1", "2"),
    ("fd.net = 10.0.0.0/8", "1"),
    ("fd.net = 10.9.9.9/8", "1"),
    ("fd.net != 10.0.0.0/8", "2"),
    ("fd.cip in (10.0.0.0/30, ::2)", "1 2"),
    ("fd.sip = 0.0.0.0/0", "1"),
    ("fd.port = 443", "2"),
    ("fd.port != 80", "2"),
    ("fd.port > 4000", "2"),
    ("fd.sport in (80, 443)", "1 2"),
    ("evt.buffer contains GET", "3"),
    (r"evt.buffer startswith \x00\x1f", "3"),
    ("evt.type = accept", "2"),
    ("evt.type != switch", "0 1 2 3"),
    ("syscall.type = accept", "2"),
    ("evt.syscall.name = accept4", "2"),
    ("proc.apid = 1", "0 1 2"),
    ("proc.apid != 1", "0 2 3"),
    ("proc.aname = systemd", "0 1 2"),
    ("proc.name=cat or proc.name=bash and fd.num=99", "0 2"),
    ("(proc.name=cat or proc.name=bash) and fd.num=5", "2"),
    ("not proc.name=cat and fd.num exists", "1"),
    ("not (proc.name=cat or fd.num exists)", "3"),
    ("not not proc.name=cat", "0 2"),
    ("\n proc.name \t= cat\r\nand(evt.is_io=true)", "0"),
    ("evt.args contains res= and proc.name=cat", "0 2"),
    ("proc.name=bash or evt.args contains count=100", "0 1"),
    ("", "0 1 2 3"),
]


@pytest.mark.parametrize(("text", "passing"), HOLDS)
def test_a_filter_passes(text: str, passing: str) -> None:
    mask = compile_filter(text).matches(batch(CALLS))
    assert " ".join(map(str, mask.nonzero()[0])) == passing


def test_every_operator_is_tested_above() -> None:
    told = " ".join(text for text, _ in HOLDS)
    for operator in {each for some in OPERATORS.values() for each in some}:
        assert f" {operator} " in told or operator in ("=", "!="), operator


@pytest.mark.parametrize("text", [text for text, _ in HOLDS])
def test_an_empty_batch_passes_nothing(text: str) -> None:
    assert compile_filter(text).matches(Events.empty()).tolist() == []


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("", Need.NOTHING),
        ("fd.name contains x", Need.NOTHING),
        ("evt.buffer contains x", Need.DATA),
        ("not (fd.num=1 or proc.cmdline contains x)", Need.CMDLINE),
        ("proc.env contains x and syslog.message contains y", Need.ENVIRON | Need.DATA),
        ("evt.arg.data contains x", Need.DATA),
    ],
)
def test_a_filter_says_what_it_needs(text: str, needs: Need) -> None:
    assert compile_filter(text).needs == needs
    assert compile_filter(text).text == text


class Watched(list[bytes]):
    """Texts that count how often they are read."""

    reads = 0

    def __getitem__(self, row: Any) -> Any:
        self.reads += 1
        return super().__getitem__(row)


@pytest.mark.parametrize(
    "text",
    [
        "evt.args contains res= and proc.name=bash",
        "not (evt.args contains nothing or not proc.name=bash)",
    ],
)
def test_costly_fields_are_read_only_where_the_rest_has_not_decided(
    text: str,
) -> None:
    events = batch([READ] * 5000 + [replace(READ, process=SHELL)])
    events.texts = Watched(events.texts)
    mask = compile_filter(text).matches(events)
    assert mask.nonzero()[0].tolist() == [5000]
    assert events.texts.reads < 20


def test_listening_sockets_and_files_have_no_client() -> None:
    events = batch([replace(READ, file=LISTENING), replace(READ, file=PASSWD)])
    assert compile_filter("fd.cip exists").matches(events).tolist() == [False, False]
    assert compile_filter("fd.sport = 22").matches(events).tolist() == [True, False]
