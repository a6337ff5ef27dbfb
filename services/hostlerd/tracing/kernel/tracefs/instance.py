"""An instance of tracefs: a ring for each CPU, and what is recorded there.

Source: Documentation/trace/ftrace.rst, "Instances", and Documentation/trace/events.rst.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from hostlerd.tracing.kernel import proc
from hostlerd.tracing.kernel.tracefs.formats import Format, event_format

_FILE_BYTES_MOST = 1 << 16
_COUNT = re.compile(rb"^(entries|overrun|commit overrun|dropped events|read events): (\d+)$", re.M)


class Instance:
    """One, which records nothing yet. `pipes` are its rings, for each of `cpus`, to be read."""

    def __init__(self, folder: Path, ring_bytes: int) -> None:
        """Take hold of one that has been made, and is removed by others. Raises OSError."""
        self._folder = folder
        self._fds: list[int] = []
        self._recorded: tuple[str, ...] = ()
        try:
            self._write("trace_clock", "mono")
            # What is full keeps what it has, as what was before explains what comes.
            self._write("options/overwrite", "0")
            self.cpus = sorted(int(each.name[3:]) for each in (folder / "per_cpu").iterdir())
            self._write("buffer_size_kb", str(max(64, ring_bytes // 1024 // len(self.cpus))))
            self.pipes = [self._open(f"per_cpu/cpu{n}/trace_pipe_raw") for n in self.cpus]
            self._stats = [self._open(f"per_cpu/cpu{n}/stats") for n in self.cpus]
            self._on = self._open("tracing_on", os.O_WRONLY)
        except BaseException:
            self.close()
            raise

    def formats(self, events: Mapping[str, str]) -> dict[str, Format]:
        """How events look, by what they are called here. Raises OSError, FormatUnknown."""
        folder = self._folder / "events"
        return {
            key: event_format(name, _text(folder / name / "format")) for key, name in events.items()
        }

    def record(self, name: str, wanted: str = "") -> None:
        """Begin with an event, of those that a filter lets pass. Raises OSError."""
        if wanted:
            self._write(f"events/{name}/filter", wanted)
        self._write(f"events/{name}/enable", "1")
        self._recorded += (name,)

    def follow(self, tids: Iterable[int]) -> None:
        """Record these threads alone, and what they start. Raises OSError."""
        self._write("options/event-fork", "1")
        self._write("set_event_pid", " ".join(map(str, tids)))

    def leave_out(self, tids: Iterable[int]) -> None:
        """Do not record these threads. Raises OSError."""
        self._write("set_event_notrace_pid", " ".join(map(str, tids)))

    def followed(self) -> list[int]:
        """The threads that `follow` is about now."""
        return [int(word) for word in _text(self._folder / "set_event_pid").split()]

    def counts(self) -> tuple[int, int]:
        """How many records were made, and how many of them could not be kept."""
        made = lost = 0
        for fd in self._stats:
            told = {key: int(n) for key, n in _COUNT.findall(os.pread(fd, 4096, 0))}
            over = told[b"overrun"] + told[b"dropped events"] + told[b"commit overrun"]
            made += told[b"entries"] + told[b"read events"] + over
            lost += over
        return made, lost

    def stop(self) -> None:
        """Record nothing more, and detach from the kernel; the rings can still be read."""
        os.write(self._on, b"0")
        for name in self._recorded:
            self._write(f"events/{name}/enable", "0")

    def close(self) -> None:
        """Let go of it, so that it can be removed."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def _open(self, name: str, flags: int = os.O_RDONLY | os.O_NONBLOCK) -> int:
        fd = os.open(self._folder / name, flags)
        self._fds.append(fd)
        return fd

    def _write(self, name: str, text: str) -> None:
        path = self._folder / name
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        except OSError as e:
            raise OSError(e.errno, e.strerror, str(path)) from e
        finally:
            os.close(fd)


def _text(path: Path) -> str:
    return proc.read(str(path), _FILE_BYTES_MOST).decode("ascii", "replace")
