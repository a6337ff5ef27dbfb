"""Running a tool: absolute path, fixed environment, bounded time and output."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Timer

from hostlerd.firewall.errors import ToolFailed

# Times in what nft lists must not change with the seasons.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_OUTPUT_MOST = 256 << 20
_ERRORS_MOST = 64 << 10


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool answered."""

    status: int
    output: bytes
    errors: str


def run(argv: Sequence[str], given: bytes = b"", timeout_s: float = 60.0) -> Answer:
    """Run a tool with its input, and wait for its end.

    Raises ToolFailed if it cannot be started, takes too long or says too much.
    """
    # Files, not pipes: nobody has to write while somebody reads. nft opens /dev/stdin anew, which
    # works for a file of this very user.
    with _memory("input", given) as stdin, _memory("errors") as stderr:
        try:
            child = subprocess.Popen(
                argv, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, env=_ENVIRONMENT, cwd="/"
            )
        except OSError as e:
            raise ToolFailed(f"{argv[0]}: {e.strerror}", tool=argv[0]) from e
        status, output = _finish(child, timeout_s)
        errors = os.pread(stderr, _ERRORS_MOST, 0).decode(errors="replace")
    return Answer(status, output, errors)


def _finish(child: subprocess.Popen[bytes], timeout_s: float) -> tuple[int, bytes]:
    late = Timer(timeout_s, child.kill)
    late.start()
    try:
        with child:
            output = child.stdout.read(_OUTPUT_MOST + 1) if child.stdout else b""
            if len(output) > _OUTPUT_MOST:
                child.kill()
            status = child.wait()
    finally:
        late.cancel()
    if status < 0:
        tool = str(child.args[0]) if isinstance(child.args, (list, tuple)) else str(child.args)
        raise ToolFailed(f"{tool} was ended by signal {-status}", tool=tool, timeout_s=timeout_s)
    return status, output


@contextmanager
def _memory(name: str, content: bytes = b"") -> Iterator[int]:
    """Answer a file in memory, at its start."""
    fd = os.memfd_create(f"hostler-{name}", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)
