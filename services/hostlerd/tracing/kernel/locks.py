"""Who holds the locks of files that tasks wait for. Source: proc(5), /proc/locks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hostlerd.tracing.kernel import proc


@dataclass(frozen=True, slots=True)
class FileLock:
    """A line of /proc/locks. `place` is device and inode; `pid` is -1 where the kernel has none."""

    number: str
    kind: str
    waits: bool
    writes: bool
    pid: int
    place: str
    start: int
    end: int | None

    def is_in_the_way_of(self, other: FileLock) -> bool:
        """Whether a lock that is held keeps another one waiting."""
        if self.waits or (self.place, self.number) != (other.place, other.number):
            return False
        return self.writes or other.writes


def parse(content: str) -> list[FileLock]:
    """Read /proc/locks. A waiter's line has "->", and the number of the lock that it waits for."""
    found = []
    for line in content.splitlines():
        words = line.split()
        waits = len(words) > 1 and words[1] == "->"
        if waits:
            del words[1]
        if len(words) != 8 or words[1] not in ("FLOCK", "POSIX", "OFDLCK"):
            continue
        end = None if words[7] == "EOF" else int(words[7])
        found.append(
            FileLock(
                *(words[0], words[1], waits, words[3] == "WRITE", int(words[4]), words[5]),
                *(int(words[6]), end),
            )
        )
    return found


def read() -> list[FileLock]:
    """All locks of files on the host."""
    return parse(proc.text("/proc/locks", proc.MOST_BYTES))


def holders(locks: Sequence[FileLock], pid: int, place: str) -> tuple[FileLock, ...] | None:
    """The locks that keep a process waiting at a file; None if it waits for none.

    Who waits for the lock of an open file description has no process there, only the file.
    """
    wanted = [
        lock
        for lock in locks
        if lock.waits and (lock.pid == pid or (lock.pid == -1 and lock.place == place))
    ]
    if not wanted:
        return None
    return tuple(lock for lock in locks if any(lock.is_in_the_way_of(w) for w in wanted))


def owners(lock: FileLock, openers: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """Which processes hold a lock: those whose descriptors of the file carry it.

    A lock of flock(2) outlives the process that took it as long as a child has the descriptor;
    that of an open file description has no process at all.
    """
    found = {pid: None for pid, fd in openers if f" {lock.place} " in _lock_lines(pid, fd)}
    return tuple(found) or ((lock.pid,) if lock.pid > 0 else ())


def _lock_lines(pid: int, fd: int) -> str:
    content = proc.text(f"/proc/{pid}/fdinfo/{fd}")
    return "\n".join(line for line in content.splitlines() if line.startswith("lock:"))
