"""The way into a process: runs as the unit's first program, as root, and ends in execve(2).

systemd has put it into the network namespace, the control group and the mounts. Here follow what
systemd 252 has no option for (a host name, a PID namespace), then the user, and the environment,
which no other program ever sees. Exit statuses are those of systemd.exec(5).
"""

from __future__ import annotations

import os
import resource
import signal
import socket
from pathlib import Path
from typing import Any, NoReturn

from hostlerd.privileged.refused import Refused

from . import libc, store
from .resolve import PATH, Account, resolve
from .waiting import readable

EXIT_CHDIR, EXIT_EXEC, EXIT_GROUP, EXIT_CAPABILITIES = 200, 203, 216, 218
EXIT_USER, EXIT_NAMESPACE = 217, 226
BARRIER_S = 5.0
# What root keeps: its own network and files, not the host's kernel. Others have none of these
# unless a program they run has them as file capabilities.
# CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_ADMIN NET_RAW
# SYS_CHROOT AUDIT_WRITE SETFCAP, by their numbers in linux/capability.h.
KEPT = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 12, 13, 18, 29, 31})


class Systemd:
    """The socket on which systemd hears that the process runs. sd_notify(3).

    `failure` is a pipe that waits for the outcome of execve(2): its success closes it, a failure
    writes a byte.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._connected = bool(address)
        if address:
            self._socket.connect("\0" + address[1:] if address[0] == "@" else address)
        self.failure: int | None = None

    def tell(self, message: str) -> None:
        """Send one message, and wait until systemd has taken it.

        A message of a process that is gone is dropped. Source: sd_notify_barrier(3).
        """
        if not self._connected:
            return
        self._socket.send(message.encode())
        reader, writer = os.pipe()
        socket.send_fds(self._socket, [b"BARRIER=1"], [writer])
        os.close(writer)
        readable(BARRIER_S, reader)
        os.close(reader)


def enter(namespace: str, name: str) -> NoReturn:
    """Become the process of that name."""
    systemd = Systemd()
    try:
        unit = store.load(namespace, name)
        if unit is None:
            raise Refused("NOT_FOUND", "there is no such unit")
        account, command = resolve(unit)
        if unit["private_uts"]:
            libc.unshare(libc.CLONE_NEWUTS)
            socket.sethostname(unit["hostname"] or namespace)
    except (Refused, OSError) as e:
        fail(systemd, EXIT_NAMESPACE, str(e))
    if unit["private_pid"]:
        supervise(systemd, unit, account, command)
    announce_after_exec(systemd)
    become(systemd, unit, account, command)


def become(systemd: Systemd, unit: dict[str, Any], account: Account, command: str) -> NoReturn:
    """Give up what the process shall not have, and run it."""
    status = EXIT_CAPABILITIES
    try:
        last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
        for capability in set(range(last + 1)) - KEPT:
            libc.prctl(libc.PR_CAPBSET_DROP, capability)
        status = EXIT_GROUP
        os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        status = EXIT_USER
        os.setresuid(account.uid, account.uid, account.uid)
        status = EXIT_CHDIR
        os.chdir(unit["working_directory"])
        status = EXIT_EXEC
        # Python ignores these at its start, and a process would inherit that.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        environment = {**surroundings(account), **unit["environment"]}
        os.execve(command, unit["argv"], environment)  # noqa: S606 - that is what all this is for
    except OSError as e:
        fail(systemd, status, f"{unit['argv'][0]}: {e.strerror}")


def surroundings(account: Account) -> dict[str, str]:
    """The environment that every process has."""
    return {
        "PATH": PATH,
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        "SHELL": account.shell,
    }


def announce_after_exec(systemd: Systemd) -> None:
    """Leave a grandchild behind that tells systemd as soon as execve(2) has succeeded.

    Success closes the pipe; the message before a failure comes from `fail`. A grandchild, so that
    the process does not find a child it never made.
    """
    reader, writer = os.pipe()
    try:
        child = os.fork()
    except OSError:
        child = -1
    if child == 0:
        wait_for_exec(systemd, reader, writer)
    os.close(reader)
    if child < 0 or os.waitpid(child, 0)[1] != 0:
        # A limit of one or two tasks leaves no room for who would tell it afterwards.
        systemd.tell(f"STATUS={store.RUNS}")
    systemd.failure = writer


def wait_for_exec(systemd: Systemd, reader: int, writer: int) -> NoReturn:
    """Fork once more, and tell systemd when the pipe closes without a byte."""
    try:
        if os.fork() != 0:
            os._exit(0)
    except OSError:
        os._exit(1)
    os.close(writer)
    if os.read(reader, 1) == b"":
        systemd.tell(f"STATUS={store.RUNS}")
    os._exit(0)


def fail(systemd: Systemd, status: int, words: str) -> NoReturn:
    """Tell systemd in words why, and exit with a status of systemd.exec(5)."""
    systemd.tell(f"STATUS={words.splitlines()[0][:500]}")
    if systemd.failure is not None:
        os.write(systemd.failure, b"!")
    os._exit(status)


def supervise(systemd: Systemd, unit: dict[str, Any], account: Account, command: str) -> NoReturn:
    """Run the process in a PID namespace of its own, with an init; end as it has ended."""
    # systemd sends SIGTERM to all of the group: the process shall end by it, and these two after.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    libc.set_name("hostler-wait")
    reader, writer = os.pipe()
    try:
        libc.unshare(libc.CLONE_NEWPID | libc.CLONE_NEWNS)
        child = os.fork()
    except OSError as e:
        fail(systemd, EXIT_NAMESPACE, f"PID namespace: {e.strerror}")
    if child == 0:
        os.close(reader)
        be_init(systemd, writer, unit, account, command)
    os.close(writer)
    report = os.read(reader, 4)
    status = os.waitpid(child, 0)[1]
    end_like(int.from_bytes(report, "little") if report else status)


def be_init(
    systemd: Systemd, report: int, unit: dict[str, Any], account: Account, command: str
) -> NoReturn:
    """Be PID 1 of the namespace: /proc, the process, and every orphan until none is left."""
    try:
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.set_name("hostler-init")
        libc.mount("", "/", "none", libc.MS_REC | libc.MS_SLAVE)
        libc.mount("proc", "/proc", "proc", libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC)
        reader, writer = os.pipe()
        child = os.fork()
    except OSError as e:
        fail(systemd, EXIT_NAMESPACE, f"PID namespace: {e.strerror}")
    if child == 0:
        systemd.failure = writer
        become(systemd, unit, account, command)
    os.close(writer)
    if os.read(reader, 1) == b"":
        systemd.tell(f"STATUS={store.RUNS}")
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            os._exit(0)
        if pid == child:
            os.write(report, status.to_bytes(4, "little"))
            if unit["restart"] != "never":
                os._exit(0)


def end_like(status: int) -> NoReturn:
    """End with the exit status, or by the signal, of a wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os._exit(128 + number)
    os._exit(os.waitstatus_to_exitcode(status))
