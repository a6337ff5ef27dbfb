"""Who holds the futex that a task waits for. Sources: futex(2), glibc's struct pthread_mutex."""

from __future__ import annotations

import os
import struct

from hostlerd.tracing.kernel import proc
from hostlerd.tracing.model.evidence import Futex
from hostlerd.tracing.model.task import Task

# linux/futex.h: a word that holds its owner has these bits beside it.
_OWNER_DIED, _TID = 0x40000000, 0x3FFFFFFF
_CONTENDED = 2
# __lock, __count and __owner lead the mutex of glibc; musl's word holds the owner itself.
_MUTEX = struct.Struct("=IIi")
_LEAST_OWNER = 3
_MOST_TID = 1 << 22
_MOST_MAPPERS = 100


def futex(task: Task) -> Futex:
    """Find the owner of the futex that a task waits for, as far as its memory tells."""
    call = task.call
    if call is None or not call.waits_on_futex:
        return Futex()
    address = call.arguments[0]
    mapping = _mapping(task.pid, address) if call.is_shared else ""
    others = _mappers(task.pid, mapping) if mapping else ()
    words = _read(task.pid, address)
    owner = _owner(words, call.arguments[2]) if words else 0
    if not owner:
        return Futex(is_shared=bool(mapping), mapped_by=others)
    tid, is_gone = _on_host(task.pid, owner, others)
    died = bool(words and words[0] & _OWNER_DIED and words[0] & _TID)
    return Futex(tid, is_gone or died, bool(mapping), others)


def _read(pid: int, address: int) -> tuple[int, int, int] | None:
    try:
        fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.pread(fd, _MUTEX.size, address)
    except (OSError, OverflowError):
        return None
    finally:
        os.close(fd)
    if len(data) < _MUTEX.size:
        return None
    lock, count, owner = _MUTEX.unpack(data)
    return lock, count, owner


def _owner(words: tuple[int, int, int], expected: int) -> int:
    """The owner's thread id in its own PID namespace; 0 if the words do not say.

    A word that counts is small; one that names its owner is what the waiter expected to find.
    """
    lock, _, owner = words
    if lock == _CONTENDED and expected & 0xFFFFFFFF == _CONTENDED:
        return owner if 0 < owner < _MOST_TID else 0
    named = lock & _TID
    return named if lock & 0x80000000 and _LEAST_OWNER <= named < _MOST_TID else 0


def _on_host(pid: int, owner: int, others: tuple[int, ...]) -> tuple[int, bool]:
    """The owner's number here, and whether it is gone; its own may be that of a PID namespace."""
    if len(proc.fields(f"/proc/{pid}/status").get("NSpid", "").split()) < 2:
        return owner, not _is_there(owner)
    for each in (pid, *others):
        for tid in proc.numbers(f"/proc/{each}/task"):
            inner = proc.fields(f"/proc/{each}/task/{tid}/status").get("NSpid", "").split()
            if inner and int(inner[-1]) == owner:
                return tid, False
    return 0, True


def _is_there(tid: int) -> bool:
    # Threads are not listed in /proc, and can be looked up there all the same.
    return bool(proc.text(f"/proc/{tid}/stat", 64))


def _mapping(pid: int, address: int) -> str:
    """The shared mapping around an address, by device and inode; "" if it is private."""
    for line in proc.text(f"/proc/{pid}/maps", proc.MOST_BYTES).splitlines():
        words = line.split(None, 5)
        start, _, end = words[0].partition("-")
        if int(start, 16) <= address < int(end, 16):
            return f"{words[3]} {words[4]}" if words[1][3] == "s" else ""
    return ""


def _mappers(pid: int, mapping: str) -> tuple[int, ...]:
    """Other processes that have the same file or memory mapped."""
    found = []
    for other in proc.processes():
        if other != pid and f" {mapping} " in proc.text(f"/proc/{other}/maps", proc.MOST_BYTES):
            found.append(other)
            if len(found) == _MOST_MAPPERS:
                break
    return tuple(found)
