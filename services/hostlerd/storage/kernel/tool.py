"""Running a tool: absolute path, fixed environment, bounded time and output."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from hostlerd.storage.errors import ToolFailed

_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_OUTPUT_MOST = 4 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool answered."""

    status: int
    output: str
    errors: str


def run(argv: Sequence[str], timeout_s: float) -> Answer:
    """Run a tool and wait for its end, at most so long. Raises ToolFailed.

    A tool that hangs in the kernel, on a disk that does not answer, cannot be killed: it is left
    to itself then, and its process goes when the disk answers or the host boots.
    """
    status, output, errors = _run(argv, timeout_s)
    return Answer(status, output.decode("utf-8", "replace"), errors)


def run_for_bytes(argv: Sequence[str], timeout_s: float) -> bytes:
    """The same for output that is no text. Raises ToolFailed, also if the tool says no."""
    status, output, errors = _run(argv, timeout_s)
    if status != 0:
        words = errors.strip() or f"{argv[0]} ended with status {status}"
        raise ToolFailed(words, tool=argv[0])
    return output


def _run(argv: Sequence[str], timeout_s: float) -> tuple[int, bytes, str]:
    # In memory: the daemon has no folder that it may write to, but for its own state.
    with _memory() as output, _memory() as errors:
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=_ENVIRONMENT,
                cwd="/",
            )
        except OSError as e:
            raise ToolFailed(f"{argv[0]}: {e.strerror}", tool=argv[0]) from e
        try:
            status = child.wait(timeout_s)
        except subprocess.TimeoutExpired as e:
            child.kill()
            raise ToolFailed(f"{argv[0]} took over {timeout_s} s", tool=argv[0]) from e
        said = os.pread(errors.fileno(), _OUTPUT_MOST, 0).decode("utf-8", "replace")
        return status, os.pread(output.fileno(), _OUTPUT_MOST, 0), said


def _memory() -> IO[bytes]:
    return os.fdopen(os.memfd_create("hostler-tool", os.MFD_CLOEXEC), "w+b")
