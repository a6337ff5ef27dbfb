"""Which arguments of each system call the tracer looks at."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hostler.core.trace.syscalls import Syscall, all_syscalls
from hostlerd.tracing.kernel.bpf import layout

MAKE_FD = frozenset(
    (
        *("open", "openat", "openat2", "creat", "open_by_handle_at", "open_tree", "mq_open"),
        *("socket", "accept", "accept4", "eventfd", "eventfd2", "epoll_create", "epoll_create1"),
        *("signalfd", "signalfd4", "timerfd_create", "inotify_init", "inotify_init1"),
        *("fanotify_init", "memfd_create", "memfd_secret", "pidfd_open", "pidfd_getfd", "bpf"),
        *("perf_event_open", "userfaultfd", "io_uring_setup", "fsopen", "fsmount", "fspick"),
        *("landlock_create_ruleset",),
    )
)
_CLOSING = frozenset(("close", "close_range"))
_NO_RETURN = frozenset(("exit", "exit_group"))
_ACCEPT = frozenset(("accept", "accept4"))
# What their path begins at is another folder, or has another name, when they return.
_MOVING = frozenset(("chdir", "chroot"))
DATA = {
    **dict.fromkeys(("read", "write", "pread64", "pwrite64"), layout.DATA_BUFFER),
    **dict.fromkeys(("send", "sendto", "recv", "recvfrom"), layout.DATA_BUFFER),
    **dict.fromkeys(("readv", "writev", "preadv", "pwritev"), layout.DATA_IOVEC),
    **dict.fromkeys(("preadv2", "pwritev2"), layout.DATA_IOVEC),
    **dict.fromkeys(("sendmsg", "recvmsg"), layout.DATA_MSGHDR),
}


def call_table(wanted: frozenset[str]) -> npt.NDArray[np.void]:
    """The table of calls for the tracer, those in `wanted` marked; all of them if it is empty."""
    table = np.zeros(layout.CALLS, layout.CALL)
    if not wanted:
        # Calls that are not known by name are kept too.
        table["flags"] = layout.WANTED
    for call in all_syscalls().values():
        row = _row(call, not wanted or call.name in wanted)
        if call.number is not None:
            table[call.number] = row
        if call.number_32 is not None:
            table[call.number_32 + layout.CALLS // 2] = row
    return table


def _row(call: Syscall, is_wanted: bool) -> tuple[int, ...]:
    groups = (
        (layout.FD_IS_RESULT, MAKE_FD),
        (layout.FD_AT_ENTRY, _CLOSING),
        (layout.NO_RETURN, _NO_RETURN),
        (layout.IS_ACCEPT, _ACCEPT),
        (layout.MOVES_CWD, _MOVING),
    )
    flags = sum(flag for flag, names in groups if call.name in names)
    wanted = layout.WANTED if is_wanted else 0
    places = (_place(call, "fd"), _place(call, "path"), _place(call, "path", 1))
    folders = (_place(call, "dirfd"), _place(call, "dirfd", 1))
    return (flags | wanted, *places, *folders, DATA.get(call.name, 0), 0)


def _place(call: Syscall, kind: str, nth: int = 0) -> int:
    index = call.index_of(kind, nth)
    return 0 if index is None else index + 1
