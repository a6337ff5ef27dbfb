"""Processes that are stuck for real, each told with who holds it. Witnesses are the tests' own.

What holds and what waits is made by each test; the pids are those that fork(2) gave it.
"""

from __future__ import annotations

import ctypes
import os
import pty
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from stuck_here import child, diagnose, found_at, holders, python, until

from hostler.api.tracing.v1 import diagnosis_pb2 as pb
from hostlerd.runtime.errors import InvalidRequest
from hostlerd.tracing.errors import ProcessNotFound
from hostlerd.tracing.kernel import Kernel

pytestmark = pytest.mark.kernel

# pause(2), as /proc/PID/syscall has it on x86-64.
PAUSE = "34"
FREEZER = Path("/sys/fs/cgroup/freezer")
UNIFIED = next(
    (
        p
        for p in map(Path, ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"))
        if (p / "cgroup.procs").exists() and (p / "cgroup.controllers").exists()
    ),
    None,
)


def test_a_pipe_that_is_not_read(tmp_path: Path) -> None:
    inner, outer = os.pipe()
    with child(signal.pause) as reader:
        os.close(inner)
        with child(lambda: os.write(outer, bytes(1 << 20))) as writer:
            os.close(outer)
            finding = found_at(writer)
            assert (finding.kind, finding.fd) == (pb.WAIT_KIND_PIPE, outer)
            assert holders(finding) == [reader]
            assert "has the end to read from" in finding.sentence
            os.kill(reader, signal.SIGSTOP)
            assert found_at(writer).holders[0].trouble == "is suspended by a signal"


def test_whoever_goes_on_while_evidence_is_looked_for_is_not_told() -> None:
    inner, outer = os.pipe()

    class Late(Kernel):
        """What was stuck at the second look is read from before the evidence is complete."""

        def evidence(self, *args: Any) -> Any:
            found = super().evidence(*args)
            os.set_blocking(inner, False)
            with suppress(BlockingIOError):
                while os.read(inner, 1 << 16):
                    os.sched_yield()
            until(lambda: Path(f"/proc/{writer}/syscall").read_text().split()[0] == PAUSE)
            return found

    def write_and_rest() -> None:
        os.write(outer, bytes(100_000))
        signal.pause()

    with child(write_and_rest) as writer:
        found_at(writer)
        told = diagnose(Late())
        assert writer not in {each.process.pid for each in told.findings}
    os.close(inner)
    os.close(outer)


def test_a_terminal_that_is_not_read() -> None:
    """What hangs when a terminal emulator or sshd stands still; others have terminals too."""
    master, slave = pty.openpty()
    name = os.ttyname(slave)
    others = pty.openpty()
    with child(signal.pause) as emulator:
        os.close(master)
        with child(lambda: os.write(slave, bytes(1 << 20))) as writer:
            finding = found_at(writer)
            assert (finding.kind, finding.target) == (pb.WAIT_KIND_DEVICE, name)
            assert holders(finding) == [emulator]
            assert f"python ({emulator}) has the other end" in finding.sentence
    for fd in (slave, *others):
        os.close(fd)


def test_a_pipe_that_nobody_writes() -> None:
    """The reader has the only end to write to; whoever hides what it has open is told of."""
    inner, outer = os.pipe()
    with child(lambda: os.read(inner, 1)) as reader:
        os.close(inner)
        os.close(outer)
        until(lambda: diagnose(pid=reader).findings[0].kind == pb.WAIT_KIND_PIPE)
        (finding,) = diagnose(pid=reader).findings
        assert finding.target.startswith("pipe:[")
        assert holders(finding) == []
        hides = any(w.code == "DESCRIPTORS_HIDDEN" for w in diagnose(pid=reader).warnings)
        nobody = "nobody else that can be seen" if hides else "nobody else"
        assert finding.sentence.endswith(f"{nobody} has the other end open")


def test_a_fifo_that_nobody_opens(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with child(lambda: os.open(fifo, os.O_WRONLY)) as opener:
        finding = found_at(opener)
        assert (finding.kind, finding.syscall) == (pb.WAIT_KIND_FIFO_OPEN, "openat")
        assert finding.target == str(fifo)
        assert "has opened the other end" in finding.sentence


def test_a_socket_whose_peer_does_not_read() -> None:
    mine, theirs = socket.socketpair()
    with child(signal.pause) as reader:
        mine.close()
        with child(lambda: theirs.sendall(bytes(1 << 24))) as sender:
            fd = theirs.fileno()
            theirs.close()
            finding = found_at(sender)
            assert (finding.kind, finding.fd) == (pb.WAIT_KIND_SOCKET, fd)
            assert reader in holders(finding)


def test_a_connection_that_is_not_accepted(tmp_path: Path) -> None:
    """Its peer is nobody's yet: who listens at the path is the one that should take it."""
    door = str(tmp_path / "door")
    inner, outer = os.pipe()

    def listen() -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(door)
            server.listen(1)
            os.write(outer, b".")
            signal.pause()

    def send() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(door)
            sock.sendall(bytes(1 << 24))

    with child(listen) as listener:
        os.read(inner, 1)
        with child(send) as sender:
            finding = found_at(sender)
            assert (finding.kind, holders(finding)) == (pb.WAIT_KIND_SOCKET, [listener])
            assert f"a unix socket to {door}, which has not accepted it" in finding.sentence
    os.close(inner)
    os.close(outer)


def test_a_connection_that_is_not_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def take() -> None:
            kept = server.accept()
            signal.pause()
            del kept

        def send() -> None:
            server.close()
            socket.create_connection(("127.0.0.1", port)).sendall(bytes(1 << 26))

        with child(take) as reader:
            with child(send) as sender:
                finding = found_at(sender)
                assert finding.kind == pb.WAIT_KIND_SOCKET
                assert holders(finding) == [reader]
                assert f"a TCP connection to 127.0.0.1:{port}" in finding.sentence


# The root of each version's groups, and how a group is frozen and thawed.
FREEZERS = {
    "v1": (FREEZER, "freezer.state", "FROZEN", "THAWED"),
    "v2": (UNIFIED, "cgroup.freeze", "1", "0"),
}


@contextmanager
def frozen(pid: int, version: str) -> Iterator[str]:
    """Freeze a process by the group above its own; yields the path of that."""
    root, switch, on, off = FREEZERS[version]
    assert root is not None
    outer = root / f"hostler-stuck-{os.getpid()}"
    inner = outer / "inner"
    inner.mkdir(parents=True)
    # In version 1 a process is elsewhere in each hierarchy.
    before = root / own_group(root).lstrip("/")
    try:
        (inner / "cgroup.procs").write_text(str(pid))
        (outer / switch).write_text(on)
        yield f"/{outer.name}"
    finally:
        (outer / switch).write_text(off)
        (before / "cgroup.procs").write_text(str(pid))
        for group in (inner, outer):
            for _ in range(100):
                with suppress(OSError):
                    group.rmdir()
                    break
                time.sleep(0.05)


def own_group(root: Path) -> str:
    """Where this process is in the hierarchy that is mounted at a place."""
    wanted = "freezer" if root == FREEZER else ""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == wanted:
            return path
    raise AssertionError(f"in no group of {root}")


@pytest.mark.parametrize(
    "version",
    [
        name
        for name, (root, *_) in FREEZERS.items()
        if root is not None and (root / "cgroup.procs").exists()
    ],
)
def test_a_process_in_a_frozen_group_and_who_waits_for_it(version: str) -> None:
    """What is named is the group that was frozen, not the one below it that the process is in."""
    inner, outer = os.pipe()
    with child(signal.pause) as asleep:
        os.close(outer)
        with child(lambda: os.read(inner, 1)) as waiter, frozen(asleep, version) as group:
            os.close(inner)
            finding = found_at(asleep)
            assert finding.kind == pb.WAIT_KIND_FROZEN
            assert finding.sentence.endswith(f"is frozen with its control group {group}")
            waits = found_at(waiter)
            assert holders(waits) == [asleep]
            assert f"has the end to write to and is frozen with its control group {group}" in (
                waits.sentence
            )


def test_a_process_that_is_stopped_and_one_that_is_traced() -> None:
    with child(signal.pause) as stopped:
        os.kill(stopped, signal.SIGSTOP)
        assert found_at(stopped).kind == pb.WAIT_KIND_STOPPED
    with child(signal.pause) as traced:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.ptrace(0x4206, traced, 0, 0) == 0  # PTRACE_SEIZE
        assert libc.ptrace(0x4207, traced, 0, 0) == 0  # PTRACE_INTERRUPT
        finding = found_at(traced)
        assert finding.kind == pb.WAIT_KIND_TRACED
        assert holders(finding) == [os.getpid()]
        assert "traces it" in finding.sentence


LOG_DAEMON = """
import os, signal, socket, sys
door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
door.bind(sys.argv[1])
log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
print("ready", flush=True)
while True:
    record = door.recv(65536)
    try:
        os.write(log, record)
    except OSError:
        # As auditd does by disk_full_action = suspend: it stays, and takes no more.
        signal.pause()
"""


def test_whoever_logs_to_a_daemon_whose_disk_is_full(tmp_path: Path) -> None:
    """The audit daemon that blocked every login: its disk full, itself suspended."""
    disk, door = tmp_path / "audit", tmp_path / "door"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], check=True)
    try:
        with python(LOG_DAEMON, str(door), str(disk / "audit.log")) as daemon:
            assert daemon.stdout is not None and daemon.stdout.readline() == "ready\n"

            def log_in() -> None:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                sock.connect(str(door))
                while True:
                    sock.send(bytes(4000))

            with child(log_in) as login:
                finding = found_at(login)
                assert finding.kind == pb.WAIT_KIND_SOCKET
                assert str(door) in finding.sentence
                assert holders(finding) == [daemon.pid]
                used = int(df(disk))
                assert f"its disk at {disk} is {used} % full" in finding.sentence
                assert finding.filesystem.mount_point == str(disk)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def df(place: Path) -> str:
    done = subprocess.run(
        ["df", "--output=pcent", str(place)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()[1].rstrip("%")


def test_a_file_system_that_is_frozen(tmp_path: Path) -> None:
    """State D for real: ext4 on a loop device, held by fsfreeze(8) as a snapshot does."""
    image, place = tmp_path / "image", tmp_path / "place"
    place.mkdir()
    image.write_bytes(bytes(8 << 20))
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    try:
        subprocess.run(["fsfreeze", "-f", str(place)], check=True)
        try:
            with child(lambda: (place / "new").write_text("x")) as writer:
                finding = found_at(writer)
                assert (finding.state, finding.kind) == ("D", pb.WAIT_KIND_STORAGE)
                assert finding.filesystem.mount_point == str(place)
                source = subprocess.run(
                    ["findmnt", "-no", "SOURCE", str(place)],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout.strip()
                assert f"/dev/{finding.block_device.name}" == source
                assert finding.stack or finding.stack_unavailable
                subprocess.run(["fsfreeze", "-u", str(place)], check=True)
        finally:
            subprocess.run(["fsfreeze", "-u", str(place)], check=False, capture_output=True)
    finally:
        # Whoever looks through all mounts of the host at this moment keeps it busy.
        until(lambda: subprocess.run(["umount", str(place)], check=False).returncode == 0)


FUSE_SERVER = """
import os, struct, sys, time
libc = __import__("ctypes").CDLL(None, use_errno=True)
fd = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
assert libc.mount(b"none", sys.argv[1].encode(), b"fuse", 0, options) == 0
_, opcode, unique = struct.unpack_from("=IIQ", os.read(fd, 1 << 16))
assert opcode == 26  # FUSE_INIT; struct fuse_init_out is all that is ever answered.
os.write(fd, struct.pack("=IiQIIIIHHIII32x", 80, 0, unique, 7, 31, 0, 0, 0, 0, 1 << 16, 0, 0))
print("ready", flush=True)
time.sleep(600)
"""


def test_a_file_system_whose_server_does_not_answer(tmp_path: Path) -> None:
    with python(FUSE_SERVER, str(tmp_path)) as server:
        try:
            assert server.stdout is not None and server.stdout.readline() == "ready\n"
            with child(lambda: (tmp_path / "x").stat()) as reader:
                finding = found_at(reader)
                assert finding.kind == pb.WAIT_KIND_STORAGE
                assert finding.filesystem.type == "fuse"
                assert finding.filesystem.mount_point == str(tmp_path)
                assert server.pid in holders(finding)
                server.kill()
                server.wait()
        finally:
            subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_who_is_asked_for_is_told_and_who_is_not_there_is_not_found() -> None:
    with child(lambda: time.sleep(600)) as sleeper:
        (finding,) = diagnose(pid=sleeper).findings
        assert (finding.kind, finding.syscall) == (pb.WAIT_KIND_IDLE, "clock_nanosleep")
        assert sleeper not in {f.process.pid for f in diagnose().findings}
    with pytest.raises(ProcessNotFound):
        diagnose(pid=sleeper)
    with pytest.raises(ProcessNotFound):
        diagnose(name="no-such-thing")
    for bad in ({"pid": -1}, {"pid": 1 << 30}, {"name": "x" * 16}, {"pid": 1, "name": "x"}):
        with pytest.raises(InvalidRequest):
            diagnose(**bad)


def test_the_whole_host_is_looked_at_in_a_moment() -> None:
    took_ms = [diagnose().took.ToNanoseconds() / 1e6 for _ in range(10)]
    answer = diagnose()
    print(f"\n{answer.tasks} threads: {min(took_ms):.0f} ms at best, {max(took_ms):.0f} at worst")
    assert answer.tasks >= len([n for n in Path("/proc").iterdir() if n.name.isdigit()]) - 20
    assert {each.resource for each in answer.pressure} <= {"cpu", "memory", "io"}
