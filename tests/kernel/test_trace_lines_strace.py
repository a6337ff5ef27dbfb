"""Lines of events beside those that strace writes of the same calls."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from trace_rows import Call, batch

from hostler.core.trace.lines import Style, strace_lines
from hostler.core.trace.syscalls import all_syscalls

pytestmark = pytest.mark.kernel

AT_FDCWD = (1 << 64) - 100
PATH = "/nonexistent/a b"
DATA = bytes(range(256)) + b"\x001\x009\x00a"
# Each call with its arguments; "PATH" and "DATA" stand for pointers to them.
CALLS: list[tuple[str, list[int | str]]] = [
    ("open", ["PATH", 0]),
    ("open", ["PATH", 0o2102, 0o644]),
    ("open", ["PATH", 0o4010001]),
    ("open", ["PATH", 0o10001]),
    ("openat", [AT_FDCWD, "PATH", 0o2200000]),
    ("openat", [AT_FDCWD, "PATH", 0o12000000]),
    ("openat", [AT_FDCWD, "PATH", 0o20200002, 0o600]),
    ("openat", [7, "PATH", 0o1101, 0o4755]),
    ("creat", ["PATH", 0o700]),
    ("mkdir", ["PATH", 0o1777]),
    ("chmod", ["PATH", 0o4755]),
    ("access", ["PATH", 0]),
    ("access", ["PATH", 6]),
    ("faccessat", [AT_FDCWD, "PATH", 5]),
    ("unlinkat", [AT_FDCWD, "PATH", 0x200]),
    ("rename", ["PATH", "PATH"]),
    ("lseek", [99, (1 << 64) - 5, 2]),
    ("lseek", [99, 0xFFFFFFFF, 4]),
    ("write", [99, "DATA", len(DATA)]),
    ("close", [0xFFFFFFFF]),
    ("mprotect", [4096, 0, 3]),
    ("mmap", [0, 0, 5, 0x22, (1 << 64) - 1, 0]),
    ("fcntl", [99, 1]),
    ("flock", [99, 6]),
    ("shutdown", [99, 2]),
    ("socket", [1, 0o2004002, 0]),
    ("socket", [1, 99, 0]),
    ("kill", [99_999_999, 15]),
    ("kill", [99_999_999, 0]),
    ("dup3", [99, 98, 0o2000000]),
    ("epoll_create1", [0o2000000]),
    ("eventfd2", [3, 0o2000000]),
    ("accept4", [99, 0, 0, 0o4000]),
    ("timerfd_create", [1, 0o2000000]),
    ("inotify_init1", [0o2004000]),
    ("rt_sigprocmask", [2, 0, 0, 8]),
    ("epoll_ctl", [99, 2, 98, 0]),
    ("clock_getres", [7, 0]),
    ("sendto", [99, "DATA", len(DATA), 0x4040, 0, 0]),
    ("fchownat", [AT_FDCWD, "PATH", 0xFFFFFFFF, 5, 0x100]),
    ("linkat", [3, "PATH", AT_FDCWD, "PATH", 0x400]),
    ("pipe2", [1, 0o2004000]),
    ("unshare", [0x80]),
    ("setuid", [0xFFFFFFFF]),
    ("getpid", []),
]
PROGRAM = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None)
data = ctypes.create_string_buffer(bytes(json.loads(sys.argv[2])))
path = ctypes.create_string_buffer(sys.argv[3].encode())
known = {"PATH": ctypes.addressof(path), "DATA": ctypes.addressof(data)}
os.write(2, b"begin")
for number, arguments in json.loads(sys.argv[1]):
    values = [known.get(a, a) for a in arguments]
    libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(v) for v in values))
os.write(2, b"end")
"""


def traced(trace: Path) -> list[str]:
    numbered = [(all_syscalls()[name].number, arguments) for name, arguments in CALLS]
    command = ["/usr/bin/strace", "-s", "999", "-o", str(trace), sys.executable, "-c", PROGRAM]
    command += [json.dumps(numbered), json.dumps(list(DATA)), PATH]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=60)
    whole = trace.read_text()
    between = whole.partition('"begin"')[2].partition('write(2, "end"')[0]
    return between.splitlines()[1:]


def ours(name: str, arguments: list[int | str]) -> str:
    has_path, has_data = "PATH" in arguments, "DATA" in arguments
    call = Call(
        name,
        tuple(0 if isinstance(argument, str) else argument for argument in arguments),
        path=PATH if has_path else "",
        path2=PATH if arguments.count("PATH") == 2 else "",
        data=DATA if has_data else b"",
    )
    (line,) = strace_lines(batch([call]), Style(most_bytes=999))
    return re.sub(r"^\S+ \S+ ", "", line).rpartition(" = ")[0]


def test_calls_read_as_strace_writes_them(tmp_path: Path) -> None:
    # strace marks bits that it does not know by a comment.
    lines = [re.sub(r"\s+= \S+.*$| /\* .*? \*/", "", line) for line in traced(tmp_path / "trace")]
    assert len(lines) == len(CALLS)
    told = [ours(name, arguments) for name, arguments in CALLS]
    assert [pair for pair in zip(told, lines, strict=True) if pair[0] != pair[1]] == []
