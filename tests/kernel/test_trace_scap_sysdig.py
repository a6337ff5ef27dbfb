"""Real traces as files of sysdig: what it says of each call is what the engine saw."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from traced import trace

from hostler.core.trace.blocks import exit_ns
from hostler.core.trace.events import Events, Flag
from hostler.core.trace.scap import export
from hostler.core.trace.scap_layout import scap_calls
from hostler.core.trace.syscalls import name_of

SYSDIG = shutil.which("sysdig")
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(SYSDIG is None, reason="sysdig is not installed"),
]

SHELL = """
for word in a b c; do /usr/bin/basename /tmp/$word; done
ls / | wc -l
(cd /usr && cat < ../etc/passwd)
exec 5</etc/group; read line <&5; sort < /etc/hosts | uniq -c
"""
ECHO = """
import os, socket, threading
server = socket.create_server(("127.0.0.1", 0))
def serve():
    client, _ = server.accept()
    client.sendall(client.recv(10))
    client.close()
thread = threading.Thread(target=serve)
thread.start()
client = socket.create_connection(server.getsockname())
client.sendall(b"ping")
client.recv(10)
thread.join()
out, into = os.pipe()
os.write(into, b"x")
os.dup2(out, 40)
os.read(40, 1)
"""
# Calls of which sysdig keeps no result, or under another name.
SILENT = {"getuid", "geteuid", "getgid", "getegid", "getsockname", "getpeername"}
# What sysdig has no name for when it sees it made: `pipe:[1]` and so on.
UNNAMED = ("pipe:", "socket:", "anon_inode:")


def said_by_sysdig(path: Path) -> dict[tuple[int, int], list[str]]:
    """Name of the process, result and name of the fd, by tid and time of the exit."""
    assert SYSDIG
    fields = "*%thread.tid\t%evt.rawtime\t%proc.name\t%evt.rawres\t%fd.name"
    argv = [SYSDIG, "-r", str(path), "-p", fields, "evt.dir=<"]
    out = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    lines = [line.split("\t") for line in out.splitlines()]
    return {(int(tid), int(time)): rest for tid, time, *rest in lines}


def is_same(ours: str, theirs: str) -> bool:
    if ours.startswith(UNNAMED):
        # A unix socket has the addresses of both ends before its name.
        return theirs in ("", ours) or theirs.endswith(f" {ours}")
    return ours == theirs


@pytest.mark.parametrize(
    "argv",
    [
        ["/bin/sh", "-c", SHELL],
        [sys.executable, "-c", ECHO],
        ["/usr/bin/tar", "cf", "-", "/etc/apt"],
    ],
    ids=["shell", "echo", "tar"],
)
def test_sysdig_says_of_each_call_what_was_seen(tmp_path: Path, argv: list[str]) -> None:
    events = trace(argv)
    with (tmp_path / "a.scap").open("wb") as out:
        export(lambda: [events], out, "here")
    compare(events, said_by_sysdig(tmp_path / "a.scap"))


def compare(events: Events, said: dict[tuple[int, int], list[str]]) -> None:
    ends = exit_ns(events).tolist()
    names, files = events.of_process("name"), events.of_file("name")
    compared = 0
    for row in range(len(events)):
        if events["flags"][row] & Flag.UNFINISHED:
            continue
        call = name_of(int(events["syscall"][row]))
        process, result, file = said[int(events["tid"][row]), ends[row]]
        assert process == events.texts[names[row]].decode(), call
        if call not in scap_calls() or scap_calls()[call].is_generic or call in SILENT:
            continue
        assert result == str(events["result"][row]), call
        if events["fd"][row] >= 0 and events["file"][row] and call != "mmap":
            assert is_same(events.texts[files[row]].decode(), file), call
            compared += 1
    assert compared > 50
