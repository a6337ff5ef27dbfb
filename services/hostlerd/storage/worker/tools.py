"""Running tools: absolute path, fixed environment, bounded time and output."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hostlerd.storage.model import blkid
from hostlerd.storage.model.observed import Signature
from hostlerd.storage.worker.refused import Refused

_ENVIRONMENT = {
    **{"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    # Without the capability to look into PID 1's root systemctl would take this for a chroot.
    "SYSTEMD_IGNORE_CHROOT": "1",
}
_OUTPUT_BYTES_MOST = 4 << 20
_WORDS_MOST = 2000
_LINE_MOST = 300
_PROBE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool answered."""

    status: int
    output: str
    errors: str


@dataclass(frozen=True, slots=True)
class Tools:
    """Runs the tools of one request. `check` raises Refused if a device is another one by now."""

    check: Callable[[], None]

    def run(
        self,
        argv: Sequence[str],
        stdin: bytes = b"",
        timeout_s: float = 900.0,
        good: Sequence[int] = (0,),
    ) -> Answer:
        """Run a tool that changes something, between two looks at the devices.

        Raises Refused if a device has changed, the tool is not there, takes too long or says no.
        """
        self.check()
        answer = _run(argv, stdin, timeout_s)
        self.check()
        if answer.status not in good:
            raise failed(argv, answer)
        return answer


def probe(argv: Sequence[str]) -> str:
    """Run a tool that only reads; answer its output. Raises Refused."""
    answer = _run(argv, b"", _PROBE_TIMEOUT_S)
    if answer.status != 0:
        raise failed(argv, answer)
    return answer.output


def signatures(path: str) -> tuple[Signature, ...]:
    """What blkid finds on a device now. Raises Refused."""
    argv = blkid.argv(path)
    answer = _run(argv, b"", _PROBE_TIMEOUT_S)
    if answer.status == blkid.AMBIVALENT:
        return (blkid.CONTRADICTION,)
    if answer.status not in (0, blkid.NOTHING_FOUND):
        raise failed(argv, answer)
    return blkid.parse(answer.output)


def failed(argv: Sequence[str], answer: Answer) -> Refused:
    """The refusal of what a tool has failed at; its last line is told, all of it in the details."""
    words = (answer.errors.strip() or answer.output.strip())[-_WORDS_MOST:]
    name = Path(argv[0]).name
    last = f": {words.splitlines()[-1].strip()[:_LINE_MOST]}" if words else ""
    return Refused(
        "TOOL_FAILED",
        f"{name} ended with status {answer.status}{last}",
        tool=name,
        stderr=words,
    )


def _run(argv: Sequence[str], stdin: bytes, timeout_s: float) -> Answer:
    name = Path(argv[0]).name
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
    ):
        given.write(stdin)
        given.seek(0)
        try:
            child = subprocess.Popen(
                argv, stdin=given, stdout=output, stderr=errors, env=_ENVIRONMENT, cwd="/"
            )
        except FileNotFoundError:
            raise Refused("TOOL_MISSING", f"{argv[0]} is not installed", tool=name) from None
        try:
            status = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise Refused("TOOL_FAILED", f"{name} took over {timeout_s:g} s", tool=name) from None
        return Answer(
            status,
            os.pread(output.fileno(), _OUTPUT_BYTES_MOST, 0).decode("utf-8", "replace"),
            os.pread(errors.fileno(), _OUTPUT_BYTES_MOST, 0).decode("utf-8", "replace"),
        )
