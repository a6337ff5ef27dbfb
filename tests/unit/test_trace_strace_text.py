"""Lines of strace taken apart: what they say, and that none of them, of anyone, does any harm."""

from __future__ import annotations

import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hostler.core.trace.blocks import decode, encode
from hostler.core.trace.events import FileType, Flag
from hostlerd.tracing.kernel.capture.kin import Accounts
from hostlerd.tracing.kernel.strace import text
from hostlerd.tracing.kernel.strace.batch import events_of
from hostlerd.tracing.kernel.strace.calls import Call, Calls
from hostlerd.tracing.kernel.strace.naming import File, file_of
from hostlerd.tracing.kernel.strace.processes import Processes
from hostlerd.tracing.kernel.strace.text import Note, Told

# As strace 6.1 has written them.
LINES = [
    b'7 1.000000002 openat(-100</root>, "a,b)\\"\\33\\xff", 0) = 3</root/a\\74b> <0.000000012>',
    b'7 1.000000002 access("/etc/ld.so.preload", 0x4) = -1 ENOENT (No such file) <0.000010000>',
    b'7 1.000000002 read(5<TCP:[127.0.0.1:1->127.0.0.1:80]>, ""..., 832) = 832 <0.000009000>',
    b"7 1.000000002 read(0</dev/null<char 1:3>>,  <unfinished ...>",
    b"8 1.000000002 <... clone resumed>, child_tidptr=0x7f0139a18a10) = 9 <0.1>",
    b"7 1.000000002 exit_group(0) = ?",
    b"7 1.000000002 pause() = ? ERESTARTNOHAND (To be restarted if no handler) <1.000000000>",
    b"7 1.000000002 mmap(NULL, 8192, 0x3, 0x22, -1, 0) = 0x7f7547fa9000 <0.000013000>",
    b"7 1.000000002 syscall_0x1c7(0x1, 0x2) = -1 ENOSYS (Function not implemented) <0.000001000>",
    b'7 1.000000002 newfstatat(3</a>, "", {st_mode=0100644, st_size=4, ...}, 0x1000) = 0 <0.0>',
    b"7 1.000000002 +++ exited with 0 +++",
    b"7 1.000000002 --- SIGCHLD {si_signo=17, si_code=0x1, si_pid=9} ---",
    b"7 1.000000002 strace: [ Process PID=7 runs in 32 bit mode. ]",
    b"7 1.000000002 clone(child_stack=NULL, flags=0x1200000|17, child_tidptr=0x7f01) = 9 <0.1>",
    b"7 1.000000002 clone3({flags=0x3d0f00, child_tid=0x7f, exit_signal=0}, 88) = 10 <0.1>",
    b'7 1.000000002 writev(1<pipe:[5]>, [{iov_base="ab", iov_len=2}, {iov_base="c", iov_len=1}], 2)'
    b" = 3 <0.000001000>",
    b'7 1.000000002 connect(4<UNIX-STREAM:[55,"/run/x"]>, {sa_family=0x1, ...}, 9) = 0',
]


def calls(*lines: bytes, data_bytes: int = 0) -> list[Call]:
    return list(Calls(Processes(), data_bytes).take(iter(lines)))


def test_a_line_is_taken_apart() -> None:
    told = text.parse(LINES[0])
    assert isinstance(told, Told)
    assert (told.tid, told.time_ns, told.name, told.latency_ns) == (7, 1_000_000_002, "openat", 12)
    assert text.number_of(told.arguments[0]) == -100
    assert text.decoration_of(told.arguments[0]) == b"/root"
    assert text.string_of(told.arguments[1]) == b'a,b)"\33\xff'
    assert text.result_of(told.result) == 3
    (call,) = calls(LINES[0])
    assert (call.path, call.file.name) == (b'/root/a,b)"\33\xff', b"/root/a<b")
    assert call.arguments == ((1 << 64) - 100, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("line", "result"),
    [(LINES[1], -2), (LINES[6], -514), (LINES[7], 0x7F7547FA9000), (LINES[8], -38), (LINES[5], 0)],
)
def test_results_are_the_kernels(line: bytes, result: int) -> None:
    (call,) = calls(line)
    assert call.result == result
    assert bool(call.flags & Flag.UNFINISHED) == (line is LINES[5])


def test_what_is_cut_in_two_is_joined() -> None:
    (call,) = calls(
        b"7 1.000000000 read(0</dev/null<char 1:3>>,  <unfinished ...>",
        b"8 1.500000000 getppid( <unfinished ...>",
        b'7 2.000000000 <... read resumed>"abc", 10) = 3 <1.000000000>',
        data_bytes=2,
    )
    assert (call.time_ns, call.latency_ns, call.fd) == (1_000_000_000, 1_000_000_000, 0)
    assert (call.data, call.file.type) == (b"ab", FileType.DEVICE)
    assert call.flags == Flag.DATA_CUT
    (lost,) = calls(b"7 2.000000000 <... read resumed>) = 3 <1.000000000>")
    assert lost.flags & Flag.ENTRY_LOST


def test_processes_are_followed() -> None:
    lines = [
        b'7 1.000000000 chdir("/tmp") = 0 <0.000001000>',
        b"7 1.000000000 setresuid(-1, 1000, -1) = 0 <0.000001000>",
        b"7 1.000000001 clone(child_stack=NULL, flags=0x1200000|17 <unfinished ...>",
        # The child speaks first.
        b'9 1.000000002 execve("/usr/bin/a-name-that-is-long", [...], 0x7f /* 9 vars */) = 0 <0.1>',
        b"7 1.000000003 <... clone resumed>, child_tidptr=0x7f) = 9 <0.000001000>",
        b"7 1.000000004 clone3({flags=0x3d0f00, exit_signal=0}, 88) = 10 <0.000001000>",
        b'10 1.000000005 openat(-100</tmp>, "x", 0) = 3</tmp/x> <0.000001000>',
        b'9 1.000000006 open("y", 0) = 3</tmp/y> <0.000001000>',
    ]
    found = {(call.tid, call.path): call.process for call in calls(*lines)}
    child = found[9, b"/tmp/y"]
    assert (child.pid, child.ppid, child.uid) == (9, 7, 1000)
    assert (child.exe, child.comm) == (b"/usr/bin/a-name-that-is-long", b"a-name-that-is-")
    assert found[10, b"/tmp/x"].pid == 7


@pytest.mark.parametrize(
    ("decoration", "file"),
    [
        (b"/a b", File(FileType.FILE, b"/a b")),
        (b"/dev/sda<block 8:0>", File(FileType.DEVICE, b"/dev/sda")),
        (b"pipe:[5]", File(FileType.PIPE, b"pipe:[5]")),
        (b"anon_inode:[eventpoll]", File(FileType.EPOLL, b"anon_inode:[eventpoll]")),
        (b'UNIX-STREAM:[5->6,"/run/x"]', File(FileType.UNIX, b"/run/x")),
        (b"UNIX-STREAM:[5]", File(FileType.UNIX, b"socket:[5]")),
        (b"NETLINK:[ROUTE:5]", File(FileType.NETLINK, b"socket:[5]")),
        (b"TCP:[5]", File(FileType.IPV4, b"socket:[5]", 6)),
        (
            b"UDPv6:[[::1]:5->[fe80::1]:80]",
            File(
                FileType.IPV6,
                b"[::1]:5->[fe80::1]:80",
                17,
                (socket.inet_pton(socket.AF_INET6, "::1"), 5),
                (socket.inet_pton(socket.AF_INET6, "fe80::1"), 80),
            ),
        ),
    ],
)
def test_files_have_the_names_of_events(decoration: bytes, file: File) -> None:
    assert file_of(decoration) == file
    line = b"7 1.000000002 close(3<%s>) = 0 <0.000001000>" % decoration
    (call,) = calls(line)
    assert (call.file, call.result) == (file, 0)


def test_arguments_are_where_registers_have_them() -> None:
    (call,) = calls(LINES[13])
    assert call.arguments[:4] == (0x1200011, 0, 0, 0x7F01)
    (call,) = calls(LINES[15], data_bytes=100)
    assert (call.data, call.file.name) == (b"abc", b"pipe:[5]")
    (call,) = calls(b'7 1.000000002 newfstatat(1</dev/null<char 1:3>>, "", 0x7f, 0) = 0 <0.1>')
    assert call.path == b"/dev/null"


MUTATED = st.tuples(
    st.sampled_from(LINES), st.integers(0, 200), st.integers(0, 200), st.binary(max_size=8)
).map(lambda m: m[0][: m[1]] + m[3] + m[0][m[2] :])
ANY = st.lists(st.one_of(st.sampled_from(LINES), MUTATED, st.binary(max_size=80)), max_size=12)


@given(ANY)
@example([b"7 1.000000002 f(" + b"[" * 500, b"7 1.000000002 f(3<" + b"<" * 500])
def test_no_line_does_any_harm(lines: list[bytes]) -> None:
    for line in lines:
        assert isinstance(text.parse(line), Told | Note | None)
    made = calls(*lines, data_bytes=10)
    events = events_of(made, 1, Accounts())
    assert len(decode(encode(events))) == len(made)
