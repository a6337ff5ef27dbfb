"""The chisels that show events one by one: which they show, and what of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chisel_runs import FILES, IP, io_on, lines, many_calls, table
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_rows import START_NS, Call, File, Process, batch

from hostler.core.trace import chisel_lines
from hostler.core.trace.chisel import Given
from hostler.core.trace.chisel_lines import Stream, columns
from hostler.core.trace.chisel_results import Lines, Unit, in_words
from hostler.core.trace.events import FileType, Flag

SOME = settings(max_examples=40, deadline=None)
INIT = Process(1, "systemd")
SSHD = Process(600, "sshd", INIT)
SHELL = Process(700, "bash", SSHD, user="joe", uid=1000)
MAKE = Process(710, "make", SHELL, cmdline=("make", "-j2"), exe="/usr/bin/make", user="joe")
CC = Process(711, "cc1", MAKE, cmdline=("cc1", "a b.c"), user="joe", start_ns=START_NS - 5_000)
CRON = Process(800, "cron", INIT, cmdline=("cron", "-f"))
TERMINAL = File(FileType.FILE, "/dev/pts/3")
LOG = File(FileType.UNIX, "/run/systemd/journal/dev-log")


def check_slower(name: str, calls: list[Call], cut: int, where: Callable[[Call], bool]) -> None:
    wanted = [c for c in calls if where(c) and c.latency_ns > 2_000_000_000]
    shown = lines(name, calls, cut=cut, min_ms="2000").rows
    assert [row[3] for row in shown] == [c.latency_ns for c in wanted]
    assert [row[0] for row in shown] == [START_NS + c.after_ns + c.latency_ns for c in wanted]
    assert [row[1] for row in shown] == [c.process.name if c.process else None for c in wanted]


@SOME
@given(many_calls(), st.integers(0, 40))
def test_scallslower_shows_calls_over_a_threshold(calls: list[Call], cut: int) -> None:
    check_slower("scallslower", calls, cut, lambda call: True)


@SOME
@given(many_calls(), st.integers(0, 40))
def test_fileslower_shows_files(calls: list[Call], cut: int) -> None:
    check_slower("fileslower", calls, cut, io_on(FileType.FILE))


@SOME
@given(many_calls(), st.integers(0, 40))
def test_netlower_shows_sockets(calls: list[Call], cut: int) -> None:
    check_slower("netlower", calls, cut, io_on(*IP))


def test_fileslower_leaves_devices_out() -> None:
    calls = [Call("read", result=1, file=f, fd=3, latency_ns=9) for f in (FILES[0], TERMINAL)]
    assert [row[-1] for row in lines("fileslower", calls, min_ms="0").rows] == ["/etc/passwd"]


def io(name: str, data: bytes, **more: Any) -> Call:
    return Call(name, result=len(data), data=data, process=SHELL, **more)


def check_standard_stream(name: str, fd: int) -> None:
    calls = [io("write", b"%d\n" % i, fd=i, file=FILES[2]) for i in range(4)]
    calls += [io("read", b"in", fd=fd, file=FILES[2]), Call("fstat", fd=fd, file=FILES[2])]
    assert [row[0] for row in lines(name, calls).rows] == [f"{fd}\n", "in"]


def test_stdin_shows_fd_0() -> None:
    check_standard_stream("stdin", 0)


def test_stdout_shows_fd_1() -> None:
    check_standard_stream("stdout", 1)


def test_stderr_shows_fd_2() -> None:
    check_standard_stream("stderr", 2)


def test_echo_fds_shows_what_is_read_and_written() -> None:
    calls = [
        io("read", b"root:\x1b[2J", file=FILES[0], fd=3, latency_ns=7),
        io("sendto", b"GET /", file=FILES[3], fd=4),
        Call("read", result=0, file=FILES[0], fd=3),
        Call("read", result=-11, file=FILES[0], fd=3),
    ]
    shown = lines("echo_fds", calls)
    assert shown.rows == (
        (START_NS + 7, "read", 9, "/etc/passwd", "bash", "root:\x1b[2J"),
        (START_NS, "write", 5, FILES[3].name, "bash", "GET /"),
    )
    first = next(shown.lines())
    assert first.endswith("read 9 /etc/passwd bash root:\\x1b[2J"), "no command for the terminal"


def test_echo_fds_says_what_was_withheld() -> None:
    call = Call("read", result=5, file=FILES[0], fd=3, flags=Flag.DATA_WITHHELD)
    shown = lines("echo_fds", [call, call])
    assert len(shown.rows) == 2
    assert shown.notes == ("2 of these calls carried data that the trace did not keep",)


def test_spy_file_shows_files_and_no_terminals() -> None:
    calls = [
        io("read", b"a", file=FILES[0], fd=3),
        io("write", b"b", file=FILES[1], fd=3),
        io("write", b"c", file=TERMINAL, fd=1),
        io("write", b"d", file=FILES[3], fd=4),
        Call("read", result=-5, file=FILES[0], fd=3),
    ]
    data = lambda **given: [row[-1] for row in lines("spy_file", calls, **given).rows]  # noqa: E731
    assert data() == ["a", "b"]
    assert data(read_or_write="R") == ["a"]
    assert data(read_or_write="W") == ["b"]
    assert data(spy_on_file_name="/etc/passwd") == ["a"]
    assert data(spy_on_file_name="/dev/pts/3") == ["c"]
    assert data(spy_on_file_name="/etc") == []


def test_spy_syslog_shows_messages() -> None:
    calls = [
        Call("sendto", result=20, process=SSHD, file=LOG, fd=3, tid=600, data=b"<38>sshd: hello\n"),
        Call("sendto", result=20, process=SSHD, file=FILES[3], fd=3, data=b"<38>no log"),
        Call("recvfrom", result=20, process=SSHD, file=LOG, fd=3, data=b"<38>read"),
    ]
    assert lines("spy_syslog", calls).rows == (
        (START_NS, "auth", "info", "sshd", 600, "sshd: hello"),
    )


def test_proc_exec_time_shows_how_long_processes_ran() -> None:
    calls = [
        Call("exit_group", process=CC, after_ns=7_000, flags=Flag.UNFINISHED),
        Call("exit", process=CC, flags=Flag.UNFINISHED),
    ]
    assert lines("proc_exec_time", calls).rows == ((START_NS + 7_000, 12_000, "cc1", 711, "a b.c"),)


def test_spy_users_shows_commands_below_shells_and_where_they_go() -> None:
    calls = [
        Call("execve", process=MAKE),
        Call("execve", process=CC),
        Call("execve", process=CRON),
        Call("chdir", process=SHELL, path="/srv"),
        Call("chdir", process=SSHD, path="/"),
        Call("chdir", process=MAKE, path="/usr"),
        Call("execve", process=MAKE, result=-2),
    ]
    rows = lines("spy_users", calls).rows
    assert [row[1:] for row in rows] == [
        ("joe", 700, "make -j2"),
        ("joe", 700, "  cc1 a b.c"),
        ("joe", 700, "cd /srv"),
    ]
    assert len(lines("spy_users", calls, max_depth="0").rows) == 2


def test_list_login_shells_lists_shells_with_commands() -> None:
    other = Process(900, "zsh", SSHD)
    calls = [
        Call("execve", process=MAKE),
        Call("execve", process=CC),
        Call("execve", process=Process(910, "vi", other, cmdline=("vi", "x.py"))),
        Call("execve", process=CRON),
        Call("openat", process=Process(920, "vi", Process(901, "ash", SSHD))),
    ]
    assert table("list_login_shells", calls).rows == ((700, 2), (900, 1))
    shells = [
        Call("execve", process=Process(pid, name, Process(pid - 1, "bash"), cmdline=words))
        for pid, name, words in ((11, "vi", ("vi", "x.py")), (21, "ls", ("ls", "/x.py")))
    ]
    assert table("list_login_shells", shells).rows == ((10, 1), (20, 1))
    assert table("list_login_shells", shells, command="vi").rows == ((10, 1),)
    assert table("list_login_shells", shells, command="*", arguments="/x").rows == ((20, 1),)


def test_what_nobody_asks_for_in_time_is_counted() -> None:
    stream = Stream(Given({}), columns(("tid", "thread.tid")))
    stream._buffer._most = 5
    events = batch([Call("read", tid=i) for i in range(4)])
    stream.take(events, "alpha")
    stream.take(events, "alpha")
    shown = stream.result()
    assert [row[0] for row in shown.rows] == [0, 1, 2, 3, 0]
    assert shown.skipped == 3
    assert stream.result() == Lines(shown.headings, ())
    assert chisel_lines.MOST_LINES >= 1000


def test_hosts_are_told_apart_when_there_are_several() -> None:
    stream = Stream(Given({}, per_host=True), columns(("tid", "thread.tid")))
    for host in ("alpha", "beta"):
        stream.take(batch([Call("read", tid=5)]), host)
    assert list(stream.result().lines()) == ["alpha 5", "beta 5"]


def test_values_are_shown_with_units_and_without_control_characters() -> None:
    assert in_words(None, Unit.TEXT) == "-"
    assert in_words(1536, Unit.BYTES) == "1.5K"
    assert in_words(1023, Unit.BYTES) == "1023"
    assert in_words(1 << 40, Unit.BYTES) == "1T"
    assert in_words(2_500_000, Unit.DURATION) == "2.5ms"
    assert in_words(START_NS, Unit.TIME) == "23:33:20.000000000"
    assert in_words("a\nb\x07\x9b", Unit.TEXT) == "a\\nb\\x07\\x9b"
    assert in_words("a\nb\x07", Unit.DATA) == "a\nb\\x07"
