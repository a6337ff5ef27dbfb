"""Events as lines of text."""

from __future__ import annotations

from dataclasses import replace

import pytest
from trace_rows import Call, batch
from trace_world import CAT, PASSWD, READ

from hostler.core.trace.arguments import plain, quoted
from hostler.core.trace.events import Flag
from hostler.core.trace.lines import Style, strace_lines, sysdig_lines

LONG = replace(READ, data=bytes(range(60)), result=60, latency_ns=1_500_000)


def strace(call: Call, style: Style | None = None) -> str:
    (line,) = strace_lines(batch([call]), style)
    return line


def test_sysdig_lines_have_number_time_cpu_process_direction_call_and_arguments() -> None:
    exit_group = Call("exit_group", (7,), flags=Flag.UNFINISHED, tid=9)
    assert list(sysdig_lines(batch([replace(READ, latency_ns=5_000), exit_group]))) == [
        "1 23:33:20.000005000 1 cat (711) < read fd=3(<f>/etc/passwd) buf=0x7fff0000 count=100"
        " res=5 data=root:",
        "2 23:33:20.000000000 0 <NA> (9) > exit_group error_code=7",
    ]


def test_strace_lines_have_thread_time_call_result_and_latency() -> None:
    opened = Call(
        "openat",
        ((1 << 64) - 100, 1, 0o2000000, 0),
        -2,
        CAT,
        path="/no",
        tid=711,
        after_ns=1_234_567,
        latency_ns=12_345,
    )
    assert strace(opened) == (
        '711 23:33:20.001234 openat(AT_FDCWD, "/no", O_RDONLY|O_CLOEXEC)'
        " = -1 ENOENT (No such file or directory) <0.000012>"
    )


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (READ, 'read(3, "root:", 100) = 5 <0.000000>'),
        (Call("exit_group", (0,), flags=Flag.UNFINISHED), "exit_group(0) = ?"),
        (Call("read", result=3, flags=Flag.ENTRY_LOST), "read(...) = 3"),
        (
            Call("mmap", (0, 1, 1, 2, 3), 0x7F00 << 32),
            "mmap(NULL, 1, PROT_READ, MAP_PRIVATE, 3, 0)",
        ),
        (Call("mmap", result=0x7F00 << 32), " = 0x7f0000000000 <"),
        (Call("poll", result=-516), " = ? ERESTART_RESTARTBLOCK (to be restarted) <"),
        (Call("modify_ldt", (1, 2)), "modify_ldt(1, 0x2, 0)"),
        (Call("vhangup"), "vhangup()"),
        (Call("afs_syscall", (1, 2)), "afs_syscall(0x1, 0x2, 0x0, 0x0, 0x0, 0x0) = 0"),
        (replace(READ, flags=Flag.DATA_CUT), 'read(3, "root:"..., 100)'),
        (Call("unlink", path="/a", flags=Flag.PATH_CUT), 'unlink("/a"...)'),
    ],
)
def test_strace_lines(call: Call, line: str) -> None:
    assert line in strace(call)


def test_as_much_data_is_shown_as_wanted() -> None:
    assert '"\\0\\1\\2\\3"..., 100' in strace(LONG, Style(most_bytes=4))
    assert strace(LONG).count("\\") == 32
    assert '..", 100)' not in strace(LONG, Style(most_bytes=60))
    assert "..." not in strace(LONG, Style(most_bytes=60))


def test_as_ascii_other_bytes_are_dots() -> None:
    shown = replace(READ, data=b"a\0\xff b\n")
    assert '"a.. b."' in strace(shown, Style(is_ascii=True))
    assert quoted(b'a"\x017\x019\x01a\n\xff') == '"a\\"\\0017\\19\\1a\\n\\377"'
    assert plain(b"\x00a\xff") == ".a."


def test_lines_of_a_batch_with_odd_names_are_single_lines() -> None:
    odd = replace(READ, file=replace(PASSWD, name="/a\nb\x1b[31m"), path="/x\ny", data=b"\n\x1b")
    opened = replace(odd, name="open", args=(1, 2))
    for line in (*sysdig_lines(batch([odd, opened])), *strace_lines(batch([odd, opened]))):
        assert line.isprintable()
