"""What `trace stuck` says here, of processes that are stuck for real."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from hostler.api.tracing.v1 import diagnosis_pb2 as pb
from hostlerd.tracing.kernel import Kernel
from hostlerd.tracing.service.diagnosis import DiagnosisService

NO_CONTEXT: Any = None


class Here:
    """The blocking side of a runtime."""

    async def blocking(self, work: Callable[..., Any], /, *args: Any) -> Any:
        return await asyncio.to_thread(work, *args)


def diagnose(kernel: Kernel | None = None, **asked: Any) -> pb.DiagnoseStuckResponse:
    runtime: Any = Here()
    service = DiagnosisService(runtime, kernel or Kernel())
    request = pb.DiagnoseStuckRequest(**asked)
    answer: pb.DiagnoseStuckResponse = asyncio.run(service.DiagnoseStuck(request, NO_CONTEXT))
    return answer


def found_at(pid: int, *, within_s: float = 10) -> pb.Finding:
    """What is said of a process among all that are stuck on the host."""
    until_s = time.monotonic() + within_s
    while True:
        answer = diagnose()
        for finding in answer.findings:
            if finding.process.pid == pid:
                print(f"\n{finding.sentence}")
                return finding
        assert time.monotonic() < until_s, [f.sentence for f in answer.findings]


@contextmanager
def child(work: Callable[[], object]) -> Iterator[int]:
    """A process that does some work, and is killed at the end."""
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            work()
        os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def holders(finding: pb.Finding) -> list[int]:
    return [each.process.pid for each in finding.holders]


@contextmanager
def python(source: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", source, *args], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], bool], within_s: float = 20) -> None:
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.05)
