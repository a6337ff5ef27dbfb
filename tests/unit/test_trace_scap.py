"""Files of sysdig: sysdig itself reads what is written, and what it writes is read back."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scap_world import told_events, write_scap
from trace_batches import Story
from trace_rows import Call, Process, batch

from hostler.core.trace.events import COLUMNS, Events, FileType, Flag, concatenate
from hostler.core.trace.scap import Exported, export
from hostler.core.trace.scap_import import ScapReader
from hostler.core.trace.scap_layout import (
    BLOCK,
    block,
    clone_flags,
    clone_flags_back,
    fcntl_command,
    fcntl_command_back,
    open_flags,
    open_flags_back,
    scap_calls,
)
from hostler.core.trace.schema import CaptureInvalid
from hostler.core.trace.syscalls import all_syscalls, name_of

SYSDIG = shutil.which("sysdig")
needs_sysdig = pytest.mark.skipif(SYSDIG is None, reason="sysdig is not installed")
SHARED = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
CLONE_SHELL = 0x01200011


def a_day_of_a_shell() -> Events:
    story = Story()
    ids = {"uid": 1000, "gid": 1000, "loginuid": 1000, "sid": 100, "cwd": "/home"}
    shell = {"exe": "/bin/sh", "cmdline": b"sh\0-c\0cat hosts", **ids}
    sh = story.process(100, "sh", ppid=1, vpid=100, **shell)
    kid = story.process(101, "sh", ppid=100, vpid=101, **shell)
    cat = story.process(
        101, "cat", ppid=100, vpid=101, **ids, exe="/bin/cat", cmdline=b"cat\0/etc/hosts"
    )
    sshd = story.process(50, "sshd", exe="/usr/sbin/sshd", cmdline=b"sshd\0-D", ppid=1, vpid=50)
    tty = story.file(FileType.DEVICE, "/dev/pts/0", inode=5)
    hosts = story.file(FileType.FILE, "/etc/hosts", inode=77, device=8 << 20 | 1)
    ends = {"protocol": 6, "local_ip": bytes([10, 0, 0, 1]), "remote_ip": bytes([10, 0, 0, 2])}
    web = story.file(
        FileType.IPV4, "10.0.0.1:4000->10.0.0.2:80", local_port=4000, remote_port=80, **ends
    )
    came = story.file(
        FileType.IPV4,
        "10.0.0.2:5000->10.0.0.1:22",
        local_port=22,
        remote_port=5000,
        is_server=1,
        **ends,
    )
    ssh = story.file(FileType.IPV4, "0.0.0.0:22", protocol=6, local_port=22, is_server=1)
    six = story.file(FileType.IPV6, ":::80", protocol=6, local_port=80, is_server=1)
    notify = story.file(FileType.UNIX, "/run/systemd/notify")
    pipe = story.file(FileType.PIPE, "pipe:[4711]", inode=4711)
    story.tell("write", sh, 1, 0x1000, 5, fd=1, file=tty, result=5, data=b"hello")
    # The child runs, and has become another program, before its parent comes back from clone.
    story.tell("close", kid, 9, fd=9, result=-9)
    story.tell("execve", cat, path="/bin/cat")
    story.tell("clone", sh, CLONE_SHELL, result=101)
    story.tell("openat", cat, -100, 1, 0, path="/etc/hosts", result=3, fd=3, file=hosts)
    story.tell("read", cat, 3, 1, 4096, fd=3, file=hosts, result=10, data=b"127.0.0.1 ")
    story.tell("newfstatat", cat, 3, 0, 0)
    story.tell("statx", cat, 3, 0, 0)
    story.tell("write", cat, 1, 1, 10, fd=1, file=tty, result=10, data=b"127.0.0.1 ")
    story.tell("close", cat, 3, fd=3, file=hosts)
    story.tell("openat", cat, -100, 1, 0o1101, 0o644, path="/nope/x", result=-2)
    story.tell("connect", cat, 4, 0, 16, fd=4, file=web)
    story.tell("sendto", cat, 4, 0, 3, fd=4, file=web, result=3, data=b"GET")
    story.tell("rename", cat, 0, 0, path="/tmp/a", path2="/tmp/b")
    story.tell("accept4", sshd, 3, 0, 0, fd=7, file=came, result=7)
    story.tell("read", sshd, 7, 0, 100, fd=7, file=came, result=10)
    story.tell("listen", sshd, 3, 128, fd=3, file=ssh)
    story.tell("listen", sshd, 6, 128, fd=6, file=six)
    story.tell("sendmsg", sshd, 8, 0, 0, fd=8, file=notify, result=12)
    story.tell("pipe2", sshd, 1, 0)
    story.tell("read", sshd, 9, 0, 100, fd=9, file=pipe, result=-11)
    story.tell("exit_group", cat, 3, flags=Flag.UNFINISHED, latency_ns=0)
    return story.events()


def exported(path: Path, *batches: Events) -> Exported:
    with path.open("wb") as out:
        return export(lambda: batches, out, "web1", 2)


def imported(path: Path) -> Events:
    with ScapReader(path) as reader:
        return concatenate(list(reader))


def sysdig(path: Path, fields: str, *more: str) -> list[list[str]]:
    """What sysdig says of each event; `-` where it knows nothing."""
    assert SYSDIG
    command = [SYSDIG, "-r", str(path), "-p", "*" + fields.replace(" ", "\t"), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert not done.stderr
    return [
        ["-" if field == "<NA>" else field for field in line.split("\t")]
        for line in done.stdout.splitlines()
    ]


def told(events: Events) -> list[tuple[object, ...]]:
    """What counts of each event, with texts for rows of tables."""
    texts = events.texts
    columns = ("time_ns", "latency_ns", "cpu", "flags", "syscall", "result", "tid", "fd")
    rows = zip(*(events[name].tolist() for name in columns), strict=True)
    others = [
        *(events[name].tolist() for name in ("path", "path2", "data")),
        *(events.of_process(name).tolist() for name in ("name", "exe", "cmdline", "cwd")),
        events.of_file("name").tolist(),
    ]
    numbers = zip(*(events.of_process(n).tolist() for n in ("pid", "uid", "gid")), strict=True)
    return [
        (*row, *(texts[i] for i in indices), *ids)
        for row, indices, ids in zip(rows, zip(*others, strict=True), numbers, strict=True)
    ]


@needs_sysdig
def test_sysdig_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.scap"
    events = a_day_of_a_shell()
    assert exported(path, events).events == len(events)
    fields = "%evt.rawtime %thread.tid %proc.name %evt.type %evt.rawres %evt.latency"
    lines = sysdig(path, fields, "evt.dir=<")
    finished = [row for row in range(len(events)) if not events["flags"][row]]
    assert len(lines) == len(finished)
    for line, row in zip(lines, finished, strict=True):
        call = name_of(int(events["syscall"][row]))
        is_generic = call not in scap_calls() or scap_calls()[call].is_generic
        assert line == [
            str(events["time_ns"][row] + events["latency_ns"][row]),
            str(events["tid"][row]),
            events.texts[events.of_process("name")[row]].decode(),
            NAMES.get(call, call),
            # sysdig does not keep the result of a call of which it knows no more than the name.
            "-" if is_generic else str(events["result"][row]),
            str(events["latency_ns"][row]),
        ]


# What sysdig calls calls that it takes for the same, or does not know.
NAMES = {"accept4": "accept", "pipe2": "pipe", "statx": "<unknown>"}


@needs_sysdig
def test_sysdig_knows_the_same_processes_and_files(tmp_path: Path) -> None:
    path = tmp_path / "a.scap"
    exported(path, a_day_of_a_shell())
    who = "%proc.name %proc.pid %proc.ppid %proc.pname %proc.exe %proc.args %user.uid %proc.cwd"
    assert sysdig(path, who, "evt.type=openat and evt.dir=< and fd.num>=0") == [
        ["cat", "101", "100", "sh", "cat", "/etc/hosts", "1000", "/home/"]
    ]
    opened = "%fd.num %fd.typechar %fd.name %evt.args"
    lines = sysdig(path, opened, "fd.name exists and evt.dir=< and evt.type!=bind")
    assert [line[:3] for line in lines if line[2]] == [
        ["1", "f", "/dev/pts/0"],
        ["3", "f", "/etc/hosts"],
        ["3", "f", "/etc/hosts"],
        ["1", "f", "/dev/pts/0"],
        ["3", "f", "/etc/hosts"],
        ["-1", "f", "/nope/x"],
        ["4", "4", "10.0.0.1:4000->10.0.0.2:80"],
        ["4", "4", "10.0.0.1:4000->10.0.0.2:80"],
        ["7", "4", "10.0.0.2:5000->10.0.0.1:22"],
        ["7", "4", "10.0.0.2:5000->10.0.0.1:22"],
        ["3", "4", "0.0.0.0:22"],
        ["6", "6", ":::80"],
        ["8", "u", "/run/systemd/notify"],
        ["9", "p", "pipe:[4711]"],
    ]
    made = sysdig(path, "%evt.args", "fd.name=/nope/x")
    assert "flags=262(O_TRUNC|O_CREAT|O_WRONLY) mode=0644" in made[0][0]
    assert (
        sysdig(path, "%fd.sport %fd.cport %fd.sip", "fd.num=7 and evt.type=read")
        == [["22", "5000", "10.0.0.1"]] * 2
    )
    assert sysdig(path, "%proc.name %evt.args", "evt.type=procexit") == [
        ["cat", "status=768 ret=3 sig=0 core=0 "]
    ]


@needs_sysdig
def test_every_call_there_is_is_read_by_sysdig(tmp_path: Path) -> None:
    path = tmp_path / "a.scap"
    story = Story()
    cat = story.process(7, "cat", exe="/bin/cat", cmdline=b"cat")
    calls = [c.name for c in all_syscalls().values() if c.number is not None]
    for name in calls:
        story.tell(name, cat, 1, 2, 3, 4, 5, 6, result=-22)
    exported(path, story.events())
    lines = sysdig(path, "%evt.type %evt.dir %evt.latency %evt.args")
    assert len(lines) == 2 * len(calls)
    assert all(line[2] == "5000" for line in lines[1::2])
    known = [c for c in calls if c in scap_calls() and not scap_calls()[c].is_generic]
    assert len(known) > 100
    failed = {
        line[0] for line in lines[1::2] if "-22(EINVAL)" in line[3] or "res=4294967274" in line[3]
    }
    # Those that sysdig itself gives no result, or a number that is no error.
    silent = {"sendmmsg", "recvmmsg", "getsockname", "getpeername"}
    numbers = {"brk", "mmap", "getuid", "geteuid", "getgid", "getegid"}
    expected = {c for c in known if c not in silent | numbers}
    assert len(failed) >= len({c.rstrip("0123456789") for c in expected}) - 5


def test_what_is_exported_is_imported_again(tmp_path: Path) -> None:
    events = a_day_of_a_shell()
    exported(tmp_path / "a.scap", events)
    with ScapReader(tmp_path / "a.scap") as reader:
        read = concatenate(list(reader))
        assert (reader.host, reader.is_torn, dict(reader.skipped)) == ("web1", False, {})
    for got, want in zip(told(read), told(events), strict=True):
        # pipe2 has become the older call, whose events it shares.
        assert got[:4] + got[5:] == want[:4] + want[5:]
    older = {"pipe2": "pipe"}
    names = [name_of(int(n)) for n in events["syscall"]]
    assert [name_of(int(n)) for n in read["syscall"]] == [older.get(n, n) for n in names]
    sockets = read.files[np.isin(read.files["type"], (FileType.IPV4,))]
    assert {(int(f["local_port"]), int(f["remote_port"])) for f in sockets} == {
        (4000, 80),
        (22, 5000),
        (22, 0),
    }


@needs_sysdig
@pytest.mark.parametrize("how", [[], ["-z"]], ids=["plain", "compressed"])
def test_what_sysdig_writes_is_imported(tmp_path: Path, how: list[str]) -> None:
    assert SYSDIG
    exported(tmp_path / "a.scap", a_day_of_a_shell())
    command = [SYSDIG, "-r", str(tmp_path / "a.scap"), *how, "-w", str(tmp_path / "b.scap")]
    subprocess.run(command, check=True, timeout=60)
    assert ((tmp_path / "b.scap").read_bytes()[:2] == b"\x1f\x8b") == bool(how)
    assert told(imported(tmp_path / "b.scap")) == told(imported(tmp_path / "a.scap"))


# Calls whose number and arguments a file of sysdig keeps: not those that share their events.
EXACT = sorted(
    name
    for name, call in scap_calls().items()
    if call.is_generic or [c.enter_type for c in scap_calls().values()].count(call.enter_type) == 1
)
CALLS = st.lists(
    st.tuples(
        st.sampled_from(EXACT),
        st.integers(1, 5),
        st.lists(st.integers(0, 2**32 - 1), max_size=6),
        st.integers(-200, 200),
        st.integers(0, 50_000),
        st.sampled_from([b"", b"/etc/a", b"/\xff\xfe"]),
    ),
    max_size=12,
)


@SHARED
@given(calls=CALLS, cut=st.integers(0, 12))
def test_any_calls_come_back(tmp_path: Path, calls: list[tuple], cut: int) -> None:
    story = Story()
    processes = {tid: story.process(tid, f"p{tid}", cwd="/") for tid in range(1, 6)}
    free_at = dict.fromkeys(processes, 0)
    for name, tid, args, result, latency_ns, path in calls:
        # A thread does one thing at a time.
        story.now = max(story.now, free_at[tid])
        story.tell(name, processes[tid], *args, result=result, latency_ns=latency_ns, path=path)
        free_at[tid] = story.now - 10_000 + latency_ns + 1
    events = story.events()
    # As a trace has them: in the order in which they ended.
    order = np.argsort(events["time_ns"] + events["latency_ns"], kind="stable")
    events = events.select(order)
    rows = np.arange(len(events))
    done = exported(tmp_path / "a.scap", events.select(rows[:cut]), events.select(rows[cut:]))
    assert done.events == len(events)
    read = imported(tmp_path / "a.scap")
    for name in ("time_ns", "latency_ns", "tid", "syscall"):
        assert read[name].tolist() == events[name].tolist(), name
    finished = [
        row
        for row in range(len(events))
        if not scap_calls()[name_of(int(events["syscall"][row]))].is_generic
    ]
    silent = {"sendmmsg", "recvmmsg", "getsockname", "getpeername"}
    silent |= {"getuid", "geteuid", "getgid", "getegid"}
    for row in finished:
        if name_of(int(events["syscall"][row])) not in silent:
            assert read["result"][row] == events["result"][row]


def test_a_call_that_lasts_is_entered_in_its_place(tmp_path: Path) -> None:
    story = Story()
    sh, cat = story.process(1, "sh"), story.process(2, "cat")
    story.tell("wait4", sh, latency_ns=1_000_000)
    for _ in range(50):
        story.tell("read", cat, 0, 0, 1)
    events = story.events()
    order = np.argsort(events["time_ns"] + events["latency_ns"])
    events = events.select(order)
    assert events["tid"][-1] == 1
    rows = np.arange(len(events))
    exported(tmp_path / "a.scap", *(events.select(rows[i : i + 10]) for i in range(0, 51, 10)))
    if SYSDIG:
        times = [int(line[0]) for line in sysdig(tmp_path / "a.scap", "%evt.rawtime")]
        assert times == sorted(times)
        assert len(times) == 102
    read = imported(tmp_path / "a.scap")
    assert read["latency_ns"].tolist() == events["latency_ns"].tolist()


def test_a_half_seen_call_is_half_told(tmp_path: Path) -> None:
    story = Story()
    cat = story.process(2, "cat")
    story.tell("read", cat, 3, 0, 9, result=5, flags=Flag.ENTRY_LOST, latency_ns=0)
    story.tell("read", cat, 3, 0, 9, flags=Flag.UNFINISHED, latency_ns=0)
    story.tell("futex", cat, 3, 0, 9, flags=Flag.UNFINISHED, latency_ns=0)
    exported(tmp_path / "a.scap", story.events())
    read = imported(tmp_path / "a.scap")
    assert read["flags"].tolist() == [Flag.ENTRY_LOST, Flag.UNFINISHED, Flag.UNFINISHED]
    assert [name_of(int(n)) for n in read["syscall"]] == ["read", "read", "futex"]
    assert read["arg2"].tolist() == [0, 9, 9]


def test_a_file_cut_anywhere_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "a.scap"
    exported(path, a_day_of_a_shell())
    data = path.read_bytes()
    whole = imported(path)
    ends, at = set(), 0
    while at < len(data):
        at += BLOCK.unpack_from(data, at)[1]
        ends.add(at)
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        if cut < min(ends):
            with pytest.raises(CaptureInvalid):
                imported(path)
            continue
        with ScapReader(path) as reader:
            batches = list(reader)
            assert reader.is_torn == (cut not in ends)
            assert reader.torn_bytes == min(cut - end for end in ends if end <= cut)
        read = concatenate(batches)
        finished = read.select(read["flags"] == 0)
        assert told(finished) == told(whole)[: len(finished)]


def test_every_byte_flipped_once_is_refused_or_read(tmp_path: Path) -> None:
    path = tmp_path / "a.scap"
    exported(path, a_day_of_a_shell())
    data = path.read_bytes()
    refused = 0
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
        try:
            sound(imported(path))
        except CaptureInvalid as error:
            assert error.place
            refused += 1
    # Such a file has no checksums: only what does not fit together can be noticed.
    assert refused > len(data) / 10


@SHARED
@given(data=st.data())
def test_any_changes_are_safe(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.scap"
    exported(path, a_day_of_a_shell())
    changed = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] = data.draw(st.sampled_from([0, 1, 2, 127, 128, 255, changed[at] ^ 1]))
    path.write_bytes(changed)
    try:
        sound(imported(path))
    except CaptureInvalid as error:
        assert error.what


def sound(events: Events) -> None:
    assert {len(events[name]) for name in COLUMNS} == {len(events)}
    events.compact()


def test_hostile_files_are_refused_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.scap"
    exported(path, a_day_of_a_shell())
    good = path.read_bytes()
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    bomb = packer.compress(good + BLOCK.pack(0x216, 1 << 30))
    bomb += b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
    others = [
        b"",
        b"\x7fELF" * 20,
        good + BLOCK.pack(0x216, 0xFFFF_FFF0) + bytes(100),
        good + BLOCK.pack(0x216, 4) + bytes(100),
        good + block(0x216, bytes(10)),
        good + block(0x204, bytes(24) + b"\xff" * 50),
        good + block(0x215, b"\1\0\0\0"),
        good + block(0x203, bytes(16) + b"\xee" * 20),
        b"\x1f\x8b" + b"\xff" * 100,
        bomb,
    ]
    tracemalloc.start()
    try:
        for data in others:
            path.write_bytes(data)
            with pytest.raises(CaptureInvalid):
                imported(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(CaptureInvalid, match="regular"):
        ScapReader(tmp_path)


def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.scap"
    exported(path, a_day_of_a_shell())
    good = path.read_bytes()
    # Version 1 of the list: ids, four empty texts, limits.
    threads = [struct.pack("<QQQ", tid, tid, 0) + bytes(28) for tid in range(70_000)]
    path.write_bytes(good + block(0x202, b"".join(threads)))
    with pytest.raises(CaptureInvalid, match="threads at a time"):
        imported(path)
    path.write_bytes(good + block(0x202, b"".join(threads[:60_000])))
    assert len(imported(path)) == 22
    files = [struct.pack("<QQBH", fd, 0, 1, 0) for fd in range(300_000)]
    path.write_bytes(good + block(0x203, bytes(8) + b"".join(files)))
    with pytest.raises(CaptureInvalid, match="open files at a time"):
        imported(path)


def test_a_torn_compressed_file_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "a.scap"
    exported(path, a_day_of_a_shell())
    packer = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    data = packer.compress(path.read_bytes()) + packer.flush()
    path.write_bytes(data[: len(data) * 2 // 3])
    with ScapReader(path) as reader:
        assert sum(map(len, reader)) > 3
        assert reader.is_torn


@given(st.integers(0, 2**25 - 1), st.integers(0, 2**32 - 1))
def test_flags_are_said_in_sysdigs_words_and_back(opening: int, cloning: int) -> None:
    # The bits of O_SYNC and O_TMPFILE contain those of O_DSYNC and O_DIRECTORY.
    once = open_flags_back(open_flags(opening))
    assert open_flags(once) == open_flags(opening)
    assert clone_flags(clone_flags_back(clone_flags(cloning))) == clone_flags(cloning)
    assert all(fcntl_command_back(fcntl_command(c)) == c for c in (0, 1, 2, 3, 4, 1030))
    assert open_flags(0o1101) == 0b100000110


def test_users_and_groups_have_the_traced_hosts_names(tmp_path: Path) -> None:
    """Not those that the machine has that reads it."""
    web = Process(
        7, "web", uid=4711, gid=4712, loginuid=4713, user="we b", group="gr", loginuser="ü"
    )
    bare = Process(8, "bare", uid=4714, gid=4715)
    calls = [Call("getppid", tid=7, process=web), Call("getppid", tid=8, process=bare)]
    path = write_scap(tmp_path / "a.scap", batch(calls))
    with ScapReader(path) as reader:
        events = concatenate(list(reader))
    names = [
        tuple(events.texts[row[name]].decode() for name in ("user", "group", "loginuser"))
        for row in events.processes[events["process"]]
    ]
    assert names == [("we b", "gr", "ü"), ("", "", "")]
    if SYSDIG is not None:
        fields = "%evt.dir %proc.name %user.name/%group.name/%user.loginname"
        told = told_events(path, fields, "evt.dir=<")
        assert told[0] == "< web we b/gr/ü"
