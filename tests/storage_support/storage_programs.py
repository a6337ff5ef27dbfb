"""Programs beside the worker, as processes, and jobs, each in a process of its own as units do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage_daemon import World
from storage_devices import READY_S


@contextmanager
def program(place: Path, role: str, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """`-m MODULE …` as a process that listens at `storage-ROLE.sock` of a folder, till the end."""
    started = start(place, role, *argv)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(30)


def start(place: Path, role: str, *argv: str) -> subprocess.Popen[bytes]:
    """Start a program; it listens by then."""
    door = place / f"storage-{role}.sock"
    words = (sys.executable, "-I", "-m", *argv, "--listen", str(door), "--idle-s", "3600")
    with (place / f"{role}.log").open("ab") as log:
        started = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    end = time.monotonic() + READY_S
    while not _listens(door):
        assert started.poll() is None, (place / f"{role}.log").read_text()
        assert time.monotonic() < end, f"{role} does not listen"
        time.sleep(0.02)
    return started


def _listens(door: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(str(door)) == 0


def job_process(host: World) -> subprocess.Popen[bytes]:
    """Do the job that waits, as the path unit has it done while the queue is not empty."""
    root = host.daemon.root
    folders = {"CONFIGURATION": "etc", "STATE": "state", "RUNTIME": "run", "LOGS": "log"}
    environment = {f"{key}_DIRECTORY": str(root / name) for key, name in folders.items()}
    argv = (sys.executable, "-c", host.daemon.program, "job")
    with (root / "stderr").open("ab") as stderr:
        return subprocess.Popen(
            argv, env={"PATH": os.environ["PATH"], **environment}, stderr=stderr
        )


@contextmanager
def running_job(host: World) -> Iterator[subprocess.Popen[bytes]]:
    """Do the job that waits, until the block ends."""
    process = job_process(host)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
