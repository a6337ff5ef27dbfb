"""A made-up but coherent trace of a small server, which sysdig can follow, and sysdig's answers."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from trace_batches import Story

from hostler.core.trace.events import Events, FileType, Flag
from hostler.core.trace.scap import export

SYSDIG = shutil.which("sysdig")

REQUEST = b"GET /shop HTTP/1.1\r\nHost: web.example\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 512\r\n\r\n"


@dataclass
class _Thread:
    tid: int
    process: int
    fds: dict[int, int]
    free_at: int


class World:
    """Threads of a shell, its commands, a web server and a daemon; calls are drawn by `seed`."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311
        self._story = Story()
        self._start = self._story.now
        self._told: list[tuple[int, int, str, _Thread, tuple[int, ...], dict[str, Any]]] = []
        self._make_files()
        self._make_threads()

    def events(self, count: int) -> Events:
        """So many calls, and the ends of the processes."""
        for _ in range(count):
            self._call(self._random.choice(self._threads))
        for thread in self._threads[:2]:
            self._tell(thread, "exit_group", 0, 0, flags=Flag.UNFINISHED)
        for ends, begins, name, thread, args, columns in sorted(self._told, key=lambda t: t[:2]):
            self._story.now = begins
            latency = 0 if columns.get("flags") else ends - begins
            columns = {"tid": thread.tid, "latency_ns": latency, **columns}
            self._story.tell(name, thread.process, *args, **columns)
        return self._story.events()

    def _make_files(self) -> None:
        file = self._story.file
        ends = {"protocol": 6, "local_ip": bytes([10, 0, 0, 1]), "remote_ip": bytes([10, 0, 0, 2])}
        self._tty = file(FileType.FILE, "/dev/pts/0", inode=9)
        self._files = [
            file(FileType.FILE, f"/srv/data/{name}", inode=i) for i, name in enumerate("abcd", 20)
        ]
        self._pipe = file(FileType.PIPE, "pipe:[4711]", inode=4711)
        self._client = file(
            FileType.IPV4, "10.0.0.1:4000->10.0.0.2:80", local_port=4000, remote_port=80, **ends
        )
        self._server = file(
            FileType.IPV4,
            "10.0.0.2:5000->10.0.0.1:22",
            local_port=22,
            remote_port=5000,
            is_server=1,
            **ends,
        )
        self._log = file(FileType.UNIX, "/dev/log")

    def _make_threads(self) -> None:
        def process(pid: int, name: str, ppid: int, *words: str) -> int:
            cmdline = b"".join(word.encode() + b"\0" for word in words)
            more = {"vpid": pid, "uid": 0, "gid": 0}
            return self._story.process(
                pid, name, ppid=ppid, exe=f"/bin/{name}", cmdline=cmdline, **more
            )

        shell = process(100, "bash", 1, "-bash")
        make = process(110, "make", 100, "make", "-j2")
        web = process(200, "nginx", 1, "nginx")
        daemon = process(300, "rsyslogd", 1, "rsyslogd", "-n")
        terminal = {0: self._tty, 1: self._tty, 2: self._tty}
        own = {3: self._files[0], 4: self._files[1], 5: self._pipe}
        net = {3: self._client, 4: self._server, 5: self._files[2], 6: self._log}
        self._threads = [
            _Thread(100, shell, terminal | own, self._start),
            _Thread(110, make, terminal | {3: self._files[3], 6: self._log}, self._start),
            _Thread(200, web, net, self._start),
            _Thread(201, web, net, self._start),
            _Thread(300, daemon, {3: self._files[0], 4: self._client}, self._start),
        ]

    def _tell(
        self, thread: _Thread, name: str, latency: int, *args: int, **columns: int | bytes | str
    ) -> None:
        begins = thread.free_at + self._random.randrange(1, 20_000_000)
        # No two events at one time: their order would be a matter of taste.
        begins += 2 * len(self._told)
        ends = begins + latency
        thread.free_at = ends
        self._told.append((ends, begins, name, thread, args, columns))

    def _call(self, thread: _Thread) -> None:
        draw = self._random
        latency = draw.choice((200, 5_000, 100_000, 3_000_001, 60_000_000)) + draw.randrange(99) * 2
        kind = draw.randrange(10)
        if kind == 0:
            self._tell(thread, "futex", latency, 1, 0, 1, result=draw.choice((0, -11)))
        elif kind == 1:
            path = draw.choice(("/nope", "/srv/none"))
            self._tell(thread, "openat", latency, -100, 1, 0, path=path, result=-2)
        elif kind == 2:
            fd = draw.choice([*thread.fds])
            self._tell(thread, "fstat", latency, fd, 1, fd=fd, file=thread.fds[fd])
        else:
            self._io(thread, latency)

    def _io(self, thread: _Thread, latency: int) -> None:
        draw = self._random
        fd = draw.choice([*thread.fds])
        file = thread.fds[fd]
        if file == self._log:
            name, data = "sendto", b"<%d>prog: message" % draw.randrange(192)
        elif file in (self._client, self._server):
            name = draw.choice(("sendto", "recvfrom", "read", "write"))
            data = draw.choice((REQUEST, ANSWER, b"some bytes"))
        else:
            name = draw.choice(("read", "write", "pread64", "pwrite64"))
            data = draw.choice((b"one line", b"x" * 70, b""))
        result = draw.choice((len(data),) * 4 + (-11, -5))
        data = data if result > 0 else b""
        self._tell(thread, name, latency, fd, 1, 4096, fd=fd, file=file, result=result, data=data)


def write_scap(path: Path, events: Events) -> Path:
    """The events as a file of sysdig."""
    with path.open("wb") as out:
        export(lambda: [events], out, "web1", 2)
    return path


def chisel_lines(path: Path, name: str, *arguments: str, filter: str = "") -> list[str]:
    """What sysdig's chisel prints."""
    return _run(path, name, arguments, filter).splitlines()


def chisel_rows(path: Path, name: str, *arguments: str, filter: str = "") -> list[list[Any]]:
    """The rows of a table of sysdig's chisel."""
    told = _run(path, name, arguments, filter, "-j")
    # An array without items is an object to it.
    rows = json.loads(told)["data"] if told.strip() else []
    return rows if isinstance(rows, list) else []


def told_events(path: Path, fields: str, filter: str) -> list[str]:
    """What sysdig tells of each event that a filter passes."""
    return _sysdig("-r", str(path), "-p", f"*{fields}", filter).splitlines()


def _run(path: Path, name: str, arguments: tuple[str, ...], filter: str, *options: str) -> str:
    asked = " ".join(arguments)
    more = (*((asked,) if asked else ()), *((filter,) if filter else ()))
    return _sysdig("-r", str(path), *options, "-c", name, *more)


def _sysdig(*arguments: str) -> str:
    assert SYSDIG
    command = [SYSDIG, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    # It tells how far it is when it writes a file.
    assert not done.stderr.replace("100.00", "").strip(), done.stderr
    return done.stdout
