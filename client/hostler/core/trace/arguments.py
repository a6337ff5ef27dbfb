"""The arguments of a call in words: O_RDONLY|O_CLOEXEC, AT_FDCWD, SIGTERM, 0o644. Pure.

Values are those of x86-64. A bit that has no word here is told as a number.
"""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Mapping

from hostler.core.trace import calls
from hostler.core.trace.events import Column, Events, Flag
from hostler.core.trace.nearest import suggestion
from hostler.core.trace.syscalls import Argument, Syscall

AT_FDCWD = -100
# What the kernel answers inside, when a signal comes; linux/errno.h.
_RESTARTS = {
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    516: "ERESTART_RESTARTBLOCK",
}
MOST_ERRNO = 4095

_OPEN_FLAGS = {
    0o100: "O_CREAT", 0o200: "O_EXCL", 0o400: "O_NOCTTY", 0o1000: "O_TRUNC", 0o2000: "O_APPEND",
    0o4000: "O_NONBLOCK", 0o4010000: "O_SYNC", 0o10000: "O_DSYNC", 0o40000: "O_DIRECT",
    0o100000: "O_LARGEFILE", 0o400000: "O_NOFOLLOW", 0o1000000: "O_NOATIME",
    0o2000000: "O_CLOEXEC", 0o10000000: "O_PATH", 0o20200000: "O_TMPFILE",
    0o200000: "O_DIRECTORY", 0o20000: "O_ASYNC",
}  # fmt: skip
_AT_FLAGS = {
    0x100: "AT_SYMLINK_NOFOLLOW", 0x200: "AT_REMOVEDIR", 0x400: "AT_SYMLINK_FOLLOW",
    0x800: "AT_NO_AUTOMOUNT", 0x1000: "AT_EMPTY_PATH", 0x2000: "AT_STATX_FORCE_SYNC",
    0x4000: "AT_STATX_DONT_SYNC",
}  # fmt: skip
_PROT = {1: "PROT_READ", 2: "PROT_WRITE", 4: "PROT_EXEC"}
_MAP_FLAGS = {
    0x3: "MAP_SHARED_VALIDATE", 0x1: "MAP_SHARED", 0x2: "MAP_PRIVATE", 0x10: "MAP_FIXED",
    0x20: "MAP_ANONYMOUS", 0x40: "MAP_32BIT", 0x100: "MAP_GROWSDOWN", 0x800: "MAP_DENYWRITE",
    0x2000: "MAP_LOCKED", 0x4000: "MAP_NORESERVE", 0x8000: "MAP_POPULATE",
    0x10000: "MAP_NONBLOCK", 0x20000: "MAP_STACK", 0x40000: "MAP_HUGETLB",
    0x100000: "MAP_FIXED_NOREPLACE",
}  # fmt: skip
_MSG_FLAGS = {
    0x1: "MSG_OOB", 0x2: "MSG_PEEK", 0x4: "MSG_DONTROUTE", 0x20: "MSG_TRUNC",
    0x40: "MSG_DONTWAIT", 0x80: "MSG_EOR", 0x100: "MSG_WAITALL", 0x800: "MSG_CONFIRM",
    0x2000: "MSG_ERRQUEUE", 0x4000: "MSG_NOSIGNAL", 0x8000: "MSG_MORE",
    0x40000000: "MSG_CMSG_CLOEXEC",
}  # fmt: skip
_CLONE_FLAGS = {
    0x80: "CLONE_NEWTIME", 0x100: "CLONE_VM", 0x200: "CLONE_FS", 0x400: "CLONE_FILES",
    0x800: "CLONE_SIGHAND", 0x1000: "CLONE_PIDFD", 0x2000: "CLONE_PTRACE", 0x4000: "CLONE_VFORK",
    0x8000: "CLONE_PARENT", 0x10000: "CLONE_THREAD", 0x20000: "CLONE_NEWNS",
    0x40000: "CLONE_SYSVSEM", 0x80000: "CLONE_SETTLS", 0x100000: "CLONE_PARENT_SETTID",
    0x200000: "CLONE_CHILD_CLEARTID", 0x800000: "CLONE_UNTRACED",
    0x1000000: "CLONE_CHILD_SETTID", 0x2000000: "CLONE_NEWCGROUP", 0x4000000: "CLONE_NEWUTS",
    0x8000000: "CLONE_NEWIPC", 0x10000000: "CLONE_NEWUSER", 0x20000000: "CLONE_NEWPID",
    0x40000000: "CLONE_NEWNET", 0x80000000: "CLONE_IO",
}  # fmt: skip
#: What the flags of an fd that is made are called by each call that makes one.
_FD_FLAGS = {
    "accept4": "SOCK", "pipe2": "O", "dup3": "O", "eventfd2": "EFD", "signalfd4": "SFD",
    "timerfd_create": "TFD", "epoll_create1": "EPOLL", "inotify_init1": "IN",
}  # fmt: skip
_SOCK_FLAGS = {0o2000000: "SOCK_CLOEXEC", 0o4000: "SOCK_NONBLOCK"}
_SOCK_TYPES = {
    1: "SOCK_STREAM", 2: "SOCK_DGRAM", 3: "SOCK_RAW", 4: "SOCK_RDM", 5: "SOCK_SEQPACKET",
    10: "SOCK_PACKET",
}  # fmt: skip
_FAMILIES = {
    0: "AF_UNSPEC", 1: "AF_UNIX", 2: "AF_INET", 10: "AF_INET6", 16: "AF_NETLINK",
    17: "AF_PACKET", 38: "AF_ALG", 40: "AF_VSOCK",
}  # fmt: skip
_ACCESS = {4: "R_OK", 2: "W_OK", 1: "X_OK"}
_WHENCE = {0: "SEEK_SET", 1: "SEEK_CUR", 2: "SEEK_END", 3: "SEEK_DATA", 4: "SEEK_HOLE"}
_SHUTDOWN = {0: "SHUT_RD", 1: "SHUT_WR", 2: "SHUT_RDWR"}
_FCNTL = {
    0: "F_DUPFD", 1: "F_GETFD", 2: "F_SETFD", 3: "F_GETFL", 4: "F_SETFL", 5: "F_GETLK",
    6: "F_SETLK", 7: "F_SETLKW", 8: "F_SETOWN", 9: "F_GETOWN", 10: "F_SETSIG", 11: "F_GETSIG",
    36: "F_OFD_GETLK", 37: "F_OFD_SETLK", 38: "F_OFD_SETLKW", 1024: "F_SETLEASE",
    1025: "F_GETLEASE", 1030: "F_DUPFD_CLOEXEC", 1031: "F_SETPIPE_SZ", 1032: "F_GETPIPE_SZ",
    1033: "F_ADD_SEALS", 1034: "F_GET_SEALS",
}  # fmt: skip
_FLOCK = {1: "LOCK_SH", 2: "LOCK_EX", 4: "LOCK_NB", 8: "LOCK_UN"}
_EPOLL = {1: "EPOLL_CTL_ADD", 2: "EPOLL_CTL_DEL", 3: "EPOLL_CTL_MOD"}
_FUTEX = {
    0: "FUTEX_WAIT", 1: "FUTEX_WAKE", 3: "FUTEX_REQUEUE", 4: "FUTEX_CMP_REQUEUE",
    5: "FUTEX_WAKE_OP", 6: "FUTEX_LOCK_PI", 7: "FUTEX_UNLOCK_PI", 8: "FUTEX_TRYLOCK_PI",
    9: "FUTEX_WAIT_BITSET", 10: "FUTEX_WAKE_BITSET", 11: "FUTEX_WAIT_REQUEUE_PI",
    12: "FUTEX_CMP_REQUEUE_PI", 13: "FUTEX_LOCK_PI2",
}  # fmt: skip
_FUTEX_FLAGS = {128: "FUTEX_PRIVATE_FLAG", 256: "FUTEX_CLOCK_REALTIME"}
_CLOCKS = {
    0: "CLOCK_REALTIME", 1: "CLOCK_MONOTONIC", 2: "CLOCK_PROCESS_CPUTIME_ID",
    3: "CLOCK_THREAD_CPUTIME_ID", 4: "CLOCK_MONOTONIC_RAW", 5: "CLOCK_REALTIME_COARSE",
    6: "CLOCK_MONOTONIC_COARSE", 7: "CLOCK_BOOTTIME", 11: "CLOCK_TAI",
}  # fmt: skip
_SIGMASK = {0: "SIG_BLOCK", 1: "SIG_UNBLOCK", 2: "SIG_SETMASK"}

#: Bits in words, by call and argument, or by argument alone.
_BITS: Mapping[str, Mapping[int, str]] = {
    **{f"{name}.flags": _AT_FLAGS for name in ("linkat", "execveat", "faccessat2", "statx")},
    **{f"{name}.flag": _AT_FLAGS for name in ("newfstatat", "fstatat64", "unlinkat", "fchownat")},
    **{
        f"{name}.flags": {0o4000: f"{prefix}_NONBLOCK", 0o2000000: f"{prefix}_CLOEXEC"}
        for name, prefix in _FD_FLAGS.items()
    },
    **{f"{name}.flags": _MSG_FLAGS for name in ("sendto", "recvfrom", "sendmsg", "recvmsg")},
    **{f"{name}.flags": _MSG_FLAGS for name in ("sendmmsg", "recvmmsg")},
    "clone.clone_flags": _CLONE_FLAGS,
    "unshare.unshare_flags": _CLONE_FLAGS,
    "setns.flags": _CLONE_FLAGS,
    "utimensat.flags": _AT_FLAGS,
    "flock.cmd": _FLOCK,
    "mmap.flags": _MAP_FLAGS,
    "mmap2.flags": _MAP_FLAGS,
    "prot": _PROT,
}
#: Values in words, likewise.
_VALUES: Mapping[str, Mapping[int, str]] = {
    "fcntl.cmd": _FCNTL,
    "fcntl64.cmd": _FCNTL,
    "socket.family": _FAMILIES,
    "socketpair.family": _FAMILIES,
    "shutdown.how": _SHUTDOWN,
    "epoll_ctl.op": _EPOLL,
    "rt_sigprocmask.how": _SIGMASK,
    "whence": _WHENCE,
    "which_clock": _CLOCKS,
    "clockid": _CLOCKS,
}
_NO_ID = 0xFFFFFFFF
#: Integers that may be wider than 32 bits though they have a sign.
_WIDE = frozenset(("offset", "length", "len", "nbytes", "pos", "pos_l", "arg2", "increment"))
_PLAIN = re.compile(rb"[ !#-\[\]-~]*")
_ESCAPED = {9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}


def error_name(number: int) -> str:
    """The name of an errno, as ENOENT; a number that has none is told as such."""
    return errno.errorcode.get(number) or _RESTARTS.get(number) or f"errno {number}"


def not_a_result(name: str) -> str | None:
    """Say why no call's result is called so; None if it may be."""
    names = {"SUCCESS", *errno.errorcode.values(), *_RESTARTS.values()}
    if name in names or name.startswith("errno "):
        return None
    return f"there is no error {name[:40]!r}{suggestion(name, names)}"


def failed(events: Events) -> Column:
    """Which calls answered an error: a mask. mmap may well answer a large address."""
    result = events["result"]
    returned = events["flags"] & Flag.UNFINISHED == 0
    mask: Column = (result < 0) & (result >= -MOST_ERRNO) & returned
    return mask


def quoted(data: bytes, most_bytes: int | None = None, *, is_ascii: bool = False) -> str:
    """Data between quotation marks as C and strace write it; as ASCII, other bytes are dots.

    What is beyond `most_bytes` is left out, for which "..." stands.
    """
    kept = data if most_bytes is None else data[:most_bytes]
    if is_ascii:
        text = plain(kept)
    else:
        text = kept.decode("latin-1")
        if not _PLAIN.fullmatch(kept):
            text = "".join(map(_escaped, kept, [*kept[1:], 0]))
    return f'"{text}"' + ("..." if len(kept) < len(data) else "")


def _escaped(byte: int, following: int) -> str:
    if 32 <= byte < 127 or byte in _ESCAPED:
        return _ESCAPED.get(byte) or chr(byte)
    # All three digits where the next byte would be taken for one.
    return f"\\{byte:03o}" if 48 <= following < 56 else f"\\{byte:o}"


def plain(data: bytes) -> str:
    """Data as ASCII, with dots for what cannot be printed."""
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)


def signed(value: int, argument: Argument, is_32_bit: bool) -> int:
    """The value of an argument: registers have no sign, integers and fds do."""
    if argument.kind not in ("fd", "dirfd", "int", "pid"):
        return value & 0xFFFFFFFF if is_32_bit else value
    if argument.name in _WIDE and not is_32_bit and argument.kind == "int":
        return value - (1 << 64) if value >> 63 else value
    low = value & 0xFFFFFFFF
    return low - (1 << 32) if low >> 31 else low


def call_of(events: Events, event: int) -> tuple[Syscall | None, bool]:
    """The call of an event, None if it is not known, and whether it was a 32-bit program's."""
    code = calls.code_of(events, event)
    return calls.known(code), code >= calls.IS_32_BIT


def in_words(call: str, argument: Argument, number: int) -> str:
    """An argument that is a number, in words."""
    key = f"{call}.{argument.name}"
    if number == AT_FDCWD and argument.kind == "dirfd":
        return "AT_FDCWD"
    if argument.kind == "signal":
        return _signal(number)
    if argument.kind in ("uid", "gid") and number % (1 << 32) == _NO_ID:
        return "-1"
    if argument.kind == "mode":
        return f"{number & 0o177777:#o}".replace("0o", "0")
    if (special := _special(key, number)) is not None:
        return special
    bits = _BITS.get(key) or _BITS.get(argument.name)
    if bits is not None:
        return _joined(number, bits)
    values = _VALUES.get(key) or _VALUES.get(argument.name)
    if values is not None and number in values:
        return values[number]
    if argument.kind in ("hex", "pointer", "sockaddr", "path", "string", "strings"):
        return f"{number:#x}" if number or argument.kind == "hex" else "NULL"
    return str(number)


def _special(key: str, number: int) -> str | None:
    """Arguments that are a value and bits in one, None for others."""
    if key in ("open.flags", "openat.flags", "mq_open.oflag"):
        how = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")[number & 3]
        return "|".join(filter(None, (how, _joined(number & ~3, _OPEN_FLAGS, nothing=""))))
    if key in ("access.mode", "faccessat.mode", "faccessat2.mode"):
        return _joined(number, _ACCESS, nothing="F_OK")
    if key in ("socket.type", "socketpair.type"):
        kind = _SOCK_TYPES.get(number & 0xF, str(number & 0xF))
        return "|".join(filter(None, (kind, _joined(number & ~0xF, _SOCK_FLAGS, nothing=""))))
    if key == "futex.op":
        kind = _FUTEX.get(number & 0x7F, str(number & 0x7F))
        return "|".join(filter(None, (kind, _joined(number & ~0x7F, _FUTEX_FLAGS, nothing=""))))
    return None


def _joined(number: int, words: Mapping[int, str], nothing: str = "0") -> str:
    found, left = set(), number % (1 << 64)
    # The words of several bits go first, so that O_SYNC is not O_DSYNC and a rest.
    for bits in sorted(words, key=int.bit_count, reverse=True):
        if left & bits == bits:
            found.add(bits)
            left &= ~bits
    told = [word for bits, word in words.items() if bits in found]
    if left:
        told.append(f"{left:#x}")
    return "|".join(told) or nothing


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
