"""Tries what no daemon of Hostler may do, and says how each attempt ended.

Runs on a host, in place of a unit's own program and so in the unit's own sandbox, or as root
without any, to show that the attempt is a real one. Standard library alone. Arguments: the folder
that `sandbox_lab` has prepared, and the domain whose things are another's. The answer is one line
of JSON on standard output: the capability sets of this process, and of each attempt the name of
the errno that it met, "done" if it met none, or "" where a tool says no.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
DONE = "done"
# Numbers of system calls that libc has no function for, on x86-64 and on the generic ABI.
_GENERIC = os.uname().machine == "aarch64"
NUMBERS = {
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
}
NEW_NAMESPACE = {"mount": 0x00020000, "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000}
ADJ_SETOFFSET, MNT_DETACH, PTRACE_SEIZE = 0x0100, 2, 0x4206
PLACE, OTHER = Path(sys.argv[1]), sys.argv[2]
TOOL_S = 20


class Refused(Exception):
    """A tool has said no, in words that tell nothing more."""


def check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def system_call(name: str, *args: object) -> int:
    return check(LIBC.syscall(ctypes.c_long(NUMBERS[name][_GENERIC]), *args))


def run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, timeout=TOOL_S, check=False)
    if done.returncode:
        raise Refused


def victim() -> int:
    return int((PLACE / "victim").read_text())


# Mounts and namespaces.


def mount() -> None:
    target = str(PLACE / "empty").encode()
    check(LIBC.mount(b"none", target, b"tmpfs", 0, None))
    LIBC.umount2(target, MNT_DETACH)


def umount() -> None:
    check(LIBC.umount2(str(PLACE / "mounted").encode(), MNT_DETACH))


def remount_etc_writable() -> None:
    check(LIBC.mount(b"none", b"/", None, 0x20 | 0x1000, None))


def new_mount_namespace() -> None:
    check(LIBC.unshare(NEW_NAMESPACE["mount"]))


def new_user_namespace() -> None:
    check(LIBC.unshare(NEW_NAMESPACE["user"]))


def new_pid_namespace() -> None:
    check(LIBC.unshare(NEW_NAMESPACE["pid"]))


def join_mounts_of_pid_1() -> None:
    fd = os.open("/proc/1/ns/mnt", os.O_RDONLY)
    check(LIBC.setns(fd, NEW_NAMESPACE["mount"]))


def change_root() -> None:
    os.chroot("/")


# Processes of others.


def trace_another_process() -> None:
    check(LIBC.ptrace(PTRACE_SEIZE, victim(), None, None))


def read_memory_of_another() -> None:
    with Path(f"/proc/{victim()}/mem").open("rb") as memory:
        memory.fileno()


def read_environment_of_another() -> None:
    Path(f"/proc/{victim()}/environ").read_bytes()


def signal_another() -> None:
    os.kill(victim(), signal.SIGCONT)


# Files and sockets of others.


def list_state_of_another_domain() -> None:
    # Some are shown an empty folder in its place.
    if next(Path(f"/var/lib/hostler/{OTHER}").iterdir(), None) is None:
        raise Refused


def write_audit_log_of_another_domain() -> None:
    Path(f"/var/log/hostler/{OTHER}/audit.jsonl").open("ab").close()


def connect(path: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.connect(path)


def connect_to_private_socket_of_another_domain() -> None:
    connect(f"/run/hostler-{OTHER}/local.sock")


def connect_to_door_of_another_domain() -> None:
    connect(f"/run/hostler/{OTHER}.sock")


def connect_to_launcher() -> None:
    connect("/run/hostler/launcher.sock", socket.SOCK_SEQPACKET)


def write_etc() -> None:
    Path("/etc/hostler-probe").write_text("")


def write_own_code() -> None:
    Path(next(Path("/opt/hostler").glob("*/daemon")), "hostler-probe").write_text("")


def write_policies() -> None:
    Path("/etc/hostler/bundle.json").open("ab").close()


def read_passwords() -> None:
    # Some are shown an empty file in its place.
    if not Path("/etc/shadow").read_bytes():
        raise Refused


def list_home_of_root() -> None:
    next(Path("/root/.hostler-probe").iterdir(), None)


# systemd.


def start_a_unit_by_bus() -> None:
    manager = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
    interface = "org.freedesktop.systemd1.Manager"
    words = ("StartUnit", "ss", "hostler-probe-target.service", "replace")
    run("/usr/bin/busctl", "call", *manager, interface, *words)


def start_a_unit_by_systemctl() -> None:
    run("/usr/bin/systemctl", "start", "hostler-probe-target.service")


def make_a_unit() -> None:
    run("/usr/bin/systemd-run", "--quiet", "--wait", "/usr/bin/true")


def stop_another_domain() -> None:
    run("/usr/bin/systemctl", "stop", "hostler-probe-target.service")


# The network.


def add_a_link() -> None:
    run("/usr/sbin/ip", "link", "add", "hostlerprobe", "type", "bridge")
    run("/usr/sbin/ip", "link", "del", "hostlerprobe")


def add_a_table_of_rules() -> None:
    run("/usr/sbin/nft", "add", "table", "inet", "hostlerprobe")
    run("/usr/sbin/nft", "delete", "table", "inet", "hostlerprobe")


def packet_socket() -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()


def raw_socket() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


def internet_socket() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()


# The kernel.


def write_sysctl_outside_net() -> None:
    path = PLACE / "proc/sys/kernel/panic"
    value = path.read_text()
    path.write_text(value)


def load_a_module() -> None:
    with (PLACE / "no.ko").open("rb") as file:
        system_call("finit_module", file.fileno(), b"", 0)


def load_a_kernel() -> None:
    # More segments than there can be: refused for that, if not for who asks.
    system_call("kexec_load", None, ctypes.c_ulong(1 << 20), None, ctypes.c_ulong(0))


def load_a_bpf_map() -> None:
    attributes = (ctypes.c_uint32 * 16)(2, 4, 4, 1)
    os.close(system_call("bpf", 0, attributes, ctypes.sizeof(attributes)))


def watch_the_cpus() -> None:
    attributes = (ctypes.c_uint32 * 32)(1, 128)
    os.close(system_call("perf_event_open", attributes, -1, 0, -1, ctypes.c_ulong(0)))


def set_the_clock() -> None:
    # A step of minus one microsecond is no step: refused for that, if not for who asks.
    timex = (ctypes.c_long * 64)()
    ctypes.c_uint.from_buffer(timex).value = ADJ_SETOFFSET
    timex[10] = -1
    check(LIBC.adjtimex(timex))


def set_the_host_name() -> None:
    name = os.uname().nodename.encode()
    check(LIBC.sethostname(name, len(name)))


def reboot() -> None:
    # Not one of the commands there are.
    check(LIBC.reboot(0x0BADBEEF))


def use_the_kernels_keys() -> None:
    system_call("keyctl", 0, ctypes.c_long(-3), 1)


def read_kernel_log() -> None:
    check(LIBC.klogctl(10, None, 0))


def open_a_block_device() -> None:
    os.close(os.open(PLACE / "block", os.O_RDONLY | os.O_NONBLOCK))


def make_a_device() -> None:
    path = PLACE / "writable" / "device"
    os.mknod(path, 0o600 | 0o060000, os.makedev(7, 0))
    path.unlink()


def make_a_control_group() -> None:
    path = Path("/sys/fs/cgroup/hostler-probe")
    path.mkdir()
    path.rmdir()


def realtime_priority() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def memory_that_is_written_and_run() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def set_uid_file() -> None:
    path = Path(os.environ.get("STATE_DIRECTORY") or PLACE / "writable", "set-uid")
    path.write_text("")
    try:
        path.chmod(0o4755)
    finally:
        path.unlink()


def other_personality() -> None:
    check(LIBC.personality(ctypes.c_ulong(0x0040000)))


ATTEMPTS: tuple[Callable[[], None], ...] = (
    *(mount, umount, remount_etc_writable, new_mount_namespace, new_user_namespace),
    *(new_pid_namespace, join_mounts_of_pid_1, change_root),
    *(trace_another_process, read_memory_of_another, read_environment_of_another, signal_another),
    *(list_state_of_another_domain, write_audit_log_of_another_domain),
    *(connect_to_private_socket_of_another_domain, connect_to_door_of_another_domain),
    *(connect_to_launcher, write_etc, write_own_code, write_policies, read_passwords),
    *(list_home_of_root, start_a_unit_by_bus, start_a_unit_by_systemctl, make_a_unit),
    *(stop_another_domain, add_a_link, add_a_table_of_rules, packet_socket, raw_socket),
    *(internet_socket, write_sysctl_outside_net, load_a_module, load_a_kernel, load_a_bpf_map),
    *(watch_the_cpus, set_the_clock, set_the_host_name, reboot, use_the_kernels_keys),
    *(read_kernel_log, open_a_block_device, make_a_device),
    *(make_a_control_group, realtime_priority, memory_that_is_written_and_run, set_uid_file),
    *(other_personality,),
)


def outcome(attempt: Callable[[], None]) -> str:
    """Make an attempt in a child, so that what it leaves in a process goes with it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = DONE
        try:
            attempt()
        except Refused:
            said = ""
        except OSError as e:
            said = errno.errorcode.get(e.errno or 0, "?")
        except subprocess.TimeoutExpired:
            said = "TIMEOUT"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    return said if status == 0 else f"status {status}"


def main() -> None:
    text = Path("/proc/self/status").read_text()
    told = {
        "status": dict(re.findall(r"(?m)^(Cap\w+|NoNewPrivs|Seccomp|Uid|Gid):\s*(.*)$", text)),
        "attempts": {attempt.__name__: outcome(attempt) for attempt in ATTEMPTS},
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
