"""What fields answer, one by one: for a read of a file, a socket, a failure, an exit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from trace_rows import START_NS, Call, File, Process, batch
from trace_world import CAT, CLIENT, INIT, LISTENING, LOG, PASSWD, READ, SERVER, SHELL, one, read

from hostler.core.trace.events import FileType, Flag
from hostler.core.trace.fields import find

CREAT_TRUNC = 0o1101
OPEN = Call("openat", ((1 << 64) - 100, 1, 0o2000000), 3, CAT, PASSWD, 3, path="/etc/passwd")
FAILED_OPEN = Call("open", (1, CREAT_TRUNC, 0o755), -13, CAT, path="/root/a/x")
EXIT = Call("exit_group", (7,), flags=Flag.UNFINISHED)
TIMED = replace(READ, after_ns=10**9, latency_ns=2_500_000_007)
SYSLOG = Call("sendto", (4,), 20, CAT, LOG, 4, data=b"<86>sshd[7]: Failed password\n")
UDP = File(FileType.IPV4, "", 17, local=(bytes([1, 2, 3, 4]), 53))
MAPPED = replace(SERVER, remote=(bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 9]), 5))

EXPECTED: list[tuple[Call, dict[str, Any]]] = [
    (
        TIMED,
        {
            "evt.num": 1,
            "evt.rawtime": START_NS + 3_500_000_007,
            "evt.rawtime.s": START_NS // 10**9 + 3,
            "evt.rawtime.ns": 500_000_007,
            "evt.reltime": 3_500_000_007,
            "evt.reltime.s": 3,
            "evt.reltime.ns": 500_000_007,
            "evt.time": b"23:33:23.500000007",
            "evt.time.s": b"23:33:23",
            "evt.datetime": b"2025-11-26 23:33:23.500000007",
            "evt.datetime.s": b"2025-11-26 23:33:23",
            "evt.time.iso8601": b"2025-11-26T23:33:23.500000007+0000",
            "evt.latency": 2_500_000_007,
            "evt.latency.s": 2,
            "evt.latency.ns": 500_000_007,
            "evt.latency.human": b"2.5s",
            "evt.wait_latency": None,
        },
    ),
    (
        READ,
        {
            "evt.dir": b"<",
            "evt.type": b"read",
            "syscall.type": b"read",
            "evt.syscall.number": 0,
            "evt.syscall.is32": 0,
            "evt.type.is.read": 1,
            "evt.type.is.write": 0,
            "evt.category": b"file",
            "evt.cpu": 1,
            "evt.args": b"fd=3(<f>/etc/passwd) buf=0x7fff0000 count=100 res=5 data=root:",
            "evt.arg.fd": b"<f>/etc/passwd",
            "evt.arg.count": b"100",
            "evt.arg.size": b"100",
            "evt.arg.res": b"5",
            "evt.arg.data": b"root:",
            "evt.arg.flags": None,
            "evt.rawarg.fd": 3,
            "evt.rawarg.size": 100,
            "evt.rawarg.res": 5,
            "evt.rawarg.flags": None,
            "evt.buffer": b"root:",
            "evt.buflen": 5,
            "evt.res": b"SUCCESS",
            "evt.rawres": 5,
            "evt.failed": 0,
            "evt.is_io": 1,
            "evt.is_io_read": 1,
            "evt.is_io_write": 0,
            "evt.io_dir": b"read",
            "evt.is_wait": 0,
            "evt.is_syslog": 0,
            "evt.count": 1,
            "evt.count.exit": 1,
            "evt.count.error": None,
            "evt.abspath": None,
            f"evt.around[{START_NS + 5}]": 5,
            "proc.pid": 710,
            "proc.ppid": 700,
            "proc.name": b"cat",
            "proc.exe": b"/bin/cat",
            "proc.exepath": b"/usr/bin/cat",
            "proc.args": b"-n a b",
            "proc.cmdline": b"cat -n a b",
            "proc.exeline": b"/bin/cat -n a b",
            "proc.env": b"HOME=/root TERM=vt100",
            "proc.cwd": b"/srv/",
            "proc.pname": b"bash",
            "proc.pcmdline": None,
            "proc.apid[0]": 710,
            "proc.apid[1]": 700,
            "proc.apid[2]": 1,
            "proc.apid[3]": None,
            "proc.aname[0]": b"cat",
            "proc.aname[2]": b"systemd",
            "proc.loginshellid": 700,
            "proc.sid": 700,
            "proc.sname": b"bash",
            "proc.tty": 0x8801,
            "proc.vpid": 7,
            "proc.duration": 5,
            "proc.unit": b"docker.service",
            "thread.tid": 711,
            "thread.ismain": 0,
            "user.uid": 33,
            "user.name": b"www-data",
            "user.loginuid": 1000,
            "user.loginname": b"joe",
            "group.gid": 34,
            "group.name": b"web",
            "container.id": b"0123456789ab",
            "container.name": b"web1",
            "fd.num": 3,
            "fd.type": b"file",
            "fd.typechar": b"f",
            "fd.name": b"/etc/passwd",
            "fd.directory": b"/etc",
            "fd.filename": b"passwd",
            "fd.cip": None,
            "fd.sport": None,
            "fd.l4proto": b"<NA>",
            "fd.sockfamily": None,
            "fd.is_server": 0,
            "fd.uid": b"7113",
            "fd.containername": b"0123456789ab:/etc/passwd",
            "fd.containerdirectory": b"0123456789ab:/etc",
            "fd.dev": 0x10082C,
            "fd.dev.major": 8,
            "fd.dev.minor": 300,
            "fd.ino": 77,
        },
    ),
    (
        replace(READ, file=CLIENT),
        {
            "evt.category": b"net",
            "fd.type": b"ipv4",
            "fd.typechar": b"4",
            "fd.cip": bytes([10, 0, 0, 1]),
            "fd.sip": bytes([10, 0, 0, 0]),
            "fd.lip": bytes([10, 0, 0, 1]),
            "fd.rip": bytes([10, 0, 0, 0]),
            "fd.snet": bytes([10, 0, 0, 0]),
            "fd.cport": 4000,
            "fd.sport": 80,
            "fd.lport": 4000,
            "fd.rport": 80,
            "fd.l4proto": b"tcp",
            "fd.sockfamily": b"ip",
            "fd.is_server": 0,
            "fd.connected": 1,
            "fd.directory": None,
            "fd.dev": None,
        },
    ),
    (
        replace(READ, file=SERVER),
        {
            "fd.cip": bytes(15) + b"\x02",
            "fd.sip": bytes(15) + b"\x01",
            "fd.lport": 443,
            "fd.rport": 5000,
            "fd.cport": 5000,
            "fd.sport": 443,
            "fd.is_server": 1,
        },
    ),
    (replace(READ, file=MAPPED), {"fd.cip": bytes([10, 0, 0, 9]), "fd.typechar": b"6"}),
    (
        replace(READ, file=LISTENING),
        {
            "fd.typechar": b"4",
            "fd.sip": bytes(4),
            "fd.sport": 22,
            "fd.cip": None,
            "fd.lport": None,
            "fd.connected": 0,
        },
    ),
    (replace(READ, file=UDP), {"fd.sport": None, "fd.lip": None, "fd.l4proto": b"udp"}),
    (
        OPEN,
        {
            "evt.type": b"openat",
            "evt.args": b"dfd=AT_FDCWD filename=/etc/passwd flags=O_RDONLY|O_CLOEXEC mode=00"
            b" res=3(<f>/etc/passwd)",
            "evt.arg.name": b"/etc/passwd",
            "evt.arg.flags": b"O_RDONLY|O_CLOEXEC",
            "evt.rawarg.dfd": -100,
            "evt.is_open_read": 1,
            "evt.is_open_write": 0,
            "evt.is_open_exec": 0,
            "evt.buflen": None,
            "evt.abspath": b"/etc/passwd",
        },
    ),
    (
        FAILED_OPEN,
        {
            "evt.res": b"EACCES",
            "evt.rawres": -13,
            "evt.failed": 1,
            "evt.arg.res": b"EACCES",
            "evt.count.error": 1,
            "evt.count.error.file": 1,
            "evt.count.error.net": None,
            "evt.count.error.other": None,
            "evt.is_open_write": 1,
            "evt.is_open_read": 0,
            "evt.is_open_exec": 1,
            "fd.num": -1,
            "fd.uid": b"0-1",
            "fd.containername": b"0123456789ab:/root/a/x",
            "fd.name": b"/root/a/x",
            "fd.directory": b"/root/a",
            "fd.filename": None,
            "fd.typechar": b"f",
            "fd.type": None,
            "fd.is_server": None,
        },
    ),
    (Call("mmap", (0, 1, 3, 0x22), -12), {"evt.count.error.memory": 1, "evt.res": b"ENOMEM"}),
    (Call("mmap", result=-5000), {"evt.failed": 0, "evt.res": b"SUCCESS"}),
    (Call("connect", (3,), -111), {"evt.count.error.net": 1, "evt.res": b"ECONNREFUSED"}),
    (Call("kill", (7, 9), -3), {"evt.count.error.other": 1, "evt.arg.sig": b"SIGKILL"}),
    (Call("nanosleep", result=-516), {"evt.res": b"ERESTART_RESTARTBLOCK", "evt.is_wait": 1}),
    (Call("poll", latency_ns=9), {"evt.wait_latency": 9, "evt.category": b"wait"}),
    (
        EXIT,
        {
            "evt.dir": b">",
            "evt.res": None,
            "evt.rawres": None,
            "evt.failed": 0,
            "evt.latency": None,
            "evt.count.exit": None,
            "evt.args": b"error_code=7",
            "evt.arg.res": None,
            "proc.pid": None,
            "proc.cmdline": None,
            "user.uid": None,
            "container.id": None,
            "thread.ismain": None,
        },
    ),
    (Call("read", flags=Flag.ENTRY_LOST), {"evt.latency": None, "evt.arg.fd": None}),
    (Call("read", flags=Flag.ENTRY_LOST), {"evt.args": b"res=0", "evt.rawarg.fd": None}),
    (Call("read", fd=9), {"fd.typechar": b"o", "fd.name": None, "evt.category": b"unknown"}),
    (
        Call("accept4", (3, 0, 0, 0o4000)),
        {"evt.type": b"accept", "syscall.type": b"accept", "evt.syscall.name": b"accept4"},
    ),
    (Call("waitpid", flags=Flag.IS_32_BIT), {"evt.type": b"waitpid", "evt.syscall.is32": 1}),
    (
        Call("write", (0xFFFFFFFF, 0, 1 << 32 | 5), flags=Flag.IS_32_BIT),
        {"evt.rawarg.fd": -1, "evt.rawarg.count": 5},
    ),
    (
        Call("rename", path="/a", path2="/b"),
        {"evt.abspath": None, "evt.abspath.src": b"/a", "evt.abspath.dst": b"/b"},
    ),
    (
        SYSLOG,
        {
            "evt.is_syslog": 1,
            "syslog.facility": 10,
            "syslog.facility.str": b"authpriv",
            "syslog.severity": 6,
            "syslog.severity.str": b"info",
            "syslog.message": b"sshd[7]: Failed password",
            "evt.category": b"ipc",
        },
    ),
    (replace(SYSLOG, data=b"<192>x"), {"syslog.facility": None, "syslog.message": None}),
    (replace(SYSLOG, file=PASSWD), {"syslog.facility": None, "evt.is_syslog": 0}),
    (
        Call("read", process=Process(5, "x", INIT, cgroup="/user.slice")),
        {
            "container.id": b"host",
            "container.name": b"host",
            "proc.vpid": None,
            "user.uid": None,
            "user.loginuid": -1,
            "user.name": None,
            "proc.exe": None,
            "proc.loginshellid": None,
            "proc.duration": None,
            "thread.cgroup": b"/user.slice",
        },
    ),
    (Call("read", process=SHELL, tid=700), {"proc.loginshellid": 700, "thread.ismain": 1}),
]


@pytest.mark.parametrize(("call", "expected"), EXPECTED)
def test_fields_answer(call: Call, expected: dict[str, Any]) -> None:
    assert {name: one(call, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("fd.ip", [{bytes([10, 0, 0, 1]), bytes([10, 0, 0, 0])}, {bytes(4)}, {None}]),
        ("fd.port", [{4000, 80}, {22}, {None}]),
    ],
)
def test_either_end_of_a_socket_is_a_side(name: str, sides: list[set[Any]]) -> None:
    calls = [replace(READ, file=file) for file in (CLIENT, LISTENING, PASSWD)]
    events = batch(calls)
    found = [{side.at(i) for side in find(name).sides(events)} for i in range(3)]
    assert [each - {None} or each for each in found] == sides
    with pytest.raises(ValueError, match="has more than one value"):
        find(name).values(events)


def test_every_ancestor_is_a_side() -> None:
    events = batch([READ, Call("read", process=INIT)])
    pids = [{side.at(i) for side in find("proc.apid").sides(events)} for i in (0, 1)]
    assert pids == [{700, 1}, {0, None}]
    names = [side.at(0) for side in find("proc.aname").sides(events)]
    assert names == [b"bash", b"systemd"]


def test_a_process_that_is_its_own_ancestor_is_read_all_the_same() -> None:
    events = batch([READ])
    events.processes["parent"][1:] = 1
    assert read(events, "proc.apid[64]") == [events.processes["pid"][1]]
    assert len(find("proc.aname").sides(events)) == 64


def test_reltime_is_absent_where_the_beginning_is_not_known() -> None:
    assert read(batch([READ], start_ns=0), "evt.reltime") == [None]


def test_a_text_is_made_once_however_many_events_have_it() -> None:
    asked: list[bytes] = []
    values = find("proc.name").values(batch([READ] * 1000))
    mask = values.where(lambda text: not asked.append(text))  # type: ignore[union-attr,call-arg]
    assert mask.all()
    assert asked == [b"cat"]


def test_texts_without_repetition_are_what_can_be_counted() -> None:
    events = batch([READ, Call("read"), replace(READ, process=SHELL), READ])
    codes, texts = find("proc.name").values(events).distinct()  # type: ignore[union-attr]
    assert [texts[code] for code in codes] == [b"cat", None, b"bash", b"cat"]
    assert len(texts) == 3
