"""What kinds of system calls there are: sysdig's names, categories, which of them do I/O. Pure.

A call's `code` is its number, plus IS_32_BIT if it counts as 32-bit programs count. Names and
categories are those of sysdig 0.29; calls that it does not decode stand beside their like, so that
pwritev2 is a write and clock_nanosleep waits, which to sysdig they do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np

from hostler.core.trace import syscalls
from hostler.core.trace.events import Column, Events, Flag
from hostler.core.trace.nearest import suggestion
from hostler.core.trace.values import Words

IS_32_BIT = 1 << 16
CODES = 2 << 16
# Arithmetic with members of Flag takes microseconds, for each line that is written.
_IS_32_BIT_FLAG = int(Flag.IS_32_BIT)

READS = frozenset(
    (
        *("read", "pread64", "readv", "preadv", "preadv2"),
        *("recvfrom", "recvmsg", "recvmmsg", "recvmmsg_time64"),
    )
)
WRITES = frozenset(
    (
        *("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "sendfile64"),
        *("sendto", "sendmsg", "sendmmsg"),
    )
)
WAITS = frozenset(
    (
        *("poll", "ppoll", "ppoll_time64", "select", "_newselect", "pselect6", "pselect6_time64"),
        *("epoll_wait", "epoll_pwait", "epoll_pwait2"),
        *("nanosleep", "clock_nanosleep", "clock_nanosleep_time64"),
    )
)
OPENS = frozenset(("open", "openat", "openat2", "creat"))
CREATES = OPENS | frozenset(
    (
        *("socket", "socketpair", "accept", "accept4", "pipe", "pipe2", "dup", "dup2", "dup3"),
        *("eventfd", "eventfd2", "signalfd", "signalfd4", "inotify_init", "inotify_init1"),
        *("timerfd_create", "bpf"),
    )
)
"""Calls whose result is an fd, to sysdig."""

CONNECTS = frozenset(("accept", "accept4", "connect"))

#: What sysdig calls calls that the kernel calls differently.
_SYSDIG_NAMES = {
    "pread64": "pread", "pwrite64": "pwrite", "dup2": "dup", "dup3": "dup", "pipe2": "pipe",
    "accept4": "accept", "eventfd2": "eventfd", "signalfd4": "signalfd",
    "inotify_init1": "inotify_init", "prlimit64": "prlimit", "ugetrlimit": "getrlimit",
    "fcntl64": "fcntl", "umount2": "umount", "_llseek": "llseek", "_newselect": "select",
    "sendfile64": "sendfile",
    **{
        f"{name}32": name
        for name in (
            *("getuid", "getgid", "geteuid", "getegid", "setuid", "setgid"),
            *("getresuid", "getresgid", "setresuid", "setresgid"),
        )
    },
}  # fmt: skip

IO_CATEGORIES = ("read", "write", "other I/O")
"""Those of calls that sysdig puts into the category of what their fd is."""

_NAMES_BY_CATEGORY = {
    "read": " ".join(READS),
    "write": " ".join(WRITES),
    "other I/O": """
        close ioctl msync dup dup2 dup3 fcntl fcntl64 fsync fdatasync sync syncfs sync_file_range
        io_setup io_destroy io_getevents io_submit io_cancel io_pgetevents io_pgetevents_time64
        io_uring_setup io_uring_enter io_uring_register splice copy_file_range close_range""",
    "file": """
        open openat openat2 creat stat fstat lstat stat64 fstat64 lstat64 fstatat64 newfstatat
        statx lseek _llseek access faccessat faccessat2 mremap flock truncate ftruncate truncate64
        ftruncate64 fallocate fadvise64 fadvise64_64 readahead getdents getdents64 readdir getcwd
        chdir fchdir rename renameat renameat2 mkdir mkdirat rmdir link linkat unlink unlinkat
        symlink symlinkat readlink readlinkat chmod fchmod fchmodat chown fchown lchown chown32
        fchown32 lchown32 fchownat mknod mknodat ustat statfs fstatfs statfs64 fstatfs64 mount
        umount umount2 setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr
        llistxattr flistxattr removexattr lremovexattr fremovexattr remap_file_pages utimes
        futimesat utimensat utimensat_time64 name_to_handle_at open_by_handle_at open_tree
        move_mount fsopen fsconfig fsmount fspick mount_setattr memfd_create fanotify_mark
        oldstat oldfstat oldlstat""",
    "wait": """
        poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 pause epoll_create
        epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 wait4 waitid waitpid""",
    "memory": """
        mmap mmap2 mprotect munmap brk mincore madvise process_madvise mlock mlock2 munlock
        mlockall munlockall mbind set_mempolicy get_mempolicy set_mempolicy_home_node
        migrate_pages move_pages pkey_mprotect pkey_alloc pkey_free memfd_secret
        process_vm_readv process_vm_writev""",
    "signal": """
        rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigtimedwait_time64
        rt_sigqueueinfo rt_sigsuspend kill tkill tgkill signalfd signalfd4 signal sigaction
        sgetmask ssetmask sigpending sigprocmask sigsuspend sigaltstack pidfd_send_signal
        rt_sigreturn sigreturn""",
    "IPC": """
        pipe pipe2 socketpair shmget shmat shmctl shmdt semop semtimedop semtimedop_time64 msgget
        msgsnd msgrcv msgctl ipc futex futex_time64 futex_waitv mq_open mq_unlink mq_timedsend
        mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64 mq_notify mq_getsetattr
        inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_init tee vmsplice
        eventfd eventfd2""",
    "sleep": "sched_yield nanosleep clock_nanosleep clock_nanosleep_time64",
    "time": """
        getitimer setitimer alarm gettimeofday settimeofday times utime time stime timer_create
        timer_settime timer_settime64 timer_gettime timer_gettime64 timer_getoverrun timer_delete
        clock_settime clock_settime64 clock_gettime clock_gettime64 clock_getres
        clock_getres_time64 timerfd_create timerfd_settime timerfd_settime64 timerfd_gettime
        timerfd_gettime64""",
    "process": """
        clone clone3 fork vfork execve execveat exit exit_group getpid gettid getppid getpgrp
        getpgid setpgid getsid setsid semget semctl umask getrlimit ugetrlimit setrlimit prlimit64
        getrusage ptrace capget capset uselib personality getpriority setpriority sched_setparam
        sched_getparam sched_setscheduler sched_getscheduler sched_setattr sched_getattr
        sched_get_priority_max sched_get_priority_min sched_rr_get_interval
        sched_rr_get_interval_time64 sched_setaffinity sched_getaffinity pivot_root prctl
        arch_prctl chroot acct swapon set_thread_area get_thread_area set_tid_address ioprio_set
        ioprio_get unshare setns set_robust_list get_robust_list rseq getcpu nice pidfd_open
        pidfd_getfd process_mrelease kcmp""",
    "net": """
        socket connect accept accept4 bind listen shutdown getsockname getpeername setsockopt
        getsockopt socketcall""",
    "system": """
        uname olduname sysinfo syslog sysfs adjtimex swapoff reboot sethostname setdomainname
        init_module finit_module delete_module restart_syscall kexec_load kexec_file_load add_key
        request_key keyctl""",
    "user": """
        getuid getgid geteuid getegid setuid setgid setreuid setregid getgroups setgroups
        setresuid getresuid setresgid getresgid setfsuid setfsgid getuid32 getgid32 geteuid32
        getegid32 setuid32 setgid32 setreuid32 setregid32 getgroups32 setgroups32 setresuid32
        getresuid32 setresgid32 getresgid32 setfsuid32 setfsgid32 quotactl quotactl_fd""",
}


@cache
def categories() -> Mapping[str, str]:
    """The category of each call by name: a key of the table above; `other` if it has none."""
    known = {n: category for category, names in _NAMES_BY_CATEGORY.items() for n in names.split()}
    return {name: known.get(name, "other") for name in syscalls.all_syscalls()}


def codes(events: Events) -> Column:
    """Which call each event is."""
    is_32_bit = events["flags"] & np.uint16(Flag.IS_32_BIT) != 0
    return events["syscall"].astype(np.uint32) + np.where(is_32_bit, np.uint32(IS_32_BIT), 0)


def name(code: int) -> str:
    """What the kernel calls a call."""
    return syscalls.name_of(code & 0xFFFF, code >= IS_32_BIT)


def sysdig_name(code: int) -> str:
    """What sysdig calls a call: accept4 is an accept there, pread64 a pread."""
    kernel = name(code)
    return _SYSDIG_NAMES.get(kernel, kernel)


@cache
def sysdig_names() -> frozenset[str]:
    """What sysdig calls the calls."""
    return frozenset(_SYSDIG_NAMES.get(name, name) for name in syscalls.all_syscalls())


@cache
def called_by_sysdig(name: str) -> frozenset[str]:
    """The kernel's names of the calls that sysdig calls by one name."""
    own = (each for each in syscalls.all_syscalls() if each not in _SYSDIG_NAMES)
    aliases = (kernel for kernel, sysdig in _SYSDIG_NAMES.items() if sysdig == name)
    return frozenset(aliases) | frozenset(each for each in own if each == name)


#: Events of sysdig that are no calls: filters that leave them out are right here too.
_NO_CALLS = frozenset(
    (
        *("switch", "drop", "procexit", "procinfo", "signaldeliver", "page_fault", "tracer"),
        *("notification", "container", "cpu_hotplug", "infra", "k8s", "mesos", "pluginevent"),
    )
)


def not_named(name: str) -> str | None:
    """Say why no call is ever called so by the kernel; None if one is."""
    if name in syscalls.all_syscalls() or name.startswith("syscall_"):
        return None
    if aliases := called_by_sysdig(name):
        return f"the kernel has no call {name}: say {' or '.join(sorted(aliases))}"
    return f"the kernel has no call {name[:40]!r}{suggestion(name, syscalls.all_syscalls())}"


def not_named_by_sysdig(name: str) -> str | None:
    """Say why no call is ever called so by sysdig; None if one is."""
    if name in sysdig_names() or name in _NO_CALLS or name.startswith("syscall_"):
        return None
    if name in _SYSDIG_NAMES:
        alias = _SYSDIG_NAMES[name]
        return f"to sysdig {name} is {alias}: say evt.type={alias} or evt.syscall.name={name}"
    return f"there is no call {name[:40]!r}{suggestion(name, sysdig_names())}"


def category(code: int) -> str:
    """A call's category, a key of the table above or `other`."""
    return categories().get(name(code), "other")


def known(code: int) -> syscalls.Syscall | None:
    """A call's entry in the table of calls, None if it has none."""
    return syscalls.by_number(code >= IS_32_BIT).get(code & 0xFFFF)


def among(events: Events, names: frozenset[str]) -> Column:
    """Which events are one of these calls: a mask."""
    mask: Column = _table(names)[codes(events)]
    return mask


def of_category(events: Events, *wanted: str) -> Column:
    """Which events are calls of one of these categories: a mask."""
    return among(events, _of_categories(wanted))


def by_call(events: Events, text: Callable[[int], str]) -> Words:
    """What `text` makes of each call."""
    return Words(codes(events), CODES, lambda code: text(code).encode())


def numbers_of(names: frozenset[str], is_32_bit: bool) -> frozenset[int]:
    """The numbers that calls of these names have."""
    table = syscalls.by_number(is_32_bit)
    return frozenset(number for number, call in table.items() if call.name in names)


@cache
def _table(names: frozenset[str]) -> Column:
    table = np.zeros(CODES, bool)
    table[list(numbers_of(names, False))] = True
    table[[number + IS_32_BIT for number in numbers_of(names, True)]] = True
    return table


@cache
def _of_categories(wanted: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name for name, each in categories().items() if each in wanted)


def code_of(events: Events, event: int) -> int:
    """Which call one event is."""
    is_32_bit = int(events["flags"][event]) & _IS_32_BIT_FLAG
    return int(events["syscall"][event]) + (IS_32_BIT if is_32_bit else 0)


@cache
def known_codes() -> tuple[int, ...]:
    """All codes that are in the table of calls."""
    own = syscalls.by_number(False)
    return (*own, *(number + IS_32_BIT for number in syscalls.by_number(True)))
