"""Programs that listen on loopback while a test needs them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

READY_S = 60.0


_GIVEN: set[int] = set()


def free_port() -> int:
    """A port of loopback that nobody has, and that was not answered before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _GIVEN:
            _GIVEN.add(port)
            return port


def wait_for_port(port: int, program: subprocess.Popen[bytes] | None = None, log: str = "") -> None:
    """Wait until somebody listens; fails with the program's own words when it has ended."""
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if program is not None and program.poll() is not None:
            break
        time.sleep(0.05)
    said = Path(log).read_text(errors="replace")[-2000:] if log else ""
    raise AssertionError(f"nobody listens on port {port}: {said}")


@contextmanager
def running(
    argv: Sequence[str], ports: Sequence[int], log: Path, *, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a process group of its own until the block ends."""
    with log.open("wb") as out:
        program = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            start_new_session=True,
        )
    try:
        for port in ports:
            wait_for_port(port, program, str(log))
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGTERM)
        try:
            program.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            program.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)


def end(pid: int) -> None:
    """End a process that is no child of ours, and wait until it has gone."""
    deadline = time.monotonic() + READY_S
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
