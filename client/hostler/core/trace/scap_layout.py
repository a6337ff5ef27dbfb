"""What a `.scap` file of sysdig consists of: blocks, and events of system calls. Pure.

`scap` writes such files and `scap_import` reads them; what both know is here. Source:
userspace/libscap/scap_savefile.h and driver/ppm_events_public.h of falcosecurity/libs.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import cache, reduce
from importlib.resources import files
from operator import or_

from hostler.core.trace.events import FileType

SECTION = 0x0A0D0D0A
SECTION_MAGIC = 0x1A2B3C4D
MACHINE = 0x201
PROCESSES = 0x215
FILES = 0x203
EVENT = 0x216
USERS = 0x220

BLOCK = struct.Struct("<II")
"""Type of a block, and its length from here to the end of the copy of the length that ends it."""
BLOCK_END = struct.Struct("<I")
SECTION_BODY = struct.Struct("<IHHQ")
MACHINE_BODY = struct.Struct("<IQQ128s32s")
EVENT_HEAD = struct.Struct("<HQQIHI")
"""Processor, time, tid, length from the time on, type, number of parameters."""
EVENT_LENGTH_FROM = 2
HOST_BYTES = 128

MAX_PATH = 1023
MAX_USER = 255
MAX_TEXTS = 4096
MAX_PARAMETER = 0x7FFF
"""sysdig keeps an event in 64 KiB, so that a parameter cannot be as long as its length could."""

GENERIC_ENTER, GENERIC_EXIT, PROCESS_EXIT = 0, 1, 186

CLONES = frozenset(("clone", "clone3", "fork", "vfork"))
EXITS = frozenset(("exit", "exit_group"))
DUPS = frozenset(("dup", "dup2", "dup3"))
MAKES_FD = frozenset(
    (
        *("open", "openat", "openat2", "creat", "socket", "accept", "accept4", "dup", "dup2"),
        *("dup3", "eventfd", "eventfd2", "signalfd", "signalfd4", "timerfd_create"),
        *("inotify_init", "inotify_init1"),
    )
)
"""Calls whose result is an fd, of which sysdig can tell from the event what it is."""


class ThreadFlag(IntFlag):
    """What sysdig knows about a thread (PPM_CL_)."""

    SHARES_FILES = 1
    IS_THREAD = 1 << 13
    KNOWN_BEFORE_CLONE = 1 << 16
    """Its own information is better than what the clone in its parent says."""


class ScapUser(IntEnum):
    """What an entry of the list of users is."""

    USER = 0
    GROUP = 1


class ScapFile(IntEnum):
    """Types of open files (SCAP_FD_)."""

    FILE = 1
    DIRECTORY = 2
    IPV4 = 3
    IPV6 = 4
    IPV4_SERVER = 5
    IPV6_SERVER = 6
    PIPE = 7
    UNIX = 8
    EVENT = 9
    UNSUPPORTED = 10
    SIGNAL = 11
    EPOLL = 12
    INOTIFY = 13
    TIMER = 14
    NETLINK = 15
    FILE_V2 = 16


FILE_TYPES: Mapping[int, ScapFile] = {
    FileType.FILE: ScapFile.FILE,
    FileType.DEVICE: ScapFile.FILE,
    FileType.MEMFD: ScapFile.FILE,
    FileType.DIRECTORY: ScapFile.DIRECTORY,
    FileType.IPV4: ScapFile.IPV4,
    FileType.IPV6: ScapFile.IPV6,
    FileType.UNIX: ScapFile.UNIX,
    FileType.PIPE: ScapFile.PIPE,
    FileType.EVENT: ScapFile.EVENT,
    FileType.SIGNAL: ScapFile.SIGNAL,
    FileType.EPOLL: ScapFile.EPOLL,
    FileType.INOTIFY: ScapFile.INOTIFY,
    FileType.TIMER: ScapFile.TIMER,
    FileType.NETLINK: ScapFile.NETLINK,
}
"""sysdig's types of our files; those that it does not know are UNSUPPORTED."""

# Bits of open(2) and of PPM_O_; the lowest two are an enumeration in the former.
_OPEN_BITS = (
    (0o100, 1 << 2),
    (0o2000, 1 << 3),
    (0o10000, 1 << 4),
    (0o200, 1 << 5),
    (0o4000, 1 << 6),
    (0o4010000, 1 << 7),
    (0o1000, 1 << 8),
    (0o40000, 1 << 9),
    (0o200000, 1 << 10),
    (0o100000, 1 << 11),
    (0o2000000, 1 << 12),
    (0o20200000, 1 << 13),
)
_ACCESS = {0: 1, 1: 2, 2: 3, 3: 3}
# Bits of clone(2) and of PPM_CL_.
_CLONE_BITS = (
    (0x400, 1 << 0),
    (0x200, 1 << 1),
    (0x80000000, 1 << 2),
    (0x08000000, 1 << 3),
    (0x40000000, 1 << 4),
    (0x20000, 1 << 5),
    (0x20000000, 1 << 6),
    (0x04000000, 1 << 7),
    (0x8000, 1 << 8),
    (0x100000, 1 << 9),
    (0x2000, 1 << 10),
    (0x800, 1 << 11),
    (0x40000, 1 << 12),
    (0x10000, 1 << 13),
    (0x800000, 1 << 14),
    (0x100, 1 << 15),
    (0x10000000, 1 << 20),
    (0x200000, 1 << 23),
    (0x1000000, 1 << 24),
    (0x80000, 1 << 25),
    (0x4000, 1 << 27),
    (0x02000000, 1 << 28),
)
# Commands of fcntl(2), F_DUPFD and on, and PPM_FCNTL_.
_FCNTL = {0: 1, 1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 8, 7: 9, 8: 10, 9: 12, 10: 13, 11: 15, 1030: 26}


def open_flags(flags: int) -> int:
    """Flags of open(2) as sysdig writes them."""
    return _ACCESS[flags & 3] | _bits(flags, _OPEN_BITS)


def open_flags_back(flags: int) -> int:
    """The reverse of `open_flags`."""
    access = (flags & 3) - 1 if flags & 3 else 0
    return access | _bits(flags, tuple((theirs, ours) for ours, theirs in _OPEN_BITS))


def clone_flags(flags: int) -> int:
    """Flags of clone(2) as sysdig writes them."""
    return _bits(flags, _CLONE_BITS)


def clone_flags_back(flags: int) -> int:
    """The reverse of `clone_flags`."""
    return _bits(flags, tuple((theirs, ours) for ours, theirs in _CLONE_BITS))


def fcntl_command(command: int) -> int:
    """A command of fcntl(2) as sysdig writes it; 0 for one that it does not know."""
    return _FCNTL.get(command, 0)


def fcntl_command_back(command: int) -> int:
    """The reverse of `fcntl_command`."""
    return next((ours for ours, theirs in _FCNTL.items() if theirs == command), 0)


def _bits(flags: int, bits: tuple[tuple[int, int], ...]) -> int:
    # O_SYNC contains O_DSYNC: each is there only if all its bits are.
    return reduce(or_, (to for bit, to in bits if flags & bit == bit), 0)


@dataclass(frozen=True, slots=True)
class ScapCall:
    """How sysdig says a system call: its number there, its events and their parameters."""

    name: str
    code: int
    enter_type: int
    exit_type: int
    enter: tuple[str, ...]
    exit: tuple[str, ...]

    @property
    def is_generic(self) -> bool:
        """Whether all that sysdig knows of the call is its number."""
        return self.enter_type == GENERIC_ENTER


@cache
def scap_calls() -> Mapping[str, ScapCall]:
    """The calls that sysdig knows, by the kernel's name."""
    text = files(__package__).joinpath("scap_calls.tsv").read_text("ascii")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return {call.name: call for call in map(_from_line, lines)}


def _from_line(line: str) -> ScapCall:
    name, code, enter_type, exit_type, enter, leave = line.split("\t")
    return ScapCall(name, int(code), int(enter_type), int(exit_type), _words(enter), _words(leave))


def _words(text: str) -> tuple[str, ...]:
    return () if text == "-" else tuple(text.split(" "))


def block(kind: int, body: bytes) -> bytes:
    """A block."""
    body += bytes(-len(body) % 4)
    length = BLOCK.size + len(body) + BLOCK_END.size
    return BLOCK.pack(kind, length) + body + BLOCK_END.pack(length)
