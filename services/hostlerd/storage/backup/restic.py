"""Running restic: absolute path, fixed environment, no secret in its arguments, bounded output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hostlerd.privileged.runs import Stopped
from hostlerd.storage.backup import secret
from hostlerd.storage.model.backup import Definition
from hostlerd.storage.worker.refused import Refused

RESTIC = "/usr/bin/restic"
#: restic's own: some files could not be read, and the snapshot is without them.
INCOMPLETE = 3
_LINE_BYTES_MOST = 1 << 20
_SAID_LINES = 40
_SAID_BYTES_MOST = 4000
_ASK_BYTES_MOST = 16 << 20
_END_S = 20.0

Line = Callable[[bytes], None]


@dataclass(slots=True)
class Child:
    """The restic that runs just now, if any, and whether it is to stop."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    process: subprocess.Popen[bytes] | None = None
    stopped: bool = False

    def stop(self) -> None:
        """Have it end by itself, so that it takes its lock off the repository."""
        with self.lock:
            self.stopped = True
            if self.process is not None:
                self.process.send_signal(signal.SIGINT)
                killer = threading.Timer(_END_S, self.process.kill)
                killer.daemon = True
                killer.start()


@dataclass(frozen=True, slots=True)
class Restic:
    """restic with one repository."""

    backup: Definition
    state: Path
    child: Child
    cached: bool = False

    def run(self, *words: str, line: Line | None = None, good: Sequence[int] = (0,)) -> int:
        """Run a command to its end, and have each line that it prints looked at.

        A lock that a restic of this host left when it was killed is taken off the repository.
        Raises Refused if it says no, Stopped.
        """
        try:
            return self._run(words, line, good)
        except Refused as e:
            if e.reason != "REPOSITORY_LOCKED":
                raise
        # Only the locks of processes that are gone.
        self._run(("unlock",), None, (0,))
        return self._run(words, line, good)

    def _run(self, words: Sequence[str], line: Line | None, good: Sequence[int]) -> int:
        with secret.password(self.backup.password_file) as password:
            given = secret.credentials(self.backup.credentials_file)
            process = self._start(words, password, given)
            said: deque[str] = deque(maxlen=_SAID_LINES)
            reader = threading.Thread(target=_drain, args=(process.stderr, said), daemon=True)
            reader.start()
            try:
                for each in _lines(process.stdout):
                    if line is not None:
                        line(each)
            except BaseException:
                process.kill()
                raise
            finally:
                status = process.wait()
                reader.join()
                with self.child.lock:
                    self.child.process = None
        if self.child.stopped:
            raise Stopped
        if status not in good:
            raise failed(words[0], status, said)
        return status

    def ask(self, *words: str) -> Any:
        """Answer what it prints as one JSON. Raises Refused, Stopped."""
        pieces: list[bytes] = []
        room = _ASK_BYTES_MOST

        def keep(line: bytes) -> None:
            nonlocal room
            room -= len(line)
            if room < 0:
                raise Refused("RESTIC_FAILED", f"restic {words[0]} said too much")
            pieces.append(line)

        self.run(*words, "--json", line=keep)
        try:
            return json.loads(b"".join(pieces))
        except ValueError:
            raise Refused("RESTIC_FAILED", f"restic {words[0]} did not answer JSON") from None

    def _start(
        self, words: Sequence[str], password: int, given: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        cache = ("--cache-dir", str(self.state / "cache")) if self.cached else ("--no-cache",)
        argv = (RESTIC, "--repo", self.backup.repository, *cache, *words)
        scratch = self.state / "tmp"
        scratch.mkdir(mode=0o700, exist_ok=True)
        environment = {
            **given,
            "HOME": str(self.state),
            "LC_ALL": "C.UTF-8",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "RESTIC_PASSWORD_FILE": f"/proc/self/fd/{password}",
            "RESTIC_PROGRESS_FPS": "1",
            "TMPDIR": str(scratch),
            "TZ": "UTC",
        }
        with self.child.lock:
            if self.child.stopped:
                raise Stopped
            try:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=environment,
                    cwd="/",
                    pass_fds=(password,),
                )
            except FileNotFoundError:
                raise Refused("TOOL_MISSING", f"{RESTIC} is not installed", tool="restic") from None
            self.child.process = process
        return process


def failed(command: str, status: int, said: Sequence[str]) -> Refused:
    """The refusal of a command that restic did not carry out, with its own last words."""
    words = "; ".join(one for one in said if one.strip())[-_SAID_BYTES_MOST:]
    reason = "RESTIC_FAILED"
    if "already locked" in words:
        reason = "REPOSITORY_LOCKED"
    elif "Is there a repository" in words:
        reason = "REPOSITORY_MISSING"
    elif "wrong password" in words:
        reason = "PASSWORD_WRONG"
    return Refused(reason, f"restic {command} ended with status {status}: {words}", tool="restic")


def _lines(stream: IO[bytes] | None) -> Iterator[bytes]:
    assert stream is not None  # noqa: S101
    while line := stream.readline(_LINE_BYTES_MOST):
        yield line


def _drain(stream: IO[bytes] | None, said: deque[str]) -> None:
    for line in _lines(stream):
        said.append(line.decode("utf-8", "replace").rstrip()[:_SAID_BYTES_MOST])


def repository_id(restic: Restic) -> str:
    """The id that a repository was given when it was made. Raises Refused."""
    told = restic.ask("cat", "config")
    return str(told["id"])[:64]


def restored_size(restic: Restic, snapshot: str) -> tuple[int, int]:
    """How many bytes and files a snapshot has when it is restored. Raises Refused."""
    told = restic.ask("stats", "--mode", "restore-size", snapshot)
    return int(told["total_size"]), int(told["total_file_count"])


def free_bytes(folder: Path) -> int:
    """How much room there is where a folder lies."""
    seen = os.statvfs(folder)
    return seen.f_bavail * seen.f_frsize
