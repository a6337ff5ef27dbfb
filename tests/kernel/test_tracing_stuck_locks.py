"""Processes that wait for locks: of programs, in shared memory, of files; told with the holder."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from stuck_here import child, diagnose, found_at, holders, python, until

from hostler.api.tracing.v1 import diagnosis_pb2 as pb

pytestmark = pytest.mark.kernel

THREADS = """
import ctypes, threading, time
libc = ctypes.CDLL(None)
mutex = ctypes.create_string_buffer(64)
def hold():
    libc.pthread_mutex_lock(mutex)
    print(threading.get_native_id(), flush=True)
    time.sleep(600)
threading.Thread(target=hold, daemon=True).start()
time.sleep(0.3)
libc.pthread_mutex_lock(mutex)
"""


def test_a_mutex_that_another_thread_holds() -> None:
    with python(THREADS) as process:
        assert process.stdout is not None
        owner = int(process.stdout.readline())
        finding = found_at(process.pid)
        assert (finding.kind, finding.syscall) == (pb.WAIT_KIND_FUTEX, "futex")
        assert [each.tid for each in finding.holders] == [owner]
        assert f"thread {owner}, owns the lock" in finding.sentence


SHARED = """
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None)
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 4096)
memory = mmap.mmap(fd, 4096)
mutex = ctypes.byref(ctypes.c_char.from_buffer(memory))
attributes = ctypes.create_string_buffer(64)
if len(sys.argv) > 2:
    libc.pthread_mutexattr_init(attributes)
    libc.pthread_mutexattr_setpshared(attributes, 1)
    libc.pthread_mutex_init(mutex, attributes)
libc.pthread_mutex_lock(mutex)
print("held", flush=True)
sys.stdin.read() if False else __import__("time").sleep(600)
"""


def test_a_mutex_in_a_file_that_another_process_holds_and_then_leaves(tmp_path: Path) -> None:
    """What hung yum: locks in a shared file, whose owner was killed."""
    place = str(tmp_path / "db")
    with python(SHARED, place, "first") as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with python(SHARED, place) as waiter:
            finding = found_at(waiter.pid)
            assert finding.kind == pb.WAIT_KIND_FUTEX
            assert holders(finding) == [holder.pid]
            assert "owns the lock" in finding.sentence
            holder.kill()
            holder.wait()
            gone = found_at(waiter.pid)
            assert gone.sentence.endswith(f"the owner of the lock, {holder.pid}, is gone")


def test_locks_that_nobody_can_release() -> None:
    """The sketch's case: a thread that waits for a lock which it holds itself."""
    with python("import threading; k = threading.Lock(); k.acquire(); k.acquire()") as process:
        finding = found_at(process.pid)
        assert finding.kind == pb.WAIT_KIND_FUTEX
        assert "nobody seen could wake them" in finding.sentence


def flocked(path: Path) -> None:
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        signal.pause()


def locked(path: Path) -> None:
    with path.open("r+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        signal.pause()


def locked_by_description(path: Path) -> None:
    with path.open("r+") as file:
        lock = struct.pack("hhlli", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLKW, lock)
        signal.pause()


@pytest.mark.parametrize("take", [flocked, locked, locked_by_description])
def test_a_lock_of_a_file_that_another_holds(tmp_path: Path, take: Callable[[Path], None]) -> None:
    path = tmp_path / "lock"
    path.touch()
    with child(lambda: take(path)) as holder:
        until(lambda: f":{path.stat().st_ino} " in Path("/proc/locks").read_text())
        with child(lambda: take(path)) as waiter:
            finding = found_at(waiter)
            assert finding.kind == pb.WAIT_KIND_FILE_LOCK
            assert finding.target == str(path)
            assert holders(finding) == [holder]
            assert "holds the lock" in finding.sentence


def test_a_lock_that_a_child_has_inherited_from_one_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    inner, outer = os.pipe()

    def leave_it_to_a_child() -> None:
        file = path.open()
        fcntl.flock(file, fcntl.LOCK_EX)
        heir = os.fork()
        if heir == 0:
            os.close(outer)
            signal.pause()
        os.write(outer, f"{heir}\n".encode())

    with child(leave_it_to_a_child):
        heir = int(os.read(inner, 100))
        try:
            with child(lambda: flocked(path)) as waiter:
                assert holders(found_at(waiter)) == [heir]
        finally:
            os.kill(heir, signal.SIGKILL)
            os.close(inner)
            os.close(outer)


def test_workers_that_take_turns_are_not_stuck(tmp_path: Path) -> None:
    """Who holds the lock listens, as in Postfix; whoever is asked for is told all the same."""
    path = tmp_path / "lock"
    path.touch()

    def serve() -> None:
        with path.open() as file, socket.create_server(("127.0.0.1", 0)) as server:
            fcntl.flock(file, fcntl.LOCK_EX)
            server.accept()

    def waits() -> pb.Finding:
        return next(iter(diagnose(pid=idle).findings))

    with child(serve) as listening:
        until(lambda: next(iter(diagnose(pid=listening).findings)).syscall == "accept4")
        with child(serve) as idle:
            until(lambda: waits().kind == pb.WAIT_KIND_FILE_LOCK)
            assert holders(waits()) == [listening]
            assert not {idle, listening} & {f.process.pid for f in diagnose().findings}
            os.kill(listening, signal.SIGSTOP)
            assert holders(found_at(idle)) == [listening]
