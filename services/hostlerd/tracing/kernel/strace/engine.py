"""Traces of single processes by strace(1): slow for them, and without any help of the kernel.

strace runs with the collector's privileges; before its text is read the collector gives them up. A
process that holds on to them is left, which does nothing but end strace once the collector lets go.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from hostler.core.trace.events import Events
from hostlerd.tracing.kernel.capture.engine import DONE, descendants
from hostlerd.tracing.kernel.capture.kin import Accounts
from hostlerd.tracing.kernel.strace import privileges
from hostlerd.tracing.kernel.strace.batch import events_of
from hostlerd.tracing.kernel.strace.calls import Calls
from hostlerd.tracing.kernel.strace.processes import Processes
from hostlerd.tracing.kernel.strace.text import LINE_BYTES_MOST
from hostlerd.tracing.model.capture import STRACE, Capture

PIDS_MOST = 100
_READY_S = 10.0
_LOOK_S = 0.02
_END_S = 5.0
_READ_BYTES = 1 << 20
_ERROR_BYTES = 4096
_STRING_BYTES_MOST = 65535
_WINDOW_S = 1.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class StraceFailed(Exception):
    """strace has ended, and not because it was to."""


class StraceEngine:
    """One trace, with the same methods as the engine that has a tracer in the kernel."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._rest = b""
        self._number = 0
        self._is_over = False
        self._control = -1
        self._window = (time.monotonic(), 0.0)
        self.ended = ""
        self.has_ended = False

    def start(self) -> None:
        """Attach to the processes. Raises OSError where that is not to be had."""
        wanted = self._capture.filter
        pids = sorted({*wanted.pids, *descendants(wanted.pids)} - set(self._capture.excluded))
        _check(self._capture, pids)
        boot_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        processes = Processes()
        for pid in pids:
            processes.look(pid, boot_ns)
        self._calls = Calls(processes, self._capture.payload_bytes)
        self._accounts = Accounts()
        self._out, out = os.pipe()
        self._process = subprocess.Popen(
            _argv(self._capture.payload_bytes, out, pids),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(out,),
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            cwd="/",
        )
        os.close(out)
        self._control = _hold(self._process.pid, self._out)
        try:
            self._wait_attached(pids)
            privileges.drop()
        except OSError:
            self.close()
            raise

    def read(self, timeout_s: float) -> Events:
        """Answer the next calls, waiting up to `timeout_s` for them; empty if none came.

        After the end it waits for what is on its way. Raises StraceFailed.
        """
        give_up = time.monotonic() + (_END_S if self.has_ended else timeout_s)
        while not self._is_over:
            left_s = max(0.0, give_up - time.monotonic())
            if not select.select([self._out], [], [], left_s)[0]:
                break
            calls = list(self._calls.take(self._lines()))
            if calls:
                first, self._number = self._number + 1, self._number + len(calls)
                self._judge_cpu()
                return events_of(calls, first, self._accounts)
        if self._is_over and not self.has_ended:
            self._judge_end()
        return Events.empty()

    def end(self, reason: str) -> None:
        """Have strace let go; what it wrote before can still be read."""
        if not self.has_ended:
            self.has_ended, self.ended = True, reason
            os.close(self._control)

    def stop(self) -> None:
        """End because it is wanted."""
        self.end("")

    def close(self) -> None:
        """Stop, and wait for strace."""
        self.stop()
        os.close(self._out)
        self._process.wait(_END_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lines(self) -> Iterator[bytes]:
        data = os.read(self._out, _READ_BYTES)
        self._is_over = not data
        *lines, rest = (self._rest + data).split(b"\n")
        # A line without an end is given up, whoever wrote it.
        self._rest = rest if len(rest) <= LINE_BYTES_MOST else b""
        return iter(lines)

    def _wait_attached(self, pids: list[int]) -> None:
        give_up = time.monotonic() + _READY_S
        while not all(map(self._is_attached, pids)):
            if self._process.poll() is not None:
                raise OSError(0, self._words() or "it has ended at once", STRACE)
            if time.monotonic() > give_up:
                raise OSError(0, f"it did not attach within {_READY_S:.0f} s", STRACE)
            time.sleep(_LOOK_S)

    def _is_attached(self, pid: int) -> bool:
        try:
            status = Path(f"/proc/{pid}/status").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return True
        return b"\nTracerPid:\t%d\n" % self._process.pid in status

    def _judge_end(self) -> None:
        status = self._process.wait(_END_S)
        if status:
            raise StraceFailed(f"{STRACE}: {self._words() or f'exit status {status}'}")
        self.end(DONE)

    def _judge_cpu(self) -> None:
        began_s, before_s = self._window
        passed_s = time.monotonic() - began_s
        if passed_s < _WINDOW_S:
            return
        used_s = time.process_time() + _cpu_s(self._process.pid)
        self._window = time.monotonic(), used_s
        if before_s and (used_s - before_s) / passed_s > self._capture.budget.cpu_share:
            self.end("cpu")

    def _words(self) -> str:
        stderr = self._process.stderr
        if stderr is None or not select.select([stderr], [], [], 0)[0]:
            return ""
        said = os.read(stderr.fileno(), _ERROR_BYTES).decode(errors="replace").splitlines()
        return said[0].removeprefix("/usr/bin/strace: ").removeprefix("strace: ") if said else ""


def _check(capture: Capture, pids: list[int]) -> None:
    """Raise OSError for what strace cannot do."""
    why = ""
    if not capture.filter.pids:
        why = "it traces processes that are named, not whole hosts: say which pids"
    elif len(pids) > PIDS_MOST:
        why = f"{len(pids)} processes are more than it attaches to, {PIDS_MOST}"
    elif capture.filter.cgroup:
        why = "it knows no control groups"
    if why:
        raise OSError(0, why, STRACE)


def _argv(payload_bytes: int, out: int, pids: list[int]) -> list[str]:
    options = ["-f", "-qq", "-yy", "-a", "1", "-X", "raw", "-s"]
    options += [str(min(payload_bytes, _STRING_BYTES_MOST))]
    options += ["--absolute-timestamps=format:unix,precision:ns", "--syscall-times=ns"]
    named = [word for pid in pids for word in ("-p", str(pid))]
    return [STRACE, *options, "-o", f"/proc/self/fd/{out}", *named]


def _hold(strace: int, out: int) -> int:
    """Fork what ends strace once the answered fd is closed, however that comes about."""
    wait, control = os.pipe()
    if os.fork():
        os.close(wait)
        return control
    try:
        for fd in (control, out, 0, 1):
            os.close(fd)
        alive = os.pidfd_open(strace)
        select.select([wait, alive], [], [])
        signal.pidfd_send_signal(alive, signal.SIGTERM)
        if not select.select([alive], [], [], _END_S)[0]:
            signal.pidfd_send_signal(alive, signal.SIGKILL)
    except ProcessLookupError:
        os._exit(0)
    finally:
        os._exit(0)


def _cpu_s(pid: int) -> float:
    try:
        words = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) * _TICK_S
