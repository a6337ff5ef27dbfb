"""Some processes, files and calls, and how to read a field of them."""

from __future__ import annotations

from typing import Any

from trace_rows import START_NS, Call, File, Process, batch

from hostler.core.trace.events import Events, FileType
from hostler.core.trace.fields import find

INIT = Process(1, "systemd", sid=1)
SHELL = Process(700, "bash", INIT, sid=700)
CAT = Process(
    710,
    "cat",
    SHELL,
    exe="/usr/bin/cat",
    cmdline=("/bin/cat", "-n", "a b"),
    environ=("HOME=/root", "TERM=vt100"),
    cwd="/srv",
    uid=33,
    gid=34,
    loginuid=1000,
    user="www-data",
    group="web",
    loginuser="joe",
    sid=700,
    tty=0x8801,
    vpid=7,
    start_ns=START_NS - 5,
    cgroup="/system.slice/docker-" + "0123456789ab" + "c" * 52 + ".scope",
    unit="docker.service",
    container="web1",
)
PASSWD = File(FileType.FILE, "/etc/passwd", device=8 << 20 | 300, inode=77)
CLIENT = File(
    FileType.IPV4,
    "10.0.0.1:4000->10.0.0.0:80",
    protocol=6,
    local=(bytes([10, 0, 0, 1]), 4000),
    remote=(bytes([10, 0, 0, 0]), 80),
)
SERVER = File(
    FileType.IPV6,
    "::1:443->::2:5000",
    protocol=6,
    is_server=True,
    local=(bytes(15) + b"\x01", 443),
    remote=(bytes(15) + b"\x02", 5000),
)
LISTENING = File(FileType.IPV4, "0.0.0.0:22", protocol=6, is_server=True, local=(b"", 22))
LOG = File(FileType.UNIX, "/run/systemd/journal/dev-log")
READ = Call("read", (3, 0x7FFF0000, 100), 5, CAT, PASSWD, 3, data=b"root:", tid=711, cpu=1)


def read(events: Events, name: str) -> list[Any]:
    values = find(name).values(events)
    return [values.at(i) for i in range(len(events))]


def one(call: Call, name: str) -> Any:
    return read(batch([call]), name)[0]
